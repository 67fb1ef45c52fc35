"""Manifests that are tables: CSV with a header, and the CSV of S3 itself, without one."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Final, NamedTuple, Self
from urllib.parse import unquote_plus

from worker.predictions import COLUMNS, unguarded
from worker.uris import is_bucket

#: How much of a line that is no reference is repeated in the row.
_MAX_REF: Final = 2048
#: What is carried along to be joined to the results: so many columns, so many characters of each.
_MAX_COLUMNS: Final = 100
_MAX_CELL: Final = 1024

#: https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory.html
_VERSIONED: Final = ("Bucket", "Key", "VersionId", "IsLatest", "IsDeleteMarker")


class ImageRef(NamedTuple):
    """An image that a manifest asks for, and what else its line says."""

    source_ref: str  #: as written, at most 2,048 characters
    version_id: str | None = None
    columns: dict[str, str] = {}  # noqa: RUF012 - never written to

    @classmethod
    def of(cls, source_ref: str, version_id: str | None = None, columns: dict[str, str] | None = None) -> Self:
        """With what is too long cut."""
        kept = list((columns or {}).items())[:_MAX_COLUMNS]
        return cls(source_ref[:_MAX_REF], version_id or None, {name: _cut(value) for name, value in kept})


def is_header(row: Sequence[str]) -> bool:
    """Whether the first line of a table names the columns that are needed."""
    names = {name.lower() for name in row}
    return not {"source_ref", "source-ref"}.isdisjoint(row) or {"bucket", "key"} <= names


def is_s3_row(row: Sequence[str]) -> bool:
    """Whether it looks like a bucket and a key; two plain words rather look like a header that says something else."""
    return len(row) > 1 and is_bucket(row[0]) and not {".", "/", "%"}.isdisjoint(row[1])


def text_of(value: str | float | bool) -> str:  # noqa: FBT001 - a value of JSON
    """A JSON value as a cell."""
    return value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else repr(value)


def with_header(lines: Iterable[str]) -> Iterator[ImageRef]:
    """A row for every line but the first, which names the columns."""
    # strict: a quote that is never closed would make one reference of all lines after it.
    rows = csv.reader(lines, strict=True)
    header = next(rows)
    if not is_header(header):
        raise csv.Error(f"no column source_ref, nor Bucket and Key, in {str(header)[:200]}")
    if tuple(header) == COLUMNS:  # failed rows to be tried again, with our own guard against formulas
        place = header.index("source_ref")
        return (ImageRef.of(unguarded(_cell(row, place))) for row in rows if row)
    named = next((name for name in ("source_ref", "source-ref") if name in header), None)
    if named is not None:
        place = header.index(named)
        return (ImageRef.of(_cell(row, place), None, _others(header, row, {place})) for row in rows if row)
    return _from_buckets(rows, header, encoded=False)


def without_header(lines: Iterable[str], columns: Sequence[str] | None = None) -> Iterator[ImageRef]:
    """A row for every line: bucket, URL-encoded key, and what ``columns`` says; None: told from the first line."""
    rows: Iterator[list[str]] = csv.reader(lines, strict=True)
    if columns is None:
        first = next(rows, [])
        columns = _guess_columns(first)
        rows = chain([first], rows)
    return _from_buckets(rows, columns, encoded=True)


def _guess_columns(row: Sequence[str]) -> Sequence[str]:
    """Batch Operations has a version third, or nothing; a plain Inventory its first extra, which is no version."""
    if len(row) >= len(_VERSIONED) and {row[3], row[4]} <= {"true", "false"}:
        return _VERSIONED
    is_version = len(row) == 3 and not row[2].isdigit()  # noqa: PLR2004
    return _VERSIONED[:3] if is_version else _VERSIONED[:2]


def _from_buckets(rows: Iterable[list[str]], header: Sequence[str], *, encoded: bool) -> Iterator[ImageRef]:
    places = {name.lower(): place for place, name in enumerate(header)}
    bucket, key = places["bucket"], places["key"]
    version, marker = places.get("versionid", -1), places.get("isdeletemarker", -1)
    ours = {place for name, place in places.items() if name in {column.lower() for column in _VERSIONED}}
    for row in rows:
        if not row or (marker >= 0 and _cell(row, marker) == "true"):
            continue  # a delete marker is no image
        if len(row) <= key:
            yield ImageRef.of(",".join(row))
            continue
        # A "+" is a space to S3's own encoder, and "%2B" a plus; nobody writes a bare plus for itself.
        name = unquote_plus(row[key]) if encoded else row[key]
        columns = _others(header, row, ours)
        yield ImageRef.of(f"s3://{row[bucket]}/{name}", _cell(row, version) if version >= 0 else None, columns)


def _others(header: Sequence[str], row: Sequence[str], ours: set[int]) -> dict[str, str]:
    return {name: _cell(row, place) for place, name in enumerate(header) if place not in ours}


def _cell(row: Sequence[str], place: int) -> str:
    return row[place] if place < len(row) else ""


def _cut(value: str) -> str:
    return value if len(value) <= _MAX_CELL else f"{value[:_MAX_CELL]}…"
