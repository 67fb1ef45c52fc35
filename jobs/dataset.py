"""A folder of class folders to labelled images: found, hashed, split.

    pets/cats/*.jpg, pets/dogs/*.jpg                           a test set is split off
    pets/train/{cats,dogs}, pets/validation/{cats,dogs}        validation/ is the test set, as in the seed's data
    pets/train/…, pets/validation/…, pets/test/…               each is what it says

Class 0 and class 1 are the two folder names in alphabetical order.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from sklearn.model_selection import train_test_split

from jobs.config import TrainConfig
from jobs.errors import UserError
from jobs.labelled import Dataset, LabelledImage
from jobs.progress import Reporter
from worker.settings import available_cores


def open_dataset(config: TrainConfig, reporter: Reporter) -> Dataset:
    """Lists the images, hashes and splits them, the same way every time for the same names and seed.

    Raises UserError, naming what was found, unless there are two classes with two images or more each.
    """
    root = config.data
    if not root.is_dir():
        raise UserError(f"{root} is no folder. Give a folder with one folder of images for each of two classes.")
    # A class may be called "train" too, as in bus/ and train/; then it holds images and no folders.
    holds_splits = any(entry.is_dir() for entry in (root / "train").glob("*"))
    labels = _labels(root / "train" if holds_splits else root)
    train, validation, test = _splits(config, root, labels) if holds_splits else _own_splits(config, root, labels)
    found = train + validation + test
    digests = {}
    with (
        reporter.step("Hashing the images", total=len(found)) as advance,
        ThreadPoolExecutor(available_cores()) as pool,
    ):
        for image, digest in zip(found, pool.map(_sha256, found), strict=True):
            digests[image.ref] = digest
            advance(1)

    def hashed(images: list[LabelledImage], split: str) -> list[LabelledImage]:
        return [replace(image, sha256=digests[image.ref], split=split) for image in images]

    return Dataset(
        labels=labels,
        train=hashed(train, "train"),
        validation=hashed(validation, "validation"),
        test=hashed(test, "test"),
        quarantined=[],
        digest=_dataset_digest(digests),
    )


_Splits = tuple[list[LabelledImage], list[LabelledImage], list[LabelledImage]]


def _own_splits(config: TrainConfig, root: Path, labels: tuple[str, str]) -> _Splits:
    rest, test = _split(_images(root, root, labels), config.test_split, config.seed)
    train, validation = _split(rest, config.validation_split, config.seed)
    return train, validation, test


def _splits(config: TrainConfig, root: Path, labels: tuple[str, str]) -> _Splits:
    train = _images(root / "train", root, labels)
    if (root / "test").is_dir():
        test = _images(root / "test", root, labels)
        if (root / "validation").is_dir():
            return train, _images(root / "validation", root, labels), test
    elif (root / "validation").is_dir():
        test = _images(root / "validation", root, labels)
    else:
        train, test = _split(train, config.test_split, config.seed)
    train, validation = _split(train, config.validation_split, config.seed)
    return train, validation, test


def _sha256(image: LabelledImage) -> str:
    try:
        with image.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""  # the reader says why


def _dataset_digest(digests: dict[str, str]) -> str:
    lines = (f"{digest}  {ref}\n" for ref, digest in sorted(digests.items()))
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


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
