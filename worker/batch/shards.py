"""The shards of a job before they are written to the bucket. They are compressed on disk: there may be 100,000."""

import gzip
import hashlib
import io
import json
import tempfile
from collections.abc import Iterator
from itertools import islice
from types import TracebackType
from typing import Final, Self

from worker.contract import MAX_SHARDS, SHARD_IMAGES, ShardLine
from worker.errors import ErrorCode, Reject
from worker.manifest.formats import ImageRef

#: Bytes of a shard, which a worker holds in memory several times: enough for a hundred columns of 1,024 characters.
MAX_SHARD_BYTES: Final = 64 * 1024 * 1024

_MAX_IMAGES: Final = MAX_SHARDS * SHARD_IMAGES
#: Made once: json.dumps would make an encoder for each line.
_ENCODE: Final = json.JSONEncoder(separators=(",", ":")).encode
#: The columns of all lines. Further ones are not listed, and so not joined to the results.
_MAX_COLUMNS: Final = 100


class Shards:
    """Collects images and returns them as shards. Use it as a context manager: it holds a temporary file.

    The same images in the same order make the same bytes, and so the same ``digest``.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="twofold-shards-")  # noqa: SIM115 - closed in __exit__
        # Level 1 makes a list ten times smaller, at the speed of a disk.
        self._packed = gzip.GzipFile(fileobj=self._file, mode="wb", compresslevel=1, mtime=0)
        self._hash = hashlib.sha256()
        self._columns: dict[str, None] = {}
        self._shard_bytes = 0  # of the shard that is being filled
        self.images = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._packed.close()
        self._file.close()

    def add(self, ref: ImageRef, *, row: int | None = None) -> None:
        """Adds an image. ``row`` is the next one unless given.

        Raises Reject when there are too many images, or when their shard is too large.
        """
        if self.images == _MAX_IMAGES:
            raise Reject(ErrorCode.BAD_MANIFEST, f"over {_MAX_IMAGES:,} images: split the list")
        line: dict[str, object] = {"row": self.images if row is None else row, "source-ref": ref.source_ref}
        if ref.version_id is not None:
            line["version_id"] = ref.version_id
        if ref.columns:
            line["columns"] = ref.columns
            if len(self._columns) < _MAX_COLUMNS:
                self._columns |= dict.fromkeys(ref.columns)
        data = _ENCODE(line).encode() + b"\n"
        self._shard_bytes = len(data) + (self._shard_bytes if self.images % SHARD_IMAGES else 0)
        if self._shard_bytes > MAX_SHARD_BYTES:
            first = self.images // SHARD_IMAGES * SHARD_IMAGES
            what = f"images {first:,} to {self.images:,}: their columns take over {MAX_SHARD_BYTES:,} bytes"
            raise Reject(ErrorCode.BAD_MANIFEST, f"{what}: leave some out, or shorten them")
        self._hash.update(data)
        self._packed.write(data)
        self.images += 1

    @property
    def count(self) -> int:
        """The number of shards."""
        return -(-self.images // SHARD_IMAGES)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of all columns, in the order of their first use."""
        return tuple(self._columns)[:_MAX_COLUMNS]

    @property
    def digest(self) -> str:
        """SHA-256 of all lines."""
        return self._hash.hexdigest()

    def __iter__(self) -> Iterator[bytes]:
        """Yields the bytes of each shard. Nothing can be added afterwards."""
        self._packed.close()
        self._file.seek(0)
        with gzip.GzipFile(fileobj=self._file, mode="rb") as stored:
            while shard := b"".join(islice(stored, SHARD_IMAGES)):
                yield shard


def read_shard(data: bytes, uri: str) -> list[ShardLine]:
    """Parses the lines of a shard. Raises Reject ``bad_manifest`` for anything else."""
    try:
        return [ShardLine.model_validate_json(line) for line in io.BytesIO(data)]
    except ValueError:
        raise Reject(ErrorCode.BAD_MANIFEST, f"{uri} is not a shard that twofold wrote") from None
