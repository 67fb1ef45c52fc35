"""The formats of manifest files: CSV with a header, S3's CSV without one, JSON Lines, and SageMaker's JSON array.

Each is a generator that yields a reference for every line or item. ``worker.manifest.references`` detects the format.
"""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple, Self, TextIO
from urllib.parse import unquote_plus

from worker.errors import ErrorCode, Reject
from worker.manifest.text import MAX_LINE
from worker.predictions import is_prediction_header, unguarded
from worker.uris import is_bucket

#: Characters of a reference. A longer one is cut off, and becomes a failed row.
_MAX_REF: Final = 2048
#: How many other columns are kept, and how many characters of each name and cell.
_MAX_COLUMNS: Final = 100
_MAX_CELL: Final = 1024
#: Characters of a JSON array that are read at a time.
_PIECE: Final = 64 * 1024

#: https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory.html
_VERSIONED: Final = ("Bucket", "Key", "VersionId", "IsLatest", "IsDeleteMarker")


#: Other names of the column that names the images, without spaces, dashes and the like.
_OBVIOUS: Final = re.compile(
    r"(?:file|image|imagefile|img|photo|picture)(?:name|path|uri|url)?|(?:s3)?(?:path|uri|url)|sourceref"
)
_NOT_A_LETTER: Final = re.compile(r"[\W_]+")
#: An address, or the name of an image file with or without its folders.
_PATH: Final = re.compile(r"s3://\S.*|.+\.(?:bmp|gif|jpe?g|png|tiff?|webp)", re.IGNORECASE)


class ImageRef(NamedTuple):
    """An image in a manifest, and the other columns of its line."""

    source_ref: str  #: as written, at most 2,048 characters
    version_id: str | None = None
    columns: dict[str, str] = {}  # noqa: RUF012 - never written to

    @classmethod
    def of(cls, source_ref: str, version_id: str | None = None, columns: dict[str, str] | None = None) -> Self:
        """Returns a reference, with anything too long cut off."""
        kept = list((columns or {}).items())[:_MAX_COLUMNS]
        return cls(source_ref[:_MAX_REF], version_id or None, {_cut(name): _cut(value) for name, value in kept})


# CSV


def is_header(row: Sequence[str]) -> bool:
    """Returns whether the first line of a table names the required columns."""
    return not {"source_ref", "source-ref"}.isdisjoint(row) or names_objects(row)


def obvious_columns(row: Sequence[str]) -> list[int]:
    """Returns the places of the columns of a header that name images by another word, such as ``filename``."""
    return [place for place, name in enumerate(row) if _OBVIOUS.fullmatch(_NOT_A_LETTER.sub("", name.lower()))]


def is_path(line: str) -> bool:
    """Returns whether a line is an address or an image file, and nothing else: the list has one in every line."""
    text = line.strip()
    return "," not in text and _PATH.fullmatch(text) is not None


def one_a_line(lines: Iterable[str]) -> Iterator[ImageRef]:
    """Reads a list with one path or address a line, and yields a reference for every line that is not blank."""
    return (ImageRef.of(line.strip()) for line in lines if line.strip())


def is_s3_row(row: Sequence[str]) -> bool:
    """Returns whether a line looks like a bucket and a key. Two plain words are more likely an unknown header."""
    return len(row) > 1 and is_bucket(row[0]) and not {".", "/", "%"}.isdisjoint(row[1])


def with_header(lines: Iterable[str]) -> Iterator[ImageRef]:
    """Reads a CSV whose first line names the columns. Raises csv.Error where it does not."""
    # strict: otherwise a quote that is never closed would turn all following lines into one reference.
    rows = csv.reader(lines, strict=True)
    header = next(rows)
    obvious = obvious_columns(header)
    if not is_header(header) and len(obvious) != 1:
        raise csv.Error(f"no column source_ref, nor Bucket and Key, in {str(header)[:200]}")
    if is_prediction_header(header):  # the failed rows of a prediction CSV, with its guard against formulas
        place = header.index("source_ref")
        return (ImageRef.of(unguarded(_cell(row, place))) for row in rows if row)
    places = [header.index(name) for name in ("source_ref", "source-ref") if name in header]
    if places or not is_header(header):
        place = (places or obvious)[0]
        return (ImageRef.of(_cell(row, place), None, _others(header, row, {place})) for row in rows if row)
    return _from_buckets(rows, header, encoded=False)


def without_header(lines: Iterable[str]) -> Iterator[ImageRef]:
    """Reads a CSV of bucket, URL-encoded key and more. The first line shows what the columns are."""
    rows: Iterator[list[str]] = csv.reader(lines, strict=True)
    first = next(rows, [])
    return _from_buckets(chain([first], rows), _guess_columns(first), encoded=True)


def of_inventory(lines: Iterable[str], columns: Sequence[str]) -> Iterator[ImageRef]:
    """Reads a CSV file of S3 Inventory. Raises csv.Error for a line with fewer columns: the rest of it is missing."""
    return _from_buckets(_complete(csv.reader(lines, strict=True), len(columns)), columns, encoded=True)


def names_objects(columns: Sequence[str]) -> bool:
    """Returns whether columns include the bucket and the key."""
    return {"bucket", "key"} <= {name.lower() for name in columns}


def _complete(rows: Iterable[list[str]], columns: int) -> Iterator[list[str]]:
    for row in rows:
        if row and len(row) < columns:
            raise csv.Error(f"a line has {len(row)} of {columns} columns")
        yield row


def _guess_columns(row: Sequence[str]) -> Sequence[str]:
    """Guesses the columns. A third one is a version in Batch Operations, but another field in a plain inventory."""
    if len(row) >= len(_VERSIONED) and {row[3], row[4]} <= {"true", "false"}:
        return _VERSIONED
    is_version = len(row) == 3 and not row[2].isdigit()  # noqa: PLR2004
    return _VERSIONED[:3] if is_version else _VERSIONED[:2]


def _from_buckets(rows: Iterable[list[str]], header: Sequence[str], *, encoded: bool) -> Iterator[ImageRef]:
    places = {name.lower(): place for place, name in enumerate(header)}
    bucket, key = places["bucket"], places["key"]
    version, marker = places.get("versionid", -1), places.get("isdeletemarker", -1)
    used = {place for name, place in places.items() if name in {column.lower() for column in _VERSIONED}}
    for row in rows:
        if not row or (marker >= 0 and _cell(row, marker) == "true"):
            continue  # a delete marker is not an image
        if len(row) <= max(bucket, key):
            yield ImageRef.of(",".join(row))
            continue
        # S3 encodes a space as "+" and a plus as "%2B", so a bare plus is always a space.
        name = unquote_plus(row[key]) if encoded else row[key]
        columns = _others(header, row, used)
        yield ImageRef.of(f"s3://{row[bucket]}/{name}", _cell(row, version) if version >= 0 else None, columns)


def _others(header: Sequence[str], row: Sequence[str], used: set[int]) -> dict[str, str]:
    return {name: _cell(row, place) for place, name in enumerate(header) if place not in used}


def _cell(row: Sequence[str], place: int) -> str:
    return row[place] if place < len(row) else ""


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CELL else f"{text[:_MAX_CELL]}…"


# JSON


def from_lines(lines: Iterable[str]) -> Iterator[ImageRef]:
    """Reads JSON Lines, and yields a reference for every line that is not blank."""
    for line in lines:
        if line.strip():
            document = json_object(line)
            ref = document.get("source-ref")
            if not isinstance(ref, str) or not _encodes(ref):
                yield ImageRef.of(line.strip())
            else:
                others = ((name, value) for name, value in document.items() if name != "source-ref")
                # An augmented manifest holds labels, and objects about them. What fits into a cell is kept.
                cells = {name: _as_cell(value) for name, value in others if isinstance(value, str | int | float)}
                yield ImageRef.of(ref, columns={name: cell for name, cell in cells.items() if _encodes(name + cell)})


def from_array(text: TextIO, uri: str) -> Iterator[ImageRef]:
    """Reads SageMaker's JSON array after its opening bracket, one item at a time.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_S3DataSource.html
    """
    items = _items(text, uri)
    head, _ = next(items, (None, ""))
    if not (isinstance(head, dict) and isinstance(head.get("prefix"), str) and _encodes(head["prefix"])):
        begins = json.dumps(head)[:100]
        raise Reject(
            ErrorCode.BAD_MANIFEST, f"{uri}: expected a JSON array with a prefix first; the array begins with {begins}"
        )
    for item, written in items:
        yield ImageRef.of(head["prefix"] + item if isinstance(item, str) and _encodes(item) else written)


def json_object(line: str) -> dict[str, Any]:
    """Returns the JSON object on a line, or an empty one for anything else."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _items(text: TextIO, uri: str) -> Iterator[tuple[Any, str]]:
    """Yields the items of a JSON array whose opening bracket is already read, each with its text."""
    # No number is a reference, and Python refuses integers of over 4,300 digits.
    decoder = json.JSONDecoder(parse_int=float)
    buffer, place, ended = "", 0, False
    while True:
        while place < len(buffer) and buffer[place] in " \t\r\n,":
            place += 1
        try:
            if buffer[place : place + 1] == "]":
                return
            item, stop = decoder.raw_decode(buffer, place)
            if stop == len(buffer) and not ended:
                raise ValueError("the number may continue in the next piece")  # noqa: TRY301 - as any cut item
        except (ValueError, RecursionError):
            more = text.read(_PIECE)
            ended = not more
            if ended or len(buffer) - place > MAX_LINE:
                raise Reject(
                    ErrorCode.BAD_MANIFEST, f"{uri}: truncated or invalid JSON at {buffer[place:][:100]!r}"
                ) from None
            buffer, place = buffer[place:] + more, 0
            continue
        yield item, buffer[place:stop]
        place = stop


def _as_cell(value: str | float | bool) -> str:  # noqa: FBT001 - a value of JSON
    return value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else repr(value)


def _encodes(text: str) -> bool:
    """Returns whether a CSV can hold the text: JSON may contain a lone surrogate, which UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
