"""A manifest's bytes to image references, in order.

    CSV         a header line with ``source_ref`` among its columns; other columns are ignored
    JSON Lines  ``{"source-ref": "s3://bucket/key"}``, as SageMaker writes it; other keys are ignored

Each may be gzipped. A JSON line that holds no reference stands for itself: it fails later as an image that cannot be
found, one row, and the rest of the manifest is answered.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final, TextIO

from worker.contract import ManifestFormat
from worker.errors import ErrorCode, Reject
from worker.predictions import COLUMNS, unguarded

#: Unpacked: a gzip bomb ends here.
MAX_BYTES: Final = 64 * 1024 * 1024
#: One request becomes one CSV, held in memory until it is written whole.
MAX_IMAGES: Final = 100_000
#: A reference is at most 2,048 characters; the rest of its line is somebody's metadata.
_MAX_LINE: Final = 1024 * 1024
#: How much of a line that is no reference is repeated in the row.
_MAX_REF: Final = 2048


def source_refs(data: bytes, *, uri: str, declared: ManifestFormat | None) -> list[str]:
    """The references of the manifest at ``uri`` (for messages), the same one twice included.

    Raises Reject ``bad_manifest`` when it is empty, too large, cannot be unpacked, or is of no known form.
    """
    # A byte that is no UTF-8 costs its own row, not the manifest. Decoded line by line: escapes are four times as long.
    text = io.TextIOWrapper(io.BytesIO(_unpack(data, uri)), "utf-8-sig", "backslashreplace", newline="")
    lines = _lines(text, uri)
    first = next((line for line in lines if line.strip()), None)
    if first is None:
        raise Reject(ErrorCode.BAD_MANIFEST, f"{uri}: no lines")
    reader = {"csv": _from_csv, "jsonl": _from_jsonl}[declared or _tell(first, uri)]
    refs = []
    try:
        for ref in reader(chain([first], lines)):
            refs.append(ref[:_MAX_REF])
            if len(refs) > MAX_IMAGES:
                raise Reject(ErrorCode.BAD_MANIFEST, f"{uri}: over {MAX_IMAGES:,} images, split it")
    except csv.Error as error:
        raise Reject(ErrorCode.BAD_MANIFEST, f"{uri}: {error}, after {len(refs):,} images") from None
    if not refs:
        raise Reject(ErrorCode.BAD_MANIFEST, f"{uri}: a header and no images")
    return refs


def _unpack(data: bytes, uri: str) -> bytes:
    if data[:2] == b"\x1f\x8b":
        try:
            with gzip.open(io.BytesIO(data)) as stream:
                data = stream.read(MAX_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise Reject(ErrorCode.BAD_MANIFEST, f"{uri}: cannot be unpacked, {error}") from None
    if len(data) > MAX_BYTES:
        raise Reject(ErrorCode.BAD_MANIFEST, f"{uri}: over {MAX_BYTES:,} bytes unpacked, split it")
    return data


def _lines(text: TextIO, uri: str) -> Iterator[str]:
    while line := text.readline(_MAX_LINE):
        if len(line) == _MAX_LINE:
            raise Reject(ErrorCode.BAD_MANIFEST, f"{uri}: a line of over {_MAX_LINE:,} characters")
        yield line


def _tell(first: str, uri: str) -> ManifestFormat:
    """The form, from the first line: both announce themselves there, and names lie."""
    if first.lstrip().startswith("{"):
        return "jsonl"
    try:
        if "source_ref" in next(csv.reader([first]), []):
            return "csv"
    except csv.Error:
        pass  # no CSV either
    raise Reject(
        ErrorCode.BAD_MANIFEST,
        f"{uri}: expected a CSV header with source_ref, or JSON lines with source-ref; "
        f"the first line is {first[:100]!r}",
    )


def _from_csv(lines: Iterable[str]) -> Iterator[str]:
    # strict: a quote that is never closed would make one reference of all lines after it.
    rows = csv.reader(lines, strict=True)
    header = next(rows)
    if "source_ref" not in header:
        raise csv.Error(f"no column source_ref in {str(header)[:200]}")
    column = header.index("source_ref")
    ours = tuple(header) == COLUMNS  # failed rows to be tried again, with our own guard against formulas
    for row in rows:
        if row:
            ref = row[column] if column < len(row) else ""
            yield unguarded(ref) if ours else ref


def _from_jsonl(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if line.strip():
            ref = _reference(line)
            yield line.strip() if ref is None else ref


def _reference(line: str) -> str | None:
    try:
        ref = json.loads(line)["source-ref"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    try:
        ref.encode()
    except (AttributeError, UnicodeEncodeError):  # a number, say, or a lone surrogate that no CSV could hold
        return None
    return str(ref)
