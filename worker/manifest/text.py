"""The text of a manifest: its bytes gunzipped where necessary and decoded, a little at a time."""

import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO, Final, TextIO, cast

from worker.errors import ErrorCode, Reject

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: Deflate compresses up to a thousand times, a list of names about ten times. What exceeds both limits is a bomb.
BOMB_BYTES: Final = 64 * 1024 * 1024
BOMB_RATIO: Final = 200
#: A reference has at most 2,048 characters. The rest of its line is metadata.
MAX_LINE: Final = 1024 * 1024

_BUFFER_BYTES: Final = 256 * 1024
_GZIP: Final = b"\x1f\x8b"


class _Pieces(io.RawIOBase):
    """An iterable of bytes as a file, which counts the bytes read."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = memoryview(b"")
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        target = memoryview(buffer)
        size = min(len(target), len(self._rest))
        target[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        self.count += size
        return size


class _Unpacked(io.RawIOBase):
    """The content of a gzip file, refused when there is too much of it."""

    def __init__(self, packed: BinaryIO, source: _Pieces, uri: str) -> None:
        self._gzip = gzip.GzipFile(fileobj=packed)
        self._source = source
        self._uri = uri
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        try:
            data = self._gzip.read1(len(memoryview(buffer)))
        except (OSError, EOFError, zlib.error) as error:
            raise Reject(ErrorCode.BAD_MANIFEST, f"{self._uri}: cannot be unpacked, {error}") from None
        self._count += len(data)
        if self._count > BOMB_BYTES and self._count > BOMB_RATIO * self._source.count:
            raise Reject(
                ErrorCode.BAD_MANIFEST, f"{self._uri}: compressed over {BOMB_RATIO} times, more than any list of images"
            )
        memoryview(buffer)[: len(data)] = data
        return len(data)


def open_text(pieces: Iterable[bytes], uri: str) -> TextIO:
    """Opens the text of an object; ``uri`` is for messages.

    A byte that is not UTF-8 becomes an escape. It costs its own row, not the manifest.
    """
    pieces, head = iter(pieces), b""
    for piece in pieces:
        head += piece
        if len(head) >= len(_GZIP):
            break
    source = _Pieces(chain([head], pieces))
    packed = _buffered(source)
    plain = packed
    if head.startswith(_GZIP):
        plain = _buffered(_Unpacked(packed, source, uri))
    return io.TextIOWrapper(plain, "utf-8-sig", "backslashreplace", newline="")


def _buffered(raw: io.RawIOBase) -> BinaryIO:
    return cast("BinaryIO", io.BufferedReader(raw, _BUFFER_BYTES))


def lines(text: TextIO, uri: str) -> Iterator[str]:
    """Yields the lines of a text. Raises Reject for one that is too long."""
    while line := text.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise Reject(ErrorCode.BAD_MANIFEST, f"{uri}: a line of over {MAX_LINE:,} characters")
        yield line
