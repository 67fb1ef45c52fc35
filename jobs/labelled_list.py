"""The labelled list: images and the class of each, as a CSV that every command reads and writes.

    source_ref,label,reviewed_at,reviewer,note
    photos/1.jpg,cat,2026-11-24T10:15:00Z,ada,
    s3://shelter/in/2.jpg,,2026-11-24T10:15:04Z,ada,both are in it

UTF-8, commas, quotes where needed (RFC 4180), one header line. The first two columns are required, in any order, and
columns with other names are ignored. A blank label means that somebody has looked at the image and could not decide.

Two more forms are read: JSON Lines with the same names, and the augmented manifest of SageMaker Ground Truth.

    {"source_ref": "photos/1.jpg", "label": "cat"}
    {"source-ref": "s3://shelter/1.jpg", "pets": 0, "pets-metadata": {"class-name": "cat", "type": "groundtruth/…"}}

https://docs.aws.amazon.com/sagemaker/latest/dg/sms-data-output.html
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from jobs.user_error import UserError
from worker.contract import Label
from worker.predictions import csv_bytes, unguarded

#: What a table of predictions has, and a labelled list does not. Its own ``label`` is what the model said.
_OF_PREDICTIONS: Final = frozenset({"score", "threshold", "model_version"})
#: The column of such a table in which a person writes the right class.
CORRECTION: Final = "true_label"
_LABEL: Final = TypeAdapter[str](Label)
#: The end of the key that describes a label attribute, and the type of a label that is one class.
_METADATA: Final = "-metadata"
_CLASSIFICATION: Final = "groundtruth/image-classification"


@dataclass(frozen=True)
class LabelledLine:
    """One line: an image, and what somebody said about it."""

    source_ref: str  #: ``s3://…``, a path relative to the list's own folder, or an absolute path
    label: str | None  #: the name of the class, without white space around it; None: not decided
    reviewed_at: datetime | None = None  #: aware, UTC
    reviewer: str | None = None
    note: str | None = None


#: The cells of a line by the names of their columns, and the number of the line.
_Row = tuple[int, dict[str, str]]

COLUMNS: Final = tuple(field.name for field in fields(LabelledLine))


def read_labelled_list(data: bytes, *, where: str) -> list[LabelledLine]:
    """Returns the lines in order. ``where`` is the name of the list, for messages.

    A table of predictions with a column ``true_label`` is read too: that column is then the label, since the table's
    own is what the model said. Raises UserError, with the number of the line, for anything that is not a labelled list.
    """
    text = _decode(data, where)
    names, rows = _of_json(text, where) if text.lstrip().startswith("{") else _of_csv(text, where)
    label = _label_column(names, where)
    found = [_line(cells, label, f"{where}, line {number}") for number, cells in rows]
    if label == CORRECTION and not any(line.label for line in found):
        raise UserError(f"{where}: its column {CORRECTION} is blank in every line. Write the right class into it.")
    return found


def labelled_list_csv(lines: Iterable[LabelledLine]) -> bytes:
    """Returns the CSV, with all five columns. A spreadsheet runs nothing in it, as in the worker's CSV."""
    rows = ((line.source_ref, line.label, _time(line.reviewed_at), line.reviewer, line.note) for line in lines)
    return csv_bytes(chain([COLUMNS], rows))


def _decode(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = 1 + data.count(b"\n", 0, error.start)
        raise UserError(f"{where}, line {number} is not UTF-8. Save the list as CSV in UTF-8.") from None


def _of_csv(text: str, where: str) -> tuple[Sequence[str], Iterator[_Row]]:
    """Returns the names of the columns, and the lines below them."""
    rows = _records(text, where)
    _, header = next(rows, (1, []))
    names = [name.strip() for name in header]
    return names, _by_column(names, rows, where)


def _records(text: str, where: str) -> Iterator[tuple[int, list[str]]]:
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


def _label_column(names: Sequence[str], where: str) -> str:
    """Returns the name of the column that holds the label. Raises UserError if they are not the columns of a list."""
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
            f"source_ref,label and not with {','.join(names)[:100]!r}.{advice}"
        )
    twice = [name for name in (*COLUMNS, CORRECTION) if names.count(name) > 1]
    if twice:
        raise UserError(f"{where} has the column {twice[0]} twice. Remove one of them.")
    return label


def _by_column(names: Sequence[str], records: Iterable[tuple[int, list[str]]], where: str) -> Iterator[_Row]:
    """Yields the cells of each line by the names of their columns. A cell that is missing at the end is blank."""
    for number, cells in records:
        if len(cells) > len(names):
            raise UserError(
                f"{where}, line {number} has {len(cells)} cells, but the header has {len(names)}. "
                "Put a text that contains a comma in double quotes."
            )
        yield number, {name: unguarded(cell) for name, cell in zip(names, cells, strict=False)}


def _of_json(text: str, where: str) -> tuple[Sequence[str], Iterable[_Row]]:
    """Returns the keys of all lines, and the lines. A line of an augmented manifest gets a ``label``."""
    # Not splitlines(): JSON may contain U+2028 and the like, which end no line there.
    numbered = ((number, line.strip()) for number, line in enumerate(text.split("\n"), 1))
    documents = [(number, _document(line, f"{where}, line {number}")) for number, line in numbered if line]
    attribute = _label_attribute(dict(documents), where)
    rows = [(number, _cells(document, attribute, f"{where}, line {number}")) for number, document in documents]
    return list(dict.fromkeys(name for _, cells in rows for name in cells)), rows


def _document(line: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
        line.encode()
        json.dumps(found, ensure_ascii=False).encode()  # which half a surrogate pair, written as \ud800, is not
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON: {error}.") from None
    if not isinstance(found, dict):
        raise UserError(f"{where} is not a JSON object.")
    return found


def _label_attribute(documents: Mapping[int, dict[str, Any]], where: str) -> str | None:
    """Returns the name of the label attribute of an augmented manifest, or None for any other list.

    An attribute is known by the key that describes it. A chain of labelling jobs leaves several.
    """
    described = {
        (name.removesuffix(_METADATA), str(value.get("type", _CLASSIFICATION)))
        for document in documents.values()
        for name, value in document.items()
        if name.endswith(_METADATA) and isinstance(value, dict) and not value.keys().isdisjoint(("class-name", "type"))
    }
    found = sorted({name for name, kind in described if kind == _CLASSIFICATION})
    if len(found) > 1:
        raise UserError(f"{where} has several label attributes, {', '.join(found)}. Remove all but one of them.")
    if described and not found:
        kinds = ", ".join(sorted({kind for _, kind in described}))
        raise UserError(f"{where} has labels of the type {kinds}. Expected {_CLASSIFICATION}: one class an image.")
    return found[0] if found else None


def _cells(document: Mapping[str, Any], attribute: str | None, where: str) -> dict[str, str]:
    """Returns the cells of one line by the names of a CSV's columns. What is no text or number is left out."""
    found = {
        "source_ref" if name == "source-ref" else name: "" if value is None else str(value)
        for name, value in document.items()
        if isinstance(value, str | int | float | None)
    }
    if attribute is None:
        return found
    described = document.get(f"{attribute}{_METADATA}")
    label = described.get("class-name") if isinstance(described, dict) else None
    if attribute in document and not (isinstance(label, str) and label):
        raise UserError(f"{where} has {attribute} without a class-name in {attribute}{_METADATA}.")
    # A job that has not ended has written this line as it found it.
    return {name: cell for name, cell in found.items() if name == "source_ref"} | {"label": label or ""}


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
