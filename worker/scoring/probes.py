"""The probe images: a fixed set that every model is tried on before it scores any other image."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from worker.scoring.decoder import Pixels

_SEED: Final = 20_241_124
#: The sizes of the grains of noise, in pixels.
_GRAINS: Final = (1, 16)


def probes(size_px: int) -> Iterator[Pixels]:
    """Yields ``(size_px, size_px, 3)`` uint8 RGB images: plain, gradients, a chessboard, fine and coarse noise."""
    for value in (0, 255):
        yield np.full((size_px, size_px, 3), value, np.uint8)
    ramp = np.tile(np.linspace(0, 255, size_px).astype(np.uint8), (size_px, 1))
    yield np.stack([ramp, ramp.T, ramp[:, ::-1]], axis=2)
    squares = np.arange(size_px) // 8
    yield np.repeat(((squares[:, None] + squares) % 2 * 255).astype(np.uint8)[:, :, None], 3, axis=2)
    for grain in _GRAINS:
        side = -(-size_px // grain)
        # The raw stream of a bit generator is the same on every platform and in every version of NumPy.
        raw = np.random.PCG64(_SEED).random_raw(-(-side * side * 3 // 8)).astype("<u8").view(np.uint8)
        noise = raw[: side * side * 3].reshape(side, side, 3)
        yield noise.repeat(grain, axis=0).repeat(grain, axis=1)[:size_px, :size_px].copy()
