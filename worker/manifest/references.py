"""A manifest of any format, as a stream of image references. The order is kept, and so are duplicates.

    CSV with a header     ``source_ref``, or ``Bucket`` and ``Key`` and optionally ``VersionId``; keys as they are;
                          or one column with another word for it, such as ``filename``
    CSV without one       bucket, URL-encoded key, optionally a version: S3 Batch Operations, S3 Inventory
    one path a line       addresses, or names of image files
    JSON Lines            ``{"source-ref": "s3://bucket/key"}``, as SageMaker writes it
    JSON array            SageMaker's ManifestFile: ``[{"prefix": "s3://bucket/"}, "a.jpg", …]``
    manifest.json         of S3 Inventory, which names CSV files
    s3://…/prefix/        every object below it

A file may be gzipped and of any length. Its other columns are kept, to be joined to the results. A line without a
reference becomes a reference itself: it fails later as an image that does not exist, which costs one row and not the
rest of the manifest.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Final, Literal, NamedTuple, TextIO

from worker.contract import ManifestFormat, ManifestRef
from worker.errors import ErrorCode, Reject
from worker.manifest import formats
from worker.manifest.formats import ImageRef, from_array, from_lines, json_object
from worker.manifest.text import MAX_LINE, lines, open_text
from worker.uris import is_bucket

#: Returns the bytes of an object, by URI and version.
Opener = Callable[[str, str | None], Iterable[bytes]]
#: Returns the URIs below a prefix.
Lister = Callable[[str], Iterable[str]]

#: The manifest.json of an inventory names its files, a hundred bytes each.
_MAX_INVENTORY: Final = 16 * 1024 * 1024

EXPECTED: Final = (
    "expected a CSV with a header of source_ref or Bucket,Key, one path a line, a CSV of bucket and URL-encoded key "
    "without a header, JSON Lines with source-ref, SageMaker's JSON array with a prefix, or the manifest.json of S3 "
    "Inventory"
)


class _Start(NamedTuple):
    """A manifest of which only the first line is read."""

    first: str
    text: TextIO
    uri: str

    def lines(self) -> Iterator[str]:
        return chain([self.first], lines(self.text, self.uri))


def references(manifest: ManifestRef, *, opener: Opener, lister: Lister) -> Iterator[ImageRef]:
    """Yields the references of a manifest in storage, reading it as they are asked for.

    Raises Reject ``bad_manifest`` when the manifest is empty, cannot be unpacked or has an unknown format, and what
    ``opener`` and ``lister`` raise. An error can come after some references; none of them may be used then.
    """
    uri = manifest.uri
    if manifest.format == "listing" or (manifest.format is None and uri.endswith("/")):
        # To S3 a prefix is any start of a key: s3://shelter/in would also list s3://shelter/in-secret/.
        folder = uri if uri.endswith("/") else f"{uri}/"
        return _not_empty((ImageRef(item) for item in lister(folder) if not item.endswith("/")), uri)
    return of_file(opener(uri, manifest.version_id), uri, declared=manifest.format, opener=opener)


def of_file(
    pieces: Iterable[bytes], name: str, *, declared: ManifestFormat | None, opener: Opener
) -> Iterator[ImageRef]:
    """Yields the references of a manifest's bytes, wherever they come from; ``name`` is for messages."""

    def refs() -> Iterator[ImageRef]:  # a generator, so nothing is read and nothing fails before the first reference
        yield from _of_text(open_text(pieces, name), name, declared, opener)

    return _not_empty(refs(), name)


def _not_empty(refs: Iterable[ImageRef], uri: str) -> Iterator[ImageRef]:
    found = 0
    try:
        for ref in refs:
            found += 1
            yield ref
    except csv.Error as error:
        raise Reject(ErrorCode.BAD_MANIFEST, f"{uri}: {error}, after {found:,} images") from None
    if not found:
        raise Reject(ErrorCode.BAD_MANIFEST, f"{uri}: it names no images")


def _of_text(text: TextIO, uri: str, kind: ManifestFormat | None, opener: Opener) -> Iterator[ImageRef]:
    opening = _skip_blanks(text)
    if not opening:
        raise Reject(ErrorCode.BAD_MANIFEST, f"{uri}: no lines")
    if opening == "[" and kind in (None, "manifest-file"):
        return from_array(text, uri)
    # An array may be one line of any length; every other format has short lines.
    first = opening + text.readline(MAX_LINE)
    if len(first) > MAX_LINE:
        raise Reject(ErrorCode.BAD_MANIFEST, f"{uri}: a line of over {MAX_LINE:,} characters")
    start = _Start(first, text, uri)
    found = kind or _detect_format(start)
    if found == "paths":
        return formats.one_a_line(start.lines())
    if found == "inventory":
        return _from_inventory(start, opener)
    if found == "jsonl":
        return from_lines(start.lines())
    if found == "csv":
        return formats.with_header(start.lines())
    if found == "s3-csv":
        return formats.without_header(start.lines())
    raise _unknown(start)


def _skip_blanks(text: TextIO) -> str:
    """Returns the first character that is not white space, or nothing where it takes longer than a line."""
    for _ in range(MAX_LINE):
        character = text.read(1)
        if not character.isspace():
            return character
    return ""


def _detect_format(start: _Start) -> ManifestFormat | Literal["paths"]:
    """Detects the format from the first line; prefixes and JSON arrays are known before. File names are often wrong."""
    if start.first.startswith("{"):
        indented = start.first.strip() == "{"  # AWS writes an inventory's manifest over many lines
        return "inventory" if indented or "fileSchema" in json_object(start.first) else "jsonl"
    try:
        row = next(csv.reader([start.first]), [])
    except csv.Error:
        raise _unknown(start) from None
    if formats.is_header(row):
        return "csv"
    if formats.is_s3_row(row):
        return "s3-csv"
    if len(formats.obvious_columns(row)) == 1:
        return "csv"
    if formats.is_path(start.first):
        return "paths"
    raise _unknown(start)


def _unknown(start: _Start) -> Reject:
    row = start.first.strip().split(",")
    obvious = [row[place].strip() for place in formats.obvious_columns(row)]
    hint = f"rename {_quoted(obvious)} to source_ref, whichever names the images; " if len(obvious) > 1 else ""
    if not hint and len(row) > 1:
        hint = "if a column names the images, rename it to source_ref; "
    return Reject(ErrorCode.BAD_MANIFEST, f"{start.uri}: {hint}{EXPECTED}; the first line is {start.first[:100]!r}")


def _quoted(names: Sequence[str]) -> str:
    return " or ".join(repr(name[:100]) for name in names[:3])


def _from_inventory(start: _Start, opener: Opener) -> Iterator[ImageRef]:
    """Yields the references of all files that an inventory names.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory-location.html
    """
    document = json_object(start.first + start.text.read(_MAX_INVENTORY))
    schema, files = document.get("fileSchema"), document.get("files")
    if not isinstance(schema, str) or not isinstance(files, list):
        raise _unknown(start)
    if document.get("fileFormat") != "CSV":
        raise Reject(
            ErrorCode.BAD_MANIFEST,
            f"{start.uri}: an inventory in {document.get('fileFormat')}, set it to CSV in the bucket's configuration",
        )
    columns = [name.strip() for name in schema.split(",")]
    bucket = str(document.get("destinationBucket")).rpartition(":")[2]  # an ARN
    keys = [file.get("key") if isinstance(file, dict) else None for file in files]
    if not (formats.names_objects(columns) and is_bucket(bucket) and all(isinstance(key, str) for key in keys)):
        raise Reject(
            ErrorCode.BAD_MANIFEST,
            f"{start.uri}: an inventory needs Bucket and Key in its fileSchema, which is {schema[:100]!r}, a "
            "destinationBucket, and a key for each of its files",
        )
    for key in keys:
        yield from _inventory_file(f"s3://{bucket}/{key}", columns, opener)


def _inventory_file(uri: str, columns: list[str], opener: Opener) -> Iterator[ImageRef]:
    try:
        yield from formats.of_inventory(lines(open_text(opener(uri, None), uri), uri), columns)
    except csv.Error as error:
        raise csv.Error(f"{error} in {uri}") from None
