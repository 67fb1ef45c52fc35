"""A folder of class folders to labelled images: found, split, decoded.

    pets/cats/*.jpg, pets/dogs/*.jpg                           a test set is split off
    pets/train/{cats,dogs}, pets/validation/{cats,dogs}        validation/ is the test set, as in the seed's data
    pets/train/…, pets/validation/…, pets/test/…               each is what it says

Class 0 and class 1 are the two folder names in alphabetical order.
"""

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from sklearn.model_selection import train_test_split

from jobs.config import TrainConfig
from jobs.errors import UserError
from jobs.progress import Advance
from worker.errors import ErrorCode, Reject
from worker.images import Pixels, decode
from worker.predictions import csv_bytes
from worker.settings import available_cores

#: Images decoded together: 10 MB at 160 pixels, so memory does not grow with the dataset.
_CHUNK: Final = 128


@dataclass(frozen=True)
class LabelledImage:
    """A file and the class its folder says: 0 or 1. ``ref`` is the path below the dataset's folder."""

    path: Path
    ref: str
    label: int


@dataclass(frozen=True)
class Splits:
    """The images of a dataset, by what they are for, and the names of the two classes."""

    labels: tuple[str, str]
    train: list[LabelledImage]
    validation: list[LabelledImage]
    test: list[LabelledImage]

    def __len__(self) -> int:
        return len(self.train) + len(self.validation) + len(self.test)


@dataclass(frozen=True)
class Quarantined:
    """An image left out, and why."""

    image: LabelledImage
    reason: Reject


def quarantine_csv(left_out: list[Quarantined]) -> bytes:
    """``quarantine.csv``: one line for every image left out, as text that a spreadsheet does not run."""
    lines = [("source_ref", "error_code", "error_message")]
    lines += [(item.image.ref, item.reason.code.value, item.reason.message) for item in left_out]
    return csv_bytes(lines)


@dataclass(frozen=True)
class Chunk:
    """Some images that could be decoded: ``pixels`` is ``(N, H, W, 3)`` uint8 RGB, N = ``len(images)``."""

    images: list[LabelledImage]
    pixels: Pixels


@dataclass
class Reader:
    """Decodes images chunk by chunk, and remembers what it left out and the digest of what it read."""

    size_px: int
    quarantined: list[Quarantined] = field(default_factory=list)
    _digests: dict[str, str] = field(default_factory=dict)

    def chunks(self, images: Iterable[LabelledImage], advance: Advance) -> Iterator[Chunk]:
        """The images that can be decoded, in order, with the decoder that serves them later.

        ``advance`` hears of each chunk when whoever asked for it is done with it.
        """
        remaining = iter(images)
        with ThreadPoolExecutor(available_cores()) as pool:
            while batch := list(islice(remaining, _CHUNK)):
                kept, pixels = [], []
                for image, result in zip(batch, pool.map(self._decode, batch), strict=True):
                    if isinstance(result, Reject):
                        self.quarantined.append(Quarantined(image, result))
                    else:
                        kept.append(image)
                        pixels.append(result)
                if kept:
                    yield Chunk(kept, np.stack(pixels))
                advance(len(batch))

    def dataset_digest(self) -> str:
        """SHA-256 over path and content of every file read so far, whatever the order of reading."""
        lines = (f"{digest}  {ref}\n" for ref, digest in sorted(self._digests.items()))
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

    def sha256(self, image: LabelledImage) -> str:
        """Of the bytes of an image that was read."""
        return self._digests[image.ref]

    def _decode(self, image: LabelledImage) -> Pixels | Reject:
        try:
            data = image.path.read_bytes()
        except OSError as error:
            return Reject(ErrorCode.ACCESS_DENIED, f"cannot be read: {error.strerror}")
        self._digests[image.ref] = hashlib.sha256(data).hexdigest()
        try:
            return decode(data, size_px=self.size_px)
        except Reject as reason:
            return reason


def find(config: TrainConfig) -> Splits:
    """Lists the images and splits them, the same way every time for the same names and seed.

    Raises UserError, naming what was found, unless there are two classes with two images or more each.
    """
    root = config.data
    if not root.is_dir():
        raise UserError(f"{root} is no folder. Give a folder with one folder of images for each of two classes.")
    # A class may be called "train" too, as in bus/ and train/; then it holds images and no folders.
    holds_splits = any(entry.is_dir() for entry in (root / "train").glob("*"))
    labels = _labels(root / "train" if holds_splits else root)
    if not holds_splits:
        rest, test = _split(_images(root, root, labels), config.test_split, config.seed)
        train, validation = _split(rest, config.validation_split, config.seed)
        return Splits(labels, train, validation, test)

    train = _images(root / "train", root, labels)
    if (root / "test").is_dir():
        test = _images(root / "test", root, labels)
        if (root / "validation").is_dir():
            return Splits(labels, train, _images(root / "validation", root, labels), test)
    elif (root / "validation").is_dir():
        test = _images(root / "validation", root, labels)
    else:
        train, test = _split(train, config.test_split, config.seed)
    train, validation = _split(train, config.validation_split, config.seed)
    return Splits(labels, train, validation, test)


def _labels(folder: Path) -> tuple[str, str]:
    found = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(found) != 2:  # noqa: PLR2004
        listed = ", ".join(found[:10]) or "none"
        raise UserError(f"{folder} must hold exactly two class folders; found {len(found)}: {listed}.")
    return found[0], found[1]


def _images(folder: Path, root: Path, labels: tuple[str, str]) -> list[LabelledImage]:
    if _labels(folder) != labels:
        raise UserError(
            f"{folder} holds {', '.join(_labels(folder))}, but the training images are {', '.join(labels)}."
        )
    images = []
    for label, name in enumerate(labels):
        files = sorted(p for p in (folder / name).rglob("*") if p.is_file() and not p.name.startswith("."))
        if len(files) < 2:  # noqa: PLR2004 - one to learn from and one to test with
            raise UserError(f"{folder / name} holds {len(files)} files; a class needs at least two images.")
        images += [LabelledImage(path, path.relative_to(root).as_posix(), label) for path in files]
    return images


def _split(images: list[LabelledImage], share: float, seed: int) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """``share`` of each class goes to the second list."""
    classes = [image.label for image in images]
    try:
        kept, taken = train_test_split(images, test_size=share, random_state=seed, stratify=classes)
    except ValueError as error:
        raise UserError(f"{len(images)} images are too few to split: {error}") from error
    return sorted(kept, key=lambda i: i.ref), sorted(taken, key=lambda i: i.ref)
