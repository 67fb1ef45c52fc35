"""Prediction rows and their CSV: UTF-8, commas, quotes where needed, one header line, LF at the end of each line."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, Self

from worker.contract import UNSURE, ModelManifest, PredictionRow, check_band
from worker.errors import ErrorCode, Reject, TwofoldError

#: The column that a CSV has only where a band of unsure scores was set. It comes after all others.
DECISION: Final = "decision"
#: The columns of every CSV.
COLUMNS: Final = tuple(name for name in PredictionRow.model_fields if name != DECISION)
CONTENT_TYPE: Final = "text/csv; charset=utf-8"

#: The start of a cell that a spreadsheet would run as a formula (OWASP, "CSV Injection"), full-width signs included.
_FORMULA: Final = re.compile("^'*[=+\\-@\t\r\n＝＋－＠]")  # noqa: RUF001 - the full-width signs are intended


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The rule that turns a score into a row: score >= threshold is class 1, and one in the band is unsure."""

    labels: tuple[str, str]
    threshold: float
    model_version: str
    unsure: tuple[float, float] | None = None  #: the band: from the first number up to, not including, the second

    @classmethod
    def of(
        cls, model: ModelManifest, *, threshold: float | None = None, unsure: tuple[float, float] | None = None
    ) -> Self:
        """Returns a model's rule, with the ``threshold`` and the band of the request where it has them.

        The model's own band belongs to its own threshold: with another one, there is only the request's. Raises Reject
        ``bad_request`` for a band that does not fit the model.
        """
        chosen = model.threshold if threshold is None else threshold
        band = model.unsure if unsure is None and threshold is None else unsure
        try:
            check_band(band, chosen, labels=model.labels)
        except ValueError as error:
            raise Reject(ErrorCode.BAD_REQUEST, f"{model.name} {model.version}: {error}") from None
        return cls(labels=model.labels, threshold=chosen, model_version=model.version, unsure=band)

    def scored(self, row: int, source_ref: str, score: float) -> PredictionRow:
        """Returns the row of a scored image. Label, confidence and decision follow from the score as written."""
        written = _as_written(score)
        positive = written >= self.threshold
        label = self.labels[positive]
        return PredictionRow(
            row=row,
            source_ref=source_ref,
            label=label,
            confidence=_as_written(written if positive else 1.0 - written),
            score=written,
            threshold=self.threshold,
            model_version=self.model_version,
            decision=None if self.unsure is None else UNSURE if in_band(written, self.unsure) else label,
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


def in_band(score: float, band: tuple[float, float]) -> bool:
    """Returns whether the answer of a score is unsure: the lower end belongs to the band, the upper one does not."""
    return band[0] <= score < band[1]


def csv_bytes(lines: Iterable[Iterable[object]]) -> bytes:
    """Returns any table as a CSV file. A leading ``'`` keeps a spreadsheet from running a cell as a formula."""
    text = io.StringIO(newline="")
    writer = csv.writer(_LineFeeds(text), lineterminator="\r\n")
    for line in lines:
        writer.writerow([_cell(value) for value in line])
    # A file name in a training set may be invalid UTF-8. Only its own cell is escaped.
    return text.getvalue().encode("utf-8", "backslashreplace")


def to_csv(rows: Iterable[PredictionRow], *, decided: bool = False) -> bytes:
    """Returns the complete prediction CSV. With ``decided`` it has the column ``decision``."""
    columns = _columns(decided=decided)
    return csv_bytes(chain([columns], (cells(row, columns) for row in rows)))


def cells(row: PredictionRow, columns: Iterable[str]) -> list[object]:
    """Returns the values of some columns of a row."""
    return [getattr(row, name) for name in columns]


def from_csv(data: bytes) -> list[PredictionRow]:
    """Returns the rows of a file that ``to_csv`` wrote. Raises ValueError for any other file."""
    reader = csv.reader(io.StringIO(data.decode(), newline=""))
    try:
        columns = tuple(next(reader, ()))
        if not is_prediction_header(columns):
            raise ValueError(f"not a prediction CSV: the header is not {','.join(COLUMNS)}")
        return [parse_row(line, columns) for line in reader]
    except csv.Error as error:
        raise ValueError(f"not a prediction CSV: {error}") from error


def is_prediction_header(columns: Sequence[str]) -> bool:
    """Returns whether these are the columns of a prediction CSV, with the decision or without."""
    return tuple(columns) in (_columns(decided=False), _columns(decided=True))


def only_failed(data: bytes) -> bytes:
    """Returns the failed rows of a prediction CSV. They are a manifest: submit them to try the images again.

    They have no decision, so neither has the file.
    """
    return to_csv(row for row in from_csv(data) if row.error_code is not None)


def _columns(*, decided: bool) -> tuple[str, ...]:
    return (*COLUMNS, DECISION) if decided else COLUMNS


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


def parse_row(line: Sequence[str], columns: Sequence[str] = COLUMNS) -> PredictionRow:
    """Parses one line's cells, which are those of ``columns``. Raises ValueError where they are not a row."""
    values: dict[str, object] = {}
    for name, cell in zip(columns, line, strict=True):
        if name == "row":
            values[name] = int(cell)
        elif name in ("confidence", "score", "threshold"):
            values[name] = float(cell) if cell else None
        else:
            values[name] = unguarded(cell) if cell or name == "source_ref" else None
    return PredictionRow.model_validate(values)
