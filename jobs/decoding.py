"""Images decoded as the worker does it: in child processes, so that a hostile file cannot end a training job."""

import atexit
import functools
from typing import Final

import numpy as np

from worker.scoring.decoder import Pixels
from worker.scoring.limits import ImageLimits
from worker.scoring.sandbox import Sandbox
from worker.settings import available_cores

_DEFAULT: Final = ImageLimits()


def sandbox(limits: ImageLimits = _DEFAULT) -> Sandbox:
    """Returns this process's sandbox with these limits. The first call starts it, with a child for each core."""
    return _sandbox(limits)


@functools.cache
def _sandbox(limits: ImageLimits) -> Sandbox:
    shared = Sandbox(processes=available_cores(), limits=limits)
    atexit.register(shared.close)
    return shared


def decode(data: bytes, *, size_px: int) -> Pixels:
    """Returns the ``(size_px, size_px, 3)`` uint8 RGB pixels of an image file, from any thread. Raises Reject."""
    pixels = np.frombuffer(sandbox().decode(data, size_px=size_px), np.uint8)
    return pixels.reshape(size_px, size_px, 3)


def thumbnail(data: bytes, *, max_px: int) -> Pixels:
    """Returns the ``(H, W, 3)`` uint8 RGB pixels of an image file in its proportions, from any thread. Raises Reject.

    The longer side has ``max_px`` pixels, or fewer: a small image is not enlarged.
    """
    pixels, height = sandbox().thumbnail(data, max_px=max_px)
    return np.frombuffer(pixels, np.uint8).reshape(height, -1, 3)
