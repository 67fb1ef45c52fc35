"""``test_predictions.csv`` of a bundle: the prediction, the true label and the digest of each test image.

The columns are those of the worker's CSV (``worker.predictions``), with ``decision`` if the model has a band of unsure
scores, then ``true_label`` and ``sha256``. The digest identifies an image, so two models can be compared on the same
images even if the files have other names.
"""

import csv
import io
from collections.abc import Sequence
from itertools import chain
from typing import Final, Self

import numpy as np
from pydantic import model_validator

from jobs.metrics.arrays import Classes, Scores
from worker import predictions
from worker.contract import Label, PredictionRow, Sha256

FILE: Final = "test_predictions.csv"


class ScoredImage(PredictionRow):
    """One line: a prediction row with a score, and the true label of its image."""

    true_label: Label  #: from the dataset
    sha256: Sha256  #: of the file's bytes

    @model_validator(mode="after")
    def _scored(self) -> Self:
        if self.score is None:
            raise ValueError("a test image must have a score; one that cannot be decoded belongs in quarantine.csv")
        return self

    @classmethod
    def of(cls, row: PredictionRow, *, true_label: str, sha256: str) -> Self:
        """Adds the true label and the digest to the row of a test image."""
        return cls.model_validate(row.model_dump() | {"true_label": true_label, "sha256": sha256})


_ADDED: Final = ("true_label", "sha256")
#: Of a model without a band.
COLUMNS: Final = (*predictions.COLUMNS, *_ADDED)
_DECIDED: Final = (*predictions.COLUMNS, predictions.DECISION, *_ADDED)


def to_csv(images: Sequence[ScoredImage]) -> bytes:
    """Returns the file. Text that a spreadsheet would run as a formula is guarded, as in the worker's CSV."""
    columns = _DECIDED if any(image.decision is not None for image in images) else COLUMNS
    return predictions.csv_bytes(chain([columns], (predictions.cells(image, columns) for image in images)))


def from_csv(data: bytes) -> list[ScoredImage]:
    """Reads a file that ``to_csv`` wrote, and returns equal images. Raises ValueError for any other file."""
    reader = csv.reader(io.StringIO(data.decode(), newline=""))
    try:
        columns = tuple(next(reader, ()))
        if columns not in (COLUMNS, _DECIDED):
            raise ValueError("not the test predictions of a bundle: the header differs")
        return [_image(cells, columns[: -len(_ADDED)]) for cells in reader]
    except csv.Error as error:
        raise ValueError(f"not the test predictions of a bundle: {error}") from error


def truth(images: Sequence[ScoredImage], labels: tuple[str, str]) -> Classes:
    """Returns the ``(N,)`` true classes. Raises ValueError if there are no images, or for a label not in ``labels``."""
    if not images:
        raise ValueError("contains no test images")
    other = {image.true_label for image in images} - set(labels)
    if other:
        raise ValueError(f"a test image is labeled {min(other)!r}, which is neither {labels[0]!r} nor {labels[1]!r}")
    return np.array([labels.index(image.true_label) for image in images], np.int64)


def scores(images: Sequence[ScoredImage]) -> Scores:
    """Returns the ``(N,)`` scores as written in the file."""
    return np.array([image.score for image in images], np.float64)


def _image(cells: list[str], columns: tuple[str, ...]) -> ScoredImage:
    """Parses a line: the cells of a prediction row, whose ``columns`` these are, and the two that were added."""
    if len(cells) != len(columns) + len(_ADDED):
        raise ValueError(f"a line has {len(cells)} cells instead of {len(columns) + len(_ADDED)}")
    row = predictions.parse_row(cells[: len(columns)], columns)
    true_label, sha256 = cells[len(columns) :]
    return ScoredImage.of(row, true_label=predictions.unguarded(true_label), sha256=sha256)
