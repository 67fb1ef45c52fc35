"""A dataset: labelled images in three splits, and the images that were left out, each with its reason."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from jobs.printable import printable
from jobs.user_error import UserError
from worker.errors import ErrorCode
from worker.predictions import csv_bytes

#: The columns of ``quarantine.csv``.
COLUMNS: Final = ("source_ref", "split", "label", "error_code", "error_message")
#: Files named in an error message, at most.
_NAMED: Final = 5


class DatasetCode(StrEnum):
    """Reasons that come from the dataset. Those that come from the file itself are the worker's ``ErrorCode``."""

    DUPLICATE = "duplicate"  #: the same image is in a split that takes precedence
    CONFLICTING_LABEL = "conflicting_label"  #: the same image is in both classes
    NOT_A_FILE = "not_a_file"  #: a link, a device or a pipe instead of a file


@dataclass(frozen=True)
class Reason:
    """Why an image is left out: a code for programs and a message for readers."""

    code: ErrorCode | DatasetCode
    message: str


@dataclass(frozen=True)
class LabelledImage:
    """An image file and its class."""

    path: Path
    ref: str  #: its name within the dataset, such as ``train/cats/1.jpg``, wherever the dataset is stored
    label: int  #: 0 or 1
    sha256: str = ""  #: of the file's bytes, in hexadecimal digits; empty if the file cannot be read
    split: str = ""  #: ``train``, ``validation`` or ``test``
    source: int = 0  #: the number of the source that it comes from, in the order of ``--data``
    reviewed: bool = False  #: whether the line of its labelled list says when somebody looked at it


@dataclass(frozen=True)
class Quarantined:
    """An image that is left out, and why."""

    image: LabelledImage
    reason: Reason


@dataclass(frozen=True)
class DataSource:
    """One source of a dataset, as pages and messages name it."""

    where: str
    undecided: int = 0  #: lines of a labelled list without a label
    replaced: int = 0  #: images that a later source names again, with its own label


@dataclass(frozen=True)
class Dataset:
    """The images of two classes, by split."""

    labels: tuple[str, str]  #: the names of class 0 and class 1
    train: list[LabelledImage]
    validation: list[LabelledImage]
    test: list[LabelledImage]
    quarantined: list[Quarantined]  #: left out before anything was decoded
    #: SHA-256 of the names and contents of all files, including those left out. It depends neither on their order nor
    #: on where they are stored. A file too large to be an image counts by its name only. Of a labelled list, contents
    #: and labels count and names do not; of several sources, their digests in the order of the sources.
    digest: str
    #: In the order of ``--data``; empty for a single folder, archive or prefix, which needs no explanation.
    sources: tuple[DataSource, ...] = ()

    def __len__(self) -> int:
        return len(self.train) + len(self.validation) + len(self.test)


def count_sources(dataset: Dataset, used: Sequence[LabelledImage]) -> list[dict[str, Any]]:
    """Returns ``sources`` of evaluation.json: how many of the images ``used`` come from each source."""
    images = Counter(image.source for image in used)
    reviewed = Counter(image.source for image in used if image.reviewed)
    return [
        {
            "data": source.where,
            "images": images[number],
            "reviewed": reviewed[number],
            "undecided": source.undecided,
            "replaced": source.replaced,
        }
        for number, source in enumerate(dataset.sources)
    ]


def describe_sources(evaluation: dict[str, Any]) -> str:
    """Says where the images of a model come from, in a sentence; nothing if they come from one folder.

    ``evaluation`` is the content of an evaluation.json.
    """
    sources = evaluation.get("sources")
    if not sources:
        return ""
    parts = [f"{source['images']:,} from {source['data']}{_reviewed(source)}" for source in sources]
    return f"The images: {', '.join(parts)}."


def _reviewed(source: dict[str, Any]) -> str:
    count = source["reviewed"]
    return f" ({'all' if count == source['images'] else f'{count:,}'} reviewed)" if count else ""


def quarantine_csv(labels: tuple[str, str], quarantined: list[Quarantined]) -> bytes:
    """Returns ``quarantine.csv``: one line per image left out.

    It is a page for people, and no program reads it: its text is guarded against running in a spreadsheet, and shown as
    in the report. Results and ``test_predictions.csv`` are joined by ``source_ref``, and so keep every name as it is.
    """
    lines = [
        (item.image.ref, item.image.split, labels[item.image.label], item.reason.code.value, item.reason.message)
        for item in quarantined
    ]
    return csv_bytes([COLUMNS, *(map(printable, line) for line in lines)])


def by_code(quarantined: list[Quarantined]) -> dict[str, int]:
    """Counts the images left out for each reason."""
    return dict(Counter(item.reason.code.value for item in quarantined))


def check_share(dataset: Dataset, quarantined: list[Quarantined], limit: float, *, counted_all: bool = True) -> None:
    """Raises UserError if more than ``limit``, 0 to 1, of a class's files are among all that are ``quarantined``.

    The error names every such class, and the limit that lets all of them pass. Without ``counted_all``, more files may
    turn out to be unusable, and it says so.

    A class that lost many of its files may not be the class that you mean: what is left can be another kind of image,
    and the figures then describe that. ``duplicate`` does not count, neither as lost nor as a file, because the class
    still has the image in another split. ``conflicting_label`` counts: no class has the image any more, and many such
    images mean that the folders are mixed up.
    """
    lost = [item for item in quarantined if item.reason.code is not DatasetCode.DUPLICATE]
    before = [item.image for item in dataset.quarantined if item.reason.code is not DatasetCode.DUPLICATE]
    over, share = [], limit
    for label, name in enumerate(dataset.labels):
        gone = [item for item in lost if item.image.label == label]
        total = sum(image.label == label for image in [*dataset.train, *dataset.validation, *dataset.test, *before])
        if len(gone) > limit * total + 1e-9:  # 0.29 * 100 is slightly less than 29
            share = max(share, math.ceil(100 * len(gone) / total) / 100)
            count = f"{len(gone):,}" if counted_all else f"At least {len(gone):,}"
            over.append(
                f"{count} of the {total:,} files of class {name} cannot be used, more than {100 * limit:.4g} %:\n"
                f"{_first(gone)}\n"
            )
    if over:
        allow = f"--max-quarantined {share}{'' if counted_all else ' or more'}"
        raise UserError(f"{''.join(over)}Repair or remove these files, or train without them: {allow}")


def _first(quarantined: list[Quarantined]) -> str:
    named = quarantined[:_NAMED]
    lines = [printable(f"  {item.image.ref}: {item.reason.code.value}, {item.reason.message}") for item in named]
    return "\n".join(lines + [f"  and {len(quarantined) - _NAMED:,} more"] * (len(quarantined) > _NAMED))
