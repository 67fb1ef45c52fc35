"""Augmentation: variants of an image, the same ones in every run.

    0      the image itself
    1      its mirror image
    2, …   a crop of 75 to 100 % of each side, mirrored or not

The features of each variant are computed once, so a variant costs as much as reading the training images again.
"""

import zlib
from typing import Final

import numpy as np
from PIL import Image

from worker.scoring.decoder import Pixels

#: Smallest share of a side that a crop keeps.
_MIN_CROP: Final = 0.75


def augment(pixels: Pixels, variant: int, identity: str) -> Pixels:
    """Returns a variant of a ``(H, W, 3)`` uint8 RGB image, in the same shape.

    ``identity``, the digest of the file, decides together with the number where the image is cropped.
    """
    if variant == 0:
        return pixels
    if variant == 1:
        return pixels[:, ::-1]
    random = np.random.default_rng([zlib.crc32(identity.encode()), variant])
    height, width, _ = pixels.shape
    rows, columns = (round(side * random.uniform(_MIN_CROP, 1.0)) for side in (height, width))
    top, left = random.integers(height - rows + 1), random.integers(width - columns + 1)
    crop = pixels[top : top + rows, left : left + columns]
    if random.random() < 0.5:  # noqa: PLR2004 - every second one is mirrored
        crop = crop[:, ::-1]
    resized = Image.fromarray(np.ascontiguousarray(crop)).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.uint8)
