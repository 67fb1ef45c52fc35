"""Prediction rows and their CSV: UTF-8, comma, quoted where needed, one header line, lines end in LF."""

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Final, Self

from worker.contract import ModelManifest, PredictionRow
from worker.errors import TwofoldError

COLUMNS: Final = tuple(PredictionRow.model_fields)
CONTENT_TYPE: Final = "text/csv; charset=utf-8"

#: What a spreadsheet would run as a formula, full-width forms included (OWASP, "CSV Injection").
_FORMULA: Final = re.compile("^'*[=+\\-@\t\r\n＝＋－＠]")  # noqa: RUF001 - the full-width signs are meant


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a score becomes a row: score >= threshold is class 1."""

    labels: tuple[str, str]
    threshold: float
    model_version: str

    @classmethod
    def of(cls, model: ModelManifest, *, threshold: float | None = None) -> Self:
        """The model's own rule, or with a threshold of the request's."""
        chosen = model.threshold if threshold is None else threshold
        return cls(labels=model.labels, threshold=chosen, model_version=model.version)

    def scored(self, row: int, source_ref: str, score: float) -> PredictionRow:
        """The row of an image that was scored. Label and confidence follow from the score as it is written."""
        written = _as_written(score)
        positive = written >= self.threshold
        return PredictionRow(
            row=row,
            source_ref=source_ref,
            label=self.labels[positive],
            confidence=_as_written(written if positive else 1.0 - written),
            score=written,
            threshold=self.threshold,
            model_version=self.model_version,
        )

    def failed(self, row: int, source_ref: str, error: TwofoldError) -> PredictionRow:
        """The row of an image that could not be scored, and why."""
        return PredictionRow(
            row=row,
            source_ref=source_ref,
            threshold=self.threshold,
            model_version=self.model_version,
            error_code=error.code.value,
            error_message=error.message or None,
        )


def csv_bytes(lines: Iterable[Iterable[object]]) -> bytes:
    """Any table as a CSV file. Text that a spreadsheet would run is kept from it by a leading ``'``."""
    text = io.StringIO(newline="")
    writer = csv.writer(_LineFeeds(text), lineterminator="\r\n")
    for line in lines:
        writer.writerow([_cell(value) for value in line])
    # A file name of a training set can be no UTF-8; it costs its own cell's looks.
    return text.getvalue().encode("utf-8", "backslashreplace")


def to_csv(rows: Iterable[PredictionRow]) -> bytes:
    """The prediction CSV, whole."""
    return csv_bytes(chain([COLUMNS], (row.model_dump().values() for row in rows)))


def from_csv(data: bytes) -> list[PredictionRow]:
    """The rows of a file that ``to_csv`` wrote, equal to those it was given. Raises ValueError for another file."""
    reader = csv.reader(io.StringIO(data.decode(), newline=""))
    try:
        if tuple(next(reader, ())) != COLUMNS:
            raise ValueError("not a prediction CSV: another header")
        return [parse_row(cells) for cells in reader]
    except csv.Error as error:
        raise ValueError(f"not a prediction CSV: {error}") from error


def only_failed(data: bytes) -> bytes:
    """The failed rows of a prediction CSV, which are a manifest themselves: to try them again is to submit them."""
    return to_csv(row for row in from_csv(data) if row.error_code is not None)


class _LineFeeds:
    """Lines end in LF, and a lone CR inside a cell is quoted: Python's csv quotes only what its own line end holds."""

    def __init__(self, text: io.StringIO) -> None:
        self._text = text

    def write(self, line: str) -> None:
        self._text.write(line.removesuffix("\r\n") + "\n")


def _as_written(value: float) -> float:
    """Nine significant digits, all that a float32 holds."""
    return float(f"{value:.9g}")


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = str(value)
    return f"'{text}" if _FORMULA.match(text) else text


def unguarded(cell: str) -> str:
    """A text cell without the ``'`` that kept a spreadsheet from running it."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def parse_row(cells: list[str]) -> PredictionRow:
    """One line's cells, in the order of ``COLUMNS``. Raises ValueError where they are no row."""
    values: dict[str, object] = {}
    for name, cell in zip(COLUMNS, cells, strict=True):
        if name == "row":
            values[name] = int(cell)
        elif name in ("confidence", "score", "threshold"):
            values[name] = float(cell) if cell else None
        else:
            values[name] = unguarded(cell) if cell or name == "source_ref" else None
    return PredictionRow.model_validate(values)
