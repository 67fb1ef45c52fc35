"""Real images without a download: scikit-learn's handwritten digits, 3 against 8, as files in class folders."""

from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

_CLASSES: Final = {3: "three", 8: "eight"}
_SIDE_PX: Final = 128


def write_digits(folder: Path) -> int:
    """Writes 357 PNG files to ``folder/three`` and ``folder/eight``; returns how many."""
    digits = load_digits()
    count = 0
    for index, (image, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        if digit not in _CLASSES:
            continue
        ink = np.uint8(255) - (image * (255 / 16)).astype(np.uint8)  # 8 x 8, 0 to 16: black ink on white paper
        path = folder / _CLASSES[digit] / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(ink).resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BICUBIC).save(path)
        count += 1
    return count
