"""Sample images without a download: scikit-learn's handwritten digits, 3 and 8, as files in two class folders."""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

_CLASSES: Final = {3: "three", 8: "eight"}
_SIDE_PX: Final = 128
_INK_PX: Final = 64  #: side of the digit, which is in the middle of the paper
_CONTRAST: Final = 4  #: an 8 x 8 scan is a blur when it is enlarged; this sharpens the strokes


def write_digits(folder: Path) -> int:
    """Writes 357 PNG files to ``folder/three`` and ``folder/eight``. Returns their number."""
    digits = load_digits()
    count = 0
    for index, (image, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        if digit not in _CLASSES:
            continue
        path = folder / _CLASSES[digit] / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        _render(image).save(path)
        count += 1
    return count


def _render(image: NDArray[np.float64]) -> Image.Image:
    """Draws ``(8, 8)`` ink, 0 to 16, as black strokes in the middle of white paper."""
    grey = (255 - image * (255 / 16)).astype(np.uint8)
    large = np.asarray(Image.fromarray(grey).resize((_INK_PX, _INK_PX), Image.Resampling.BICUBIC)).astype(np.float64)
    paper = np.full((_SIDE_PX, _SIDE_PX), 255, np.uint8)
    edge = (_SIDE_PX - _INK_PX) // 2
    paper[edge:-edge, edge:-edge] = np.clip((large - 128) * _CONTRAST + 128, 0, 255)
    return Image.fromarray(paper)
