"""The members of a zip or tar archive, read one after the other from untrusted bytes.

Nothing here writes files. A name is text and never a path, a link is reported and never followed, and the bytes are
counted while they are read, so that an archive bomb is stopped before it fills the disk.
"""

import contextlib
import gzip
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, Protocol, Self

from jobs.user_error import UserError

_MIB: Final = 1024**2
#: The largest extended header of a tar, which holds a name. tarfile reads all of it into memory.
_MAX_HEADER_BYTES: Final = _MIB
_MAX_NAME: Final = 4096
_HEADERS: Final = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_ENCRYPTED: Final = 0x1  #: zip's general purpose bits, APPNOTE.TXT 4.4.4
_UTF_8: Final = 0x800
#: Bytes that any archive may unpack to, whatever its own size.
_FREE_BYTES: Final = 64 * _MIB


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to."""

    members: int = 2_000_000
    total_bytes: int = 1024**4
    #: Bytes unpacked per byte of the archive, beyond the first 64 MiB. Photographs compress to about their own size in
    #: a zip, drawings in BMP to a fiftieth.
    ratio: int = 200


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """Reads at most ``size`` bytes. Returns no bytes at the end."""


@dataclass(frozen=True)
class Member:
    """One member: a folder, a file that can be opened, a hard link to an earlier file, or something else."""

    name: str
    is_folder: bool = False
    open: Callable[[], Readable] | None = None
    link: str | None = None  #: the name of the earlier file
    what: str = ""  #: what it is instead


def ref_of(name: str) -> str | None:
    """Returns the name in its plain form, or None if it is absolute, leads outside, is empty or is too long."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    climbs = name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:(/|$)", name)
    return None if climbs or not parts or len(name) > _MAX_NAME else "/".join(parts)


def members(archive: BinaryIO, where: str, limits: Limits) -> Iterator[Member]:
    """Yields the members of ``archive`` in the order of their bytes. Read each one before you ask for the next.

    Raises UserError if the bytes are not an archive, or are incomplete, encrypted or over a limit.
    """
    meter = _Meter(archive, where, limits)
    start = archive.read(512)
    archive.seek(0)
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        found = _zip_members(archive, meter)
    elif start.startswith(b"\x1f\x8b"):
        found = _tar_members(gzip.GzipFile(fileobj=archive), meter)
    elif start[257:262] == b"ustar":
        found = _tar_members(archive, meter)
    else:
        raise UserError(f"{where} is neither a zip nor a tar archive, gzipped or not: it begins with {start[:16]!r}.")
    for count, member in enumerate(found, 1):
        if count > limits.members:
            raise UserError(f"{where} has over {limits.members:,} members. Unpack it yourself and use the folder.")
        yield member


class _Meter:
    """Compares the bytes that were unpacked with those that were read from the archive."""

    def __init__(self, archive: BinaryIO, where: str, limits: Limits) -> None:
        self.where = where
        self._archive = archive
        self._limits = limits
        self._bytes = 0

    def over(self, stream: Readable) -> "_Metered":
        return _Metered(stream, self)

    def count(self, size_bytes: int) -> None:
        self._bytes += size_bytes
        if self._bytes > min(self._limits.total_bytes, _FREE_BYTES + self._limits.ratio * self._archive.tell()):
            raise UserError(
                f"{self.where} unpacks to over {self._bytes // _MIB:,} MiB, far more than its own size, as an archive "
                "bomb does. If you trust it, unpack it yourself and use the folder."
            )


class _Metered:
    def __init__(self, stream: Readable, meter: _Meter) -> None:
        self._stream = stream
        self._meter = meter

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._meter.count(len(data))
        return data


class _Header(tarfile.TarInfo):
    """Raises for a damaged header, at which tarfile would stop as if it were the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise
            raise EOFError(f"expected a header or the end mark: {error}") from None
        if header.size < 0 or (header.type in _HEADERS and header.size > _MAX_HEADER_BYTES):
            raise EOFError(f"a header of {header.size:,} bytes")
        return header


def _tar_members(stream: Readable, meter: _Meter) -> Iterator[Member]:
    metered = meter.over(stream)
    with tarfile.open(fileobj=metered, mode="r|", tarinfo=_Header, encoding="utf-8") as tar:  # type: ignore[call-overload]
        while (item := tar.next()) is not None:
            tar.members.clear()  # tarfile would keep them all
            yield _from_tar(tar, item)
    while metered.read(_MIB):
        pass  # the checksum at the end of a gzip file is checked when it is read


def _from_tar(tar: tarfile.TarFile, item: tarfile.TarInfo) -> Member:
    if item.isdir():
        return Member(item.name, is_folder=True)
    if item.islnk():
        return Member(item.name, link=item.linkname)
    if item.issym():
        return Member(item.name, what="a symbolic link")
    if not item.isreg() or item.issparse():
        return Member(item.name, what="a device, a pipe or a sparse file")
    return Member(item.name, open=lambda: _tar_file(tar, item))


def _tar_file(tar: tarfile.TarFile, item: tarfile.TarInfo) -> Readable:
    file = tar.extractfile(item)
    if file is None:
        raise EOFError("a member without content")
    return file


def _zip_members(archive: BinaryIO, meter: _Meter) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as zipped:
        for item in sorted(zipped.infolist(), key=lambda item: item.header_offset):
            yield _from_zip(zipped, item, meter)


def _from_zip(zipped: zipfile.ZipFile, item: zipfile.ZipInfo, meter: _Meter) -> Member:
    name = _zip_name(item)
    kind = stat.S_IFMT(item.external_attr >> 16)
    if name.endswith("/") or kind == stat.S_IFDIR:
        return Member(name, is_folder=True)
    if kind == stat.S_IFLNK:
        return Member(name, what="a symbolic link")
    if kind not in (0, stat.S_IFREG):
        return Member(name, what="a device or a pipe")
    if item.flag_bits & _ENCRYPTED:
        raise UserError(f"{meter.where} is encrypted. Pack it without a password.")
    return Member(name, open=lambda: meter.over(zipped.open(item)))


def _zip_name(item: zipfile.ZipInfo) -> str:
    """Returns the name as it was meant: Windows writes backslashes, and macOS writes UTF-8 without its flag."""
    name = item.filename
    if not item.flag_bits & _UTF_8:
        with contextlib.suppress(UnicodeError):  # it really was code page 437
            name = name.encode("cp437").decode()
    return name.replace("\\", "/")
