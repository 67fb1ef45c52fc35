"""Preparation of a dataset: its files are found, hashed and split, and duplicates are left out."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

from sklearn.model_selection import train_test_split

from jobs.config import TrainConfig
from jobs.data import mixing, sources
from jobs.data.class_folders import SPLITS, ClassFile, Layout, arrange
from jobs.data.dataset import Dataset, DataSource, LabelledImage, Quarantined, check_share
from jobs.data.duplicates import find_duplicates
from jobs.data.listed_images import LabelSource
from jobs.data.mixing import SourceEntries, SourceEntry
from jobs.printable import printable
from jobs.progress import Reporter
from jobs.user_error import UserError
from jobs.wording import counted
from worker.scoring.limits import MAX_BYTES
from worker.settings import available_cores

#: Whoever splits off a share so small that more is needed has to find out by trying.
_MOST_NEEDED: Final = 100_000


def open_dataset(config: TrainConfig, reporter: Reporter) -> Dataset:
    """Returns the images of all sources in ``config``. The same images and seed always give the same split.

    Raises UserError, with what was found, unless there are two classes with images in every split, and no more than
    ``config.max_quarantined`` of a class is left out.
    """
    opened = [_open(data, config, reporter) for data in config.sources]
    labels = mixing.agree([(source.where, source.labels) for source in opened])
    found = [
        _of_list(source, number, labels, config, reporter)
        if isinstance(source, LabelSource)
        else _of_folders(source, number, config)
        for number, source in enumerate(opened)
    ]
    found = _hash(found, reporter)
    entries, origins = _combine(found, config)
    images = [entry.image for entry in entries]
    quarantined = [Quarantined(entry.image, entry.reason) for entry in entries if entry.reason is not None]
    quarantined += find_duplicates(images, reporter)
    gone = {item.image.ref for item in quarantined}
    kept = [image for image in images if image.ref not in gone]
    dataset = Dataset(
        labels=labels,
        train=[image for image in kept if image.split == "train"],
        validation=[image for image in kept if image.split == "validation"],
        test=[image for image in kept if image.split == "test"],
        quarantined=quarantined,
        digest=_digest_of_all(found, labels),
        sources=origins,
    )
    check_share(dataset, quarantined, config.max_quarantined, counted_all=False)
    _check_classes(dataset)
    return dataset


@dataclass(frozen=True)
class _Folders:
    """A source whose folders are the classes."""

    where: str
    layout: Layout

    @property
    def labels(self) -> tuple[str, ...]:
        return self.layout.labels


def _of_folders(source: _Folders, number: int, config: TrainConfig) -> SourceEntries:
    files = _split_files(source.layout, config)
    entries = [
        SourceEntry(
            LabelledImage(found.file.path, found.ref, found.label, split=split, source=number), found.file.reason
        )
        for split in SPLITS
        for found in files[split]
    ]
    return SourceEntries(source.where, entries, has_test_set=source.layout.test is not None)


def _of_list(
    source: LabelSource, number: int, labels: tuple[str, str], config: TrainConfig, reporter: Reporter
) -> SourceEntries:
    entries = []
    for line, file in source.locate(config.cache / "data" / "objects", reporter):
        label, reviewed = labels.index(line.label or ""), line.reviewed_at is not None
        entries.append(
            SourceEntry(LabelledImage(file.path, file.ref, label, source=number, reviewed=reviewed), file.reason)
        )
    return SourceEntries(source.where, entries, is_list=True, undecided=source.undecided)


def _open(data: str, config: TrainConfig, reporter: Reporter) -> _Folders | LabelSource:
    cache, hosts = config.cache / "data", config.allowed_redirects
    if sources.is_list(data):
        listed = LabelSource.of(sources.open_list(data, cache, reporter, redirect_hosts=hosts), reporter)
        if listed.undecided:
            reporter.say(f"  {listed.where}: {counted(listed.undecided, 'line')} without a label, not used")
        return listed
    listing = sources.open_source(data, cache, reporter, redirect_hosts=hosts)
    return _Folders(listing.where, arrange(listing))


def _combine(found: Sequence[SourceEntries], config: TrainConfig) -> tuple[list[SourceEntry], tuple[DataSource, ...]]:
    """Returns the images of all sources, and what there is to say about each source."""
    if len(found) == 1 and not found[0].is_list:
        return found[0].entries, ()
    entries, replaced = mixing.mix(found, config)
    origins = (DataSource(source.where, source.undecided, count) for source, count in zip(found, replaced, strict=True))
    return entries, tuple(origins)


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


def _hash(found: Sequence[SourceEntries], reporter: Reporter) -> list[SourceEntries]:
    def hashed(entry: SourceEntry) -> SourceEntry:
        return entry if entry.reason else replace(entry, image=replace(entry.image, sha256=_sha256(entry.image)))

    with (
        reporter.step("Hashing the images", total=sum(len(source.entries) for source in found)) as advance,
        ThreadPoolExecutor(available_cores()) as pool,
    ):
        done = []
        for source in found:
            entries = []
            for entry in pool.map(hashed, source.entries):
                entries.append(entry)
                advance(1)
            done.append(replace(source, entries=entries))
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


def _digest_of_all(found: Sequence[SourceEntries], labels: tuple[str, str]) -> str:
    """Returns the digest of the one source, or that of the digests of several, in their order."""
    digests = [_digest(source, labels) for source in found]
    return digests[0] if len(digests) == 1 else _sha256_of_text(digests)


def _sha256_of_text(parts: Iterable[str]) -> str:
    return hashlib.sha256("".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def _digest(source: SourceEntries, labels: tuple[str, str]) -> str:
    """The names in a folder say what is in which class and split; those in a list say where an image is stored."""
    images = [entry.image for entry in source.entries]
    lines = (f"{image.sha256} {labels[image.label] if source.is_list else image.ref}\0" for image in images)
    return _sha256_of_text(sorted(lines))


def _check_classes(dataset: Dataset) -> None:
    for split, images in (("train", dataset.train), ("validation", dataset.validation), ("test", dataset.test)):
        for label, name in enumerate(dataset.labels):
            if not any(image.label == label for image in images):
                raise UserError(f"The {split} split has no image of class {name} left. {_why_none(dataset)}")


def _why_none(dataset: Dataset) -> str:
    if not dataset.quarantined:
        return f"{counted(len(dataset), 'image')} in all are too few to split. Add more of each class."
    examples = printable(", ".join(item.image.ref for item in dataset.quarantined[:5]))
    return f"{len(dataset.quarantined):,} files were left out, most of them as duplicates: {examples}. Add more images."
