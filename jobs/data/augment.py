"""Augmentation: further views of a picture, the same ones in every run.

    0      the picture
    1      its mirror image
    2, …   a crop of 75 to 100 % of each side, mirrored or not

The features of each view are computed once, so a view costs as much as reading the training images again.
"""

import zlib
from typing import Final

import numpy as np
from PIL import Image

from worker.scoring.decoder import Pixels

#: Of a crop, along each side.
_SMALLEST: Final = 0.75


def view(pixels: Pixels, number: int, identity: str) -> Pixels:
    """View ``number`` of a ``(H, W, 3)`` uint8 RGB picture; ``identity`` (its digest) decides where it is cropped."""
    if number == 0:
        return pixels
    if number == 1:
        return pixels[:, ::-1]
    random = np.random.default_rng([zlib.crc32(identity.encode()), number])
    height, width, _ = pixels.shape
    rows, columns = (round(side * random.uniform(_SMALLEST, 1.0)) for side in (height, width))
    top, left = random.integers(height - rows + 1), random.integers(width - columns + 1)
    crop = pixels[top : top + rows, left : left + columns]
    if random.random() < 0.5:  # noqa: PLR2004 - a coin
        crop = crop[:, ::-1]
    whole = Image.fromarray(np.ascontiguousarray(crop)).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(whole, dtype=np.uint8)
