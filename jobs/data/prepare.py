"""A dataset opened: its files found, hashed, split, and those left out that can be told without decoding."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from sklearn.model_selection import train_test_split

from jobs.config import TrainConfig
from jobs.data import sources
from jobs.data.class_folders import SPLITS, Found, Layout, arrange
from jobs.data.dataset import Dataset, LabelledImage, Quarantined, Reason, check_share
from jobs.data.duplicates import find_copies
from jobs.progress import Reporter
from jobs.user_error import UserError
from worker.scoring.decoder import MAX_BYTES
from worker.settings import available_cores


def open_dataset(config: TrainConfig, reporter: Reporter) -> Dataset:
    """The images of ``config.data``, split the same way every time for the same names and seed.

    Raises UserError, naming what was found, unless there are two classes with images in every split, and no more of a
    class is left out than ``config.max_quarantined``.
    """
    layout = arrange(sources.open_source(config.data, config.cache / "data", reporter))
    parts = _split_parts(layout, config)
    reasons = {found.ref: found.file.reason for part in parts.values() for found in part}
    images = _hash([_image(found, split) for split in SPLITS for found in parts[split]], reasons, reporter)
    left_out = [Quarantined(image, reason) for image in images if (reason := reasons[image.ref]) is not None]
    left_out += find_copies(images, reporter)
    gone = {item.image.ref for item in left_out}
    kept = [image for image in images if image.ref not in gone]
    dataset = Dataset(
        labels=layout.labels,
        train=[image for image in kept if image.split == "train"],
        validation=[image for image in kept if image.split == "validation"],
        test=[image for image in kept if image.split == "test"],
        quarantined=left_out,
        digest=_digest(images),
    )
    check_share(dataset, left_out, config.max_quarantined)
    _check_classes(dataset)
    return dataset


def _split_parts(layout: Layout, config: TrainConfig) -> dict[str, list[Found]]:
    train, validation, test = layout.train, layout.validation, layout.test
    if test is None:
        train, test = _split(train, config.test_split, config.seed)
    if validation is None:
        train, validation = _split(train, config.validation_split, config.seed)
    return {"train": train, "validation": validation, "test": test}


def _split(files: list[Found], share: float, seed: int) -> tuple[list[Found], list[Found]]:
    """``share`` of each class goes to the second list."""
    classes = [found.label for found in files]
    try:
        kept, taken = train_test_split(files, test_size=share, random_state=seed, stratify=classes)
    except ValueError as error:
        raise UserError(f"{len(files)} images are too few to split: {error}") from error
    return sorted(kept, key=lambda found: found.ref), sorted(taken, key=lambda found: found.ref)


def _image(found: Found, split: str) -> LabelledImage:
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
    """Empty where the file cannot be read or is too large: whoever decodes it says so."""
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
                out = ", ".join(item.image.ref for item in dataset.quarantined[:5])
                raise UserError(
                    f"The {split} split has no image of class {name} left: {len(dataset.quarantined):,} files were "
                    f"left out, most as the same picture again: {out}. Give more pictures."
                )
