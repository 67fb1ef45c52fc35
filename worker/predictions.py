"""Prediction rows and their CSV: UTF-8, commas, quotes where needed, one header line, LF at the end of each line."""

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

#: The start of a cell that a spreadsheet would run as a formula (OWASP, "CSV Injection"), full-width signs included.
_FORMULA: Final = re.compile("^'*[=+\\-@\t\r\n＝＋－＠]")  # noqa: RUF001 - the full-width signs are intended


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The rule that turns a score into a row: score >= threshold is class 1."""

    labels: tuple[str, str]
    threshold: float
    model_version: str

    @classmethod
    def of(cls, model: ModelManifest, *, threshold: float | None = None) -> Self:
        """Returns a model's rule, with the request's ``threshold`` where there is one."""
        chosen = model.threshold if threshold is None else threshold
        return cls(labels=model.labels, threshold=chosen, model_version=model.version)

    def scored(self, row: int, source_ref: str, score: float) -> PredictionRow:
        """Returns the row of a scored image. Label and confidence follow from the score as written."""
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
        """Returns the row of an image that could not be scored, with the reason."""
        return PredictionRow(
            row=row,
            source_ref=source_ref,
            threshold=self.threshold,
            model_version=self.model_version,
            error_code=error.code.value,
            error_message=error.message or None,
        )


def csv_bytes(lines: Iterable[Iterable[object]]) -> bytes:
    """Returns any table as a CSV file. A leading ``'`` keeps a spreadsheet from running a cell as a formula."""
    text = io.StringIO(newline="")
    writer = csv.writer(_LineFeeds(text), lineterminator="\r\n")
    for line in lines:
        writer.writerow([_cell(value) for value in line])
    # A file name in a training set may be invalid UTF-8. Only its own cell is escaped.
    return text.getvalue().encode("utf-8", "backslashreplace")


def to_csv(rows: Iterable[PredictionRow]) -> bytes:
    """Returns the complete prediction CSV."""
    return csv_bytes(chain([COLUMNS], (row.model_dump().values() for row in rows)))


def from_csv(data: bytes) -> list[PredictionRow]:
    """Returns the rows of a file that ``to_csv`` wrote. Raises ValueError for any other file."""
    reader = csv.reader(io.StringIO(data.decode(), newline=""))
    try:
        if tuple(next(reader, ())) != COLUMNS:
            raise ValueError(f"not a prediction CSV: the header is not {','.join(COLUMNS)}")
        return [parse_row(cells) for cells in reader]
    except csv.Error as error:
        raise ValueError(f"not a prediction CSV: {error}") from error


def only_failed(data: bytes) -> bytes:
    """Returns the failed rows of a prediction CSV. They are a manifest: submit them to try the images again."""
    return to_csv(row for row in from_csv(data) if row.error_code is not None)


class _LineFeeds:
    """A text file whose lines end in LF, for a csv writer whose lines end in CR LF.

    The writer quotes a cell that contains a character of its line end, and a lone CR needs quotes too.
    """

    def __init__(self, text: io.StringIO) -> None:
        self._text = text

    def write(self, line: str) -> None:
        self._text.write(line.removesuffix("\r\n") + "\n")


def _as_written(value: float) -> float:
    """Rounds to nine significant digits, enough for any float32."""
    return float(f"{value:.9g}")


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = str(value)
    return f"'{text}" if _FORMULA.match(text) else text


def unguarded(cell: str) -> str:
    """Returns a text cell without the ``'`` that keeps a spreadsheet from running it."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def parse_row(cells: list[str]) -> PredictionRow:
    """Parses one line's cells, in the order of ``COLUMNS``. Raises ValueError where they are not a row."""
    values: dict[str, object] = {}
    for name, cell in zip(COLUMNS, cells, strict=True):
        if name == "row":
            values[name] = int(cell)
        elif name in ("confidence", "score", "threshold"):
            values[name] = float(cell) if cell else None
        else:
            values[name] = unguarded(cell) if cell or name == "source_ref" else None
    return PredictionRow.model_validate(values)
