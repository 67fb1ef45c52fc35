"""A manifest's bytes to image references, in order.

    CSV         a header line with ``source_ref`` among its columns; other columns are ignored
    JSON Lines  ``{"source-ref": "s3://bucket/key"}``, as SageMaker writes it; other keys are ignored

Each may be gzipped. A line that holds no reference stands for itself: it fails later as an image that cannot be
found, one row, and the rest of the manifest is answered.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from typing import Final

from worker.contract import ManifestFormat
from worker.errors import ErrorCode, Reject

#: Unpacked: a gzip bomb ends here.
MAX_BYTES: Final = 64 * 1024 * 1024
#: One request becomes one CSV, held in memory until it is written whole.
MAX_IMAGES: Final = 100_000
#: How much of a line that is no reference is repeated in the row.
_MAX_REF: Final = 2048


def source_refs(data: bytes, *, uri: str, declared: ManifestFormat | None) -> list[str]:
    """The references of the manifest at ``uri`` (for its name, and for messages), the same one twice included.

    Raises Reject ``bad_manifest`` when it is empty, too large, cannot be unpacked, or is of no known form.
    """
    # A byte that is no UTF-8 costs its own row, not the manifest.
    text = _unpack(data, uri).decode("utf-8-sig", "backslashreplace")
    first = next((line for line in text.splitlines() if line.strip()), None)
    if first is None:
        raise Reject(ErrorCode.BAD_MANIFEST, f"{uri}: no lines")
    reader = {"csv": _from_csv, "jsonl": _from_jsonl}[declared or _tell(first, uri)]
    refs = []
    for ref in reader(text, uri):
        refs.append(ref[:_MAX_REF])
        if len(refs) > MAX_IMAGES:
            raise Reject(ErrorCode.BAD_MANIFEST, f"{uri}: over {MAX_IMAGES:,} images, split it")
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


def _tell(first: str, uri: str) -> ManifestFormat:
    """The form, from the first line: both announce themselves there, and names lie."""
    if first.lstrip().startswith("{"):
        return "jsonl"
    if "source_ref" in next(csv.reader([first]), []):
        return "csv"
    raise Reject(
        ErrorCode.BAD_MANIFEST,
        f"{uri}: expected a CSV header with source_ref, or JSON lines with source-ref; "
        f"the first line is {first[:100]!r}",
    )


def _from_csv(text: str, uri: str) -> Iterator[str]:
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""))
        if "source_ref" not in (rows.fieldnames or ()):
            raise Reject(ErrorCode.BAD_MANIFEST, f"{uri}: no column source_ref in {rows.fieldnames}")
        for row in rows:
            yield row["source_ref"] or ""
    except csv.Error as error:
        raise Reject(ErrorCode.BAD_MANIFEST, f"{uri}: {error}") from None


def _from_jsonl(text: str, uri: str) -> Iterator[str]:  # noqa: ARG001 - the same form as _from_csv
    for line in io.StringIO(text):
        if not line.strip():
            continue
        try:
            ref = json.loads(line)["source-ref"]
        except (ValueError, KeyError, TypeError, RecursionError):
            ref = None
        # A lone surrogate is no text that could be written to the CSV.
        yield ref if isinstance(ref, str) and _encodable(ref) else line.strip()


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
