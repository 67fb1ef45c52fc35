"""The labelled list: images and the class of each, as a CSV that every command reads and writes.

    source_ref,label,reviewed_at,reviewer,note
    photos/1.jpg,cat,2026-11-24T10:15:00Z,ada,
    s3://shelter/in/2.jpg,,2026-11-24T10:15:04Z,ada,both are in it

UTF-8, commas, quotes where needed (RFC 4180), one header line. The first two columns are required, in any order, and
columns with other names are ignored. A blank label means that somebody has looked at the image and could not decide.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from itertools import chain
from typing import Final

from pydantic import TypeAdapter, ValidationError

from jobs.user_error import UserError
from worker.contract import Label
from worker.predictions import csv_bytes, unguarded

#: What a table of predictions has, and a labelled list does not. Its own ``label`` is what the model said.
_OF_PREDICTIONS: Final = frozenset({"score", "threshold", "model_version"})
#: The column of such a table in which a person writes the right class.
CORRECTION: Final = "true_label"
_LABEL: Final = TypeAdapter[str](Label)


@dataclass(frozen=True)
class LabelledLine:
    """One line: an image, and what somebody said about it."""

    source_ref: str  #: ``s3://…``, a path relative to the list's own folder, or an absolute path
    label: str | None  #: the name of the class, without white space around it; None: not decided
    reviewed_at: datetime | None = None  #: aware, UTC
    reviewer: str | None = None
    note: str | None = None


COLUMNS: Final = tuple(field.name for field in fields(LabelledLine))


def read_labelled_list(data: bytes, *, where: str) -> list[LabelledLine]:
    """Returns the lines in order. ``where`` is the name of the list, for messages.

    A table of predictions with a column ``true_label`` is read too: that column is then the label, since the table's
    own is what the model said. Raises UserError, with the number of the line, for anything that is not a labelled list.
    """
    rows = _rows(_decode(data, where), where)
    _, header = next(rows, (1, []))
    label = _label_column(header, where)
    found = [_line(cells, label, f"{where}, line {number}") for number, cells in _by_column(header, rows, where)]
    if label == CORRECTION and not any(line.label for line in found):
        raise UserError(f"{where}: its column {CORRECTION} is blank in every line. Write the right class into it.")
    return found


def labelled_list_csv(lines: Iterable[LabelledLine]) -> bytes:
    """Returns the CSV, with all five columns. A spreadsheet runs nothing in it, as in the worker's CSV."""
    written = (astuple(line) for line in lines)
    return csv_bytes(chain([COLUMNS], ((ref, label, _time(at), *rest) for ref, label, at, *rest in written)))


def _decode(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = 1 + data.count(b"\n", 0, error.start)
        raise UserError(f"{where}, line {number} is not UTF-8. Save the list as CSV in UTF-8.") from None


def _rows(text: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the cells of each line that is not blank, and the number of the line that they begin in."""
    # strict: otherwise a quote that is never closed would turn all following lines into one cell.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    number = 1
    try:
        for cells in reader:
            if any(cells):
                yield number, cells
            number = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{where}, line {number}: {error}. Check its quotes.") from None


def _label_column(header: Sequence[str], where: str) -> str:
    """Returns the name of the column that holds the label. Raises UserError if the header is not a list's."""
    names = [name.strip() for name in header]
    of_predictions = set(names) >= _OF_PREDICTIONS
    label = CORRECTION if of_predictions else "label"
    if of_predictions and CORRECTION not in names:
        raise UserError(
            f"{where} is a table of predictions: its column label is what a model said, from which a model learns "
            f"nothing. Add a column {CORRECTION} with the right class of the images that you have looked at."
        )
    missing = [name for name in ("source_ref", label) if name not in names]
    if missing:
        separated = len(names) == 1 and any(mark in names[0] for mark in ";\t")
        advice = " Separate the columns by commas." if separated else ""
        raise UserError(
            f"{where} has no column {' and no column '.join(missing)}: a labelled list begins with "
            f"source_ref,label and not with {','.join(header)[:100]!r}.{advice}"
        )
    twice = [name for name in (*COLUMNS, CORRECTION) if names.count(name) > 1]
    if twice:
        raise UserError(f"{where} has the column {twice[0]} twice. Remove one of them.")
    return label


def _by_column(
    header: Sequence[str], rows: Iterable[tuple[int, list[str]]], where: str
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields the cells of each line by the names of their columns. A cell that is missing at the end is blank."""
    names = [name.strip() for name in header]
    for number, cells in rows:
        if len(cells) > len(names):
            raise UserError(
                f"{where}, line {number} has {len(cells)} cells, but the header has {len(names)}. "
                "Put a text that contains a comma in double quotes."
            )
        yield number, {name: unguarded(cell) for name, cell in zip(names, cells, strict=False)}


def _line(cells: Mapping[str, str], label: str, where: str) -> LabelledLine:
    ref = cells.get("source_ref", "")
    if not ref.strip():
        raise UserError(f"{where} names no image: its source_ref is blank.")
    return LabelledLine(
        source_ref=ref,
        label=_checked_label(cells.get(label, "").strip(), where),
        reviewed_at=_reviewed_at(cells.get("reviewed_at", "").strip(), where),
        reviewer=cells.get("reviewer") or None,
        note=cells.get("note") or None,
    )


def _checked_label(text: str, where: str) -> str | None:
    if not text:
        return None
    try:
        return _LABEL.validate_python(text)
    except ValidationError:
        raise UserError(f"{where}: {text[:100]!r} cannot be the name of a class: it is too long.") from None


def _reviewed_at(text: str, where: str) -> datetime | None:
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise UserError(f"{where}: reviewed_at must be a time with its zone, as 2026-11-24T10:15:00Z, not {text[:100]!r}.")


def _time(at: datetime | None) -> str | None:
    """Returns 2026-11-24T10:15:00Z, with a fraction only if there is one."""
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")
