"""The shards of a job before anything is written to the bucket: on the disk, packed, whatever their number."""

import gzip
import hashlib
import json
import tempfile
from collections.abc import Iterator
from itertools import islice
from types import TracebackType
from typing import Final, Self

from worker.contract import MAX_SHARDS, SHARD_IMAGES, ShardLine
from worker.errors import ErrorCode, Reject
from worker.manifest.formats import ImageRef

_MAX_IMAGES: Final = MAX_SHARDS * SHARD_IMAGES
#: Made once: json.dumps would make one for each line.
_ENCODE: Final = json.JSONEncoder(separators=(",", ":")).encode
#: More columns than this over all lines are not listed, and so not joined.
_MAX_COLUMNS: Final = 100


class Shards:
    """Collects images, then gives them back as shards. A context manager around its file.

    The same images in the same order make the same bytes, and so the same ``digest``.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="twofold-shards-")  # noqa: SIM115 - closed in __exit__
        # Level 1 packs a list ten times, at the speed of a disk; mtime=0, so that the same images make the same bytes.
        self._packed = gzip.GzipFile(fileobj=self._file, mode="wb", compresslevel=1, mtime=0)
        self._hash = hashlib.sha256()
        self._columns: dict[str, None] = {}
        self.images = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._packed.close()
        self._file.close()

    def add(self, ref: ImageRef, *, row: int | None = None) -> None:
        """The next image; ``row`` where it is not simply the next one. Raises Reject when there are too many."""
        if self.images == _MAX_IMAGES:
            raise Reject(ErrorCode.BAD_MANIFEST, f"over {_MAX_IMAGES:,} images, split the list")
        line: dict[str, object] = {"row": self.images if row is None else row, "source-ref": ref.source_ref}
        if ref.version_id is not None:
            line["version_id"] = ref.version_id
        if ref.columns:
            line["columns"] = ref.columns
            if len(self._columns) < _MAX_COLUMNS:
                self._columns |= dict.fromkeys(ref.columns)
        data = _ENCODE(line).encode() + b"\n"
        self._hash.update(data)
        self._packed.write(data)
        self.images += 1

    @property
    def count(self) -> int:
        """How many there are."""
        return -(-self.images // SHARD_IMAGES)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of all columns, in the order in which they came."""
        return tuple(self._columns)[:_MAX_COLUMNS]

    @property
    def digest(self) -> str:
        """SHA-256 of all lines."""
        return self._hash.hexdigest()

    def __iter__(self) -> Iterator[bytes]:
        """Each shard's bytes. Nothing can be added after that."""
        self._packed.close()
        self._file.seek(0)
        with gzip.GzipFile(fileobj=self._file, mode="rb") as stored:
            while shard := b"".join(islice(stored, SHARD_IMAGES)):
                yield shard


def read_shard(data: bytes, uri: str) -> list[ShardLine]:
    """The lines of a shard. Raises Reject ``bad_manifest`` for anything else."""
    try:
        return [ShardLine.model_validate_json(line) for line in data.splitlines()]
    except ValueError:
        raise Reject(ErrorCode.BAD_MANIFEST, f"{uri}: not a shard as twofold writes it") from None
