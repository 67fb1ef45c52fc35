"""Preparation of a dataset: its files are found, hashed and split, and duplicates are left out."""

import hashlib
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final

from sklearn.model_selection import train_test_split

from jobs.config import TrainConfig
from jobs.data import sources
from jobs.data.class_folders import SPLITS, ClassFile, Layout, arrange
from jobs.data.dataset import Dataset, LabelledImage, Quarantined, Reason, check_share
from jobs.data.duplicates import find_duplicates
from jobs.printable import printable
from jobs.progress import Reporter
from jobs.user_error import UserError
from jobs.wording import counted
from worker.scoring.limits import MAX_BYTES
from worker.settings import available_cores

#: Whoever splits off a share so small that more is needed has to find out by trying.
_MOST_NEEDED: Final = 100_000


def open_dataset(config: TrainConfig, reporter: Reporter) -> Dataset:
    """Returns the images of ``config.data``. The same names and seed always give the same split.

    Raises UserError, with what was found, unless there are two classes with images in every split, and no more than
    ``config.max_quarantined`` of a class is left out.
    """
    listing = sources.open_source(config.data, config.cache / "data", reporter, redirect_hosts=config.allowed_redirects)
    layout = arrange(listing)
    files = _split_files(layout, config)
    reasons = {found.ref: found.file.reason for part in files.values() for found in part}
    images = _hash([_image(found, split) for split in SPLITS for found in files[split]], reasons, reporter)
    quarantined = [Quarantined(image, reason) for image in images if (reason := reasons[image.ref]) is not None]
    quarantined += find_duplicates(images, reporter)
    gone = {item.image.ref for item in quarantined}
    kept = [image for image in images if image.ref not in gone]
    dataset = Dataset(
        labels=layout.labels,
        train=[image for image in kept if image.split == "train"],
        validation=[image for image in kept if image.split == "validation"],
        test=[image for image in kept if image.split == "test"],
        quarantined=quarantined,
        digest=_digest(images),
    )
    check_share(dataset, quarantined, config.max_quarantined, counted_all=False)
    _check_classes(dataset)
    return dataset


def _split_files(layout: Layout, config: TrainConfig) -> dict[str, list[ClassFile]]:
    train, validation, test = layout.train, layout.validation, layout.test
    try:
        if test is None:
            train, test = _split(train, config.test_split, config.seed)
        if validation is None:
            train, validation = _split(train, config.validation_split, config.seed)
    except ValueError as error:  # scikit-learn's, about what is left at that point
        raise UserError(_too_few(layout, config)) from error
    return {"train": train, "validation": validation, "test": test}


def _too_few(layout: Layout, config: TrainConfig) -> str:
    counts = (sum(found.label == label for found in layout.train) for label in (0, 1))
    found = " and ".join(f"{count:,} of {name}" for count, name in zip(counts, layout.labels, strict=True))
    uses = "training, validation and test" if layout.test is None else "training and validation"
    uses = "training and test" if layout.validation is not None else uses
    shares = [config.test_split] * (layout.test is None) + [config.validation_split] * (layout.validation is None)
    return (
        f"{counted(len(layout.train), 'image')} ({found}) are too few to split into {uses} images. "
        f"Each class needs at least {_fewest(shares)}."
    )


def _fewest(shares: list[float]) -> int:
    """Returns how many images of each class can be split: each part takes one of each class, as in scikit-learn."""
    for count in range(2, _MOST_NEEDED):
        left = 2 * count
        for share in shares:
            taken = math.ceil(share * left)
            left = left - taken if taken >= 2 else 0  # noqa: PLR2004 - two classes
        if left >= 2:  # noqa: PLR2004 - two classes
            return count
    return _MOST_NEEDED


def _split(files: list[ClassFile], share: float, seed: int) -> tuple[list[ClassFile], list[ClassFile]]:
    """Moves ``share`` of each class to a second list. Raises ValueError if there are too few."""
    classes = [found.label for found in files]
    kept, taken = train_test_split(files, test_size=share, random_state=seed, stratify=classes)
    return sorted(kept, key=lambda found: found.ref), sorted(taken, key=lambda found: found.ref)


def _image(found: ClassFile, split: str) -> LabelledImage:
    return LabelledImage(path=found.file.path, ref=found.ref, label=found.label, split=split)


def _hash(images: list[LabelledImage], reasons: dict[str, Reason | None], reporter: Reporter) -> list[LabelledImage]:
    def hashed(image: LabelledImage) -> LabelledImage:
        return image if reasons[image.ref] else replace(image, sha256=_sha256(image))

    done = []
    with (
        reporter.step("Hashing the images", total=len(images)) as advance,
        ThreadPoolExecutor(available_cores()) as pool,
    ):
        for image in pool.map(hashed, images):
            done.append(image)
            advance(1)
    return done


def _sha256(image: LabelledImage) -> str:
    """Returns "" for a file that cannot be read or is too large. The loader will report the reason."""
    try:
        if image.path.stat().st_size > MAX_BYTES:
            return ""
        with image.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _digest(images: list[LabelledImage]) -> str:
    lines = sorted(f"{image.sha256} {image.ref}\0" for image in images)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _check_classes(dataset: Dataset) -> None:
    for split, images in (("train", dataset.train), ("validation", dataset.validation), ("test", dataset.test)):
        for label, name in enumerate(dataset.labels):
            if not any(image.label == label for image in images):
                examples = printable(", ".join(item.image.ref for item in dataset.quarantined[:5]))
                raise UserError(
                    f"The {split} split has no image of class {name} left. {len(dataset.quarantined):,} files were "
                    f"left out, most of them as duplicates: {examples}. Add more images."
                )
