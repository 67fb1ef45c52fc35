"""Several sources as one dataset: whose label an image has, and in which split it is.

An image is known by its content. If several sources have it, the label is that of the last one, and the split is

    1. that of the sources that have a test set: test before validation before training;
    2. or else that of the first source that has the image.

So no image moves from a test set into training, and a source that is added later moves no image of an earlier one.
A labelled list has no folders. The images that it is the first to name are split by their content, each class in the
same proportion: a list that grows keeps nearly all of its images where they are.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from jobs.config import TrainConfig
from jobs.data.class_folders import SPLITS
from jobs.data.dataset import LabelledImage, Reason
from jobs.user_error import UserError

_TRAIN, _VALIDATION, _TEST = SPLITS
_CLASSES: Final = 2


@dataclass(frozen=True)
class SourceEntry:
    """An image as one source has it, and the reason if it is known already that it is left out."""

    image: LabelledImage
    reason: Reason | None = None


@dataclass(frozen=True)
class SourceEntries:
    """The images of one source."""

    where: str  #: as a message may show it
    entries: list[SourceEntry]
    has_test_set: bool = False
    is_list: bool = False  #: its images are not split yet
    undecided: int = 0

    def hashed(self) -> Iterable[LabelledImage]:
        """Returns the images whose content is known."""
        return (entry.image for entry in self.entries if entry.image.sha256)


def agree(named: Sequence[tuple[str, tuple[str, ...]]]) -> tuple[str, str]:
    """Returns the two classes of all sources, given the name and the classes of each; a list may name just one.

    Raises UserError, with the sources that differ, if there are more or fewer.
    """
    found = sorted({label for _, labels in named for label in labels})
    if len(found) == _CLASSES:
        return found[0], found[1]
    where, labels = next((item for item in named if len(item[1]) == _CLASSES), named[0])
    other = next((item for item in named if not set(item[1]) <= set(labels)), None)
    if len(labels) == _CLASSES and other is not None:
        raise UserError(
            f"{where} has the classes {' and '.join(labels)}, but {other[0]} has {_listed(other[1])}. "
            "Give a class the same name in every source."
        )
    sources = " and ".join(name for name, _ in named)
    raise UserError(f"{sources} must name exactly two classes; found {len(found)}: {_listed(found) or 'none'}.")


def mix(sources: Sequence[SourceEntries], config: TrainConfig) -> tuple[list[SourceEntry], list[int]]:
    """Returns the images of all sources, in their order, and how many of each source a later one has replaced."""
    splits = _splits(sources, config)
    last = {image.sha256: number for number, source in enumerate(sources) for image in source.hashed()}
    shared = _shared(sources)
    kept: list[SourceEntry] = []
    replaced = [0] * len(sources)
    for number, source in enumerate(sources):
        for entry in source.entries:
            digest = entry.image.sha256
            if last.get(digest, number) != number:
                replaced[number] += 1
            elif source.is_list or digest in shared:
                kept.append(replace(entry, image=replace(entry.image, split=splits.get(digest, _TRAIN))))
            else:  # copies within one source keep their splits: which one stays is decided with all other duplicates
                kept.append(entry)
    return _with_unique_names(kept, sources), replaced


def _splits(sources: Sequence[SourceEntries], config: TrainConfig) -> dict[str, str]:
    """Returns the split of each image, by its content."""
    found: dict[str, str] = {}
    for source in sources:
        if source.has_test_set:
            _take(found, ((image.sha256, image.split) for image in source.hashed()))
    for source in sources:
        if not source.has_test_set:
            own = [image for image in source.hashed() if image.sha256 not in found]
            _take(found, _draw(own, config) if source.is_list else ((image.sha256, image.split) for image in own))
    return found


def _take(found: dict[str, str], splits: Iterable[tuple[str, str]]) -> None:
    for digest, split in splits:
        found[digest] = max(found.get(digest, _TRAIN), split, key=SPLITS.index)


def _draw(images: Iterable[LabelledImage], config: TrainConfig) -> Iterable[tuple[str, str]]:
    """Splits images by content: within each class in the order of a digest that nobody chooses."""
    by_class: dict[int, set[str]] = defaultdict(set)
    for image in images:
        by_class[image.label].add(image.sha256)
    for digests in by_class.values():
        ordered = sorted(digests, key=lambda digest: _lot(digest, config.seed))
        tests = _round(len(ordered) * config.test_split)
        validations = _round((len(ordered) - tests) * config.validation_split)
        for place, digest in enumerate(ordered):
            yield digest, _TEST if place < tests else _VALIDATION if place < tests + validations else _TRAIN


def _lot(digest: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} {digest}".encode()).digest()


def _round(number: float) -> int:
    return int(number + 0.5)


def _shared(sources: Sequence[SourceEntries]) -> set[str]:
    """Returns the contents that several sources have."""
    seen: set[str] = set()
    shared: set[str] = set()
    for source in sources:
        own = {image.sha256 for image in source.hashed()}
        shared |= seen & own
        seen |= own
    return shared


def _with_unique_names(entries: list[SourceEntry], sources: Sequence[SourceEntries]) -> list[SourceEntry]:
    """Puts the source in front of a name that another source has for another image, since names identify images."""
    owner: dict[str, int] = {}
    unique = []
    for entry in entries:
        ref, number = entry.image.ref, entry.image.source
        while owner.setdefault(ref, number) != number:
            ref = f"{sources[number].where.rstrip('/')}/{ref}"
        unique.append(entry if ref == entry.image.ref else replace(entry, image=replace(entry.image, ref=ref)))
    return unique


def _listed(labels: Iterable[str]) -> str:
    return ", ".join(list(labels)[:10])
