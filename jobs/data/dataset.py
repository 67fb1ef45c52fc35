"""What a dataset is made of: images that know their class, in three splits, and those that were left out."""

import math
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from jobs.user_error import UserError
from worker.errors import ErrorCode
from worker.predictions import csv_bytes


class DatasetCode(StrEnum):
    """Reasons that lie in the dataset. Those that lie in the file itself are the worker's ``ErrorCode``."""

    DUPLICATE = "duplicate"  #: the same picture is in a split that counts for more
    CONFLICTING_LABEL = "conflicting_label"  #: the same picture is in both classes
    NOT_A_FILE = "not_a_file"  #: a link, a device or a pipe, where a file should be


@dataclass(frozen=True)
class Reason:
    """A code for programs and a message for people."""

    code: ErrorCode | DatasetCode
    message: str


@dataclass(frozen=True)
class LabelledImage:
    """A file and the class its folder says."""

    path: Path
    ref: str  #: its name within the dataset, ``train/cats/1.jpg``, wherever the dataset lies
    label: int  #: 0 or 1
    sha256: str = ""  #: of the file's bytes, in hexadecimal digits; empty where they cannot be had
    split: str = ""  #: ``train``, ``validation`` or ``test``


@dataclass(frozen=True)
class Quarantined:
    """An image left out, and why."""

    image: LabelledImage
    reason: Reason


@dataclass(frozen=True)
class Dataset:
    """The images of two classes, by what they are for."""

    labels: tuple[str, str]  #: the names of class 0 and class 1
    train: list[LabelledImage]
    validation: list[LabelledImage]
    test: list[LabelledImage]
    quarantined: list[Quarantined]  #: left out before anything was decoded
    #: SHA-256 over names and contents of all its files, those left out included. The same files give the same, in
    #: whatever order they are read, and wherever they lie. Of a file too large to be an image only the name counts.
    digest: str

    def __len__(self) -> int:
        return len(self.train) + len(self.validation) + len(self.test)


COLUMNS: Final = ("source_ref", "split", "label", "error_code", "error_message")
#: Files named in a message.
_NAMED: Final = 5


def quarantine_csv(labels: tuple[str, str], left_out: list[Quarantined]) -> bytes:
    """``quarantine.csv``: one line for every image left out, as text that a spreadsheet does not run."""
    lines = [
        (item.image.ref, item.image.split, labels[item.image.label], item.reason.code.value, item.reason.message)
        for item in left_out
    ]
    return csv_bytes([COLUMNS, *lines])


def by_code(left_out: list[Quarantined]) -> dict[str, int]:
    """How many were left out for each reason."""
    return dict(Counter(item.reason.code.value for item in left_out))


def check_share(dataset: Dataset, left_out: list[Quarantined], limit: float) -> None:
    """Raises UserError when more than ``limit`` of a class's files, 0 to 1, are among all that was ``left_out``.

    A class that lost many of its files is not the class that the person has in mind: what is left of it can be another
    kind of picture, and the figures are then about that. ``duplicate`` does not count, on either side: the class lost
    nothing by it, for the picture is still there, in a split that counts for more. ``conflicting_label`` counts:
    neither class has that picture any more, and many of them mean that the folders are mixed up.
    """
    lost = [item for item in left_out if item.reason.code is not DatasetCode.DUPLICATE]
    before = [item.image for item in dataset.quarantined if item.reason.code is not DatasetCode.DUPLICATE]
    for label, name in enumerate(dataset.labels):
        gone = [item for item in lost if item.image.label == label]
        total = sum(image.label == label for image in [*dataset.train, *dataset.validation, *dataset.test, *before])
        if len(gone) > limit * total + 1e-9:  # 0.29 * 100 is a little less than 29
            share = math.ceil(100 * len(gone) / total) / 100
            raise UserError(
                f"{len(gone):,} of the {total:,} files of class {name} cannot be used, more than {limit:.4g} of them:\n"
                f"{_first(gone)}\nMend or remove them, or train without them: --max-quarantined {share}"
            )


def _first(left_out: list[Quarantined]) -> str:
    lines = [f"  {item.image.ref}: {item.reason.code.value}, {item.reason.message}" for item in left_out[:_NAMED]]
    return "\n".join(lines + [f"  and {len(left_out) - _NAMED:,} more"] * (len(left_out) > _NAMED))
