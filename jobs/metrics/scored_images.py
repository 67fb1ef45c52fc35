"""``test_predictions.csv`` of a bundle: what the model said of each test image, what is true, and which picture it was.

Its columns are those of any answer (``worker.predictions``), then ``true_label`` and ``sha256``. A picture is known by
the digest of its bytes, so that two models can be compared on the same ones whatever their files were called.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final, Self

import numpy as np
from pydantic import model_validator

from jobs.metrics.arrays import Classes, Scores
from worker import predictions
from worker.contract import Label, PredictionRow, Sha256

FILE: Final = "test_predictions.csv"


class ScoredImage(PredictionRow):
    """One line: a prediction row that has a score, and the truth about its picture."""

    true_label: Label  #: as the dataset says
    sha256: Sha256  #: of the file's bytes

    @model_validator(mode="after")
    def _scored(self) -> Self:
        if self.score is None:
            raise ValueError("a test image has a score; one that cannot be decoded is in quarantine.csv")
        return self

    @classmethod
    def of(cls, row: PredictionRow, *, true_label: str, sha256: str) -> Self:
        """The row of a test image, with what is true of it."""
        return cls.model_validate(row.model_dump() | {"true_label": true_label, "sha256": sha256})


COLUMNS: Final = tuple(ScoredImage.model_fields)


def to_csv(images: Iterable[ScoredImage]) -> bytes:
    """The file, whole; text that a spreadsheet would run is guarded as in any answer."""
    return predictions.csv_bytes(chain([COLUMNS], (image.model_dump().values() for image in images)))


def from_csv(data: bytes) -> list[ScoredImage]:
    """The images of a file that ``to_csv`` wrote, equal to those it was given. Raises ValueError for another file."""
    reader = csv.reader(io.StringIO(data.decode(), newline=""))
    try:
        if tuple(next(reader, ())) != COLUMNS:
            raise ValueError("not the test predictions of a bundle: another header")
        return [_image(cells) for cells in reader]
    except csv.Error as error:
        raise ValueError(f"not the test predictions of a bundle: {error}") from error


def truth(images: Sequence[ScoredImage], labels: tuple[str, str]) -> Classes:
    """``(N,)`` true classes, 0 or 1. Raises ValueError for no images, or a label that is none of the two."""
    if not images:
        raise ValueError("holds no test images")
    other = {image.true_label for image in images} - set(labels)
    if other:
        raise ValueError(f"a test image is labelled {min(other)!r}, which is neither {labels[0]!r} nor {labels[1]!r}")
    return np.array([labels.index(image.true_label) for image in images], np.int64)


def scores(images: Sequence[ScoredImage]) -> Scores:
    """``(N,)`` P(class 1), as they are written in the file."""
    return np.array([image.score for image in images], np.float64)


def _image(cells: list[str]) -> ScoredImage:
    if len(cells) != len(COLUMNS):
        raise ValueError(f"a line of {len(cells)} cells, not {len(COLUMNS)}")
    row = predictions.parse_row(cells[: len(predictions.COLUMNS)])
    true_label, sha256 = cells[len(predictions.COLUMNS) :]
    return ScoredImage.of(row, true_label=predictions.unguarded(true_label), sha256=sha256)
