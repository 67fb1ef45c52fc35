"""Small datasets for the tests: folders of images, packed and opened."""

import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from jobs.config import TrainConfig
from jobs.data.dataset import Dataset
from jobs.data.prepare import open_dataset
from jobs.progress import Reporter

QUIET = Reporter(quiet=True)


def write_image(path: Path, seed: int) -> Path:
    """Writes a small PNG. Each seed gives another image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(path)
    return path


def folder(root: Path, **counts: int) -> Path:
    """Writes class folders with that many images, all different."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            write_image(root / name / f"{number:03d}.png", zlib.crc32(f"{root.name}/{name}/{number}".encode()))
    return root


def pack(data: Path, archive: Path) -> Path:
    """Packs the folder itself, as users do, to a zip or a tar, according to the name of the archive."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
            for path in sorted(data.rglob("*")):
                zipped.write(path, path.relative_to(data.parent))
    else:
        with tarfile.open(archive, "w" if archive.suffix == ".tar" else "w:gz") as tar:
            tar.add(data, data.name)
    return archive


def open_data(data: Path | str | Sequence[Path | str], **options: object) -> Dataset:
    """Opens the dataset as a training job does."""
    sources = [str(data)] if isinstance(data, Path | str) else [*map(str, data)]
    config = TrainConfig.model_validate({"data": sources, "output": "out", "cache": Path("no-cache"), **options})
    return open_dataset(config, QUIET)
