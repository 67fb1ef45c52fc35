"""Downloads: a remote file becomes a local one, resumed where it broke off, and kept until the remote file changes.

<folder>/part, part.json      the bytes that have arrived, and the version of the file that they belong to
<folder>/whole, whole.json    the complete file
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from jobs.progress import Reporter
from jobs.store import exclusive_lock, naming
from jobs.user_error import UserError
from worker.errors import Retry

#: Consecutive attempts without a single byte before the download fails.
_ATTEMPTS: Final = 5
_PAUSE_S: Final = 0.5


class FileVersion(BaseModel):
    """What distinguishes one version of a file from the next, as far as the server says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    etag: str | None = None
    last_modified: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True)
class RemoteStream:
    """The bytes of a version from ``start`` on. ``start`` may be 0 even if a later one was requested."""

    version: FileVersion
    start: int
    chunks: Iterator[bytes]


class RemoteFile(Protocol):
    """A file to download. Its methods raise Retry for a failure that may pass, UserError or Reject for any other."""

    #: The address as a message may show it, without secrets.
    where: str

    def is_still(self, version: FileVersion) -> bool:
        """Whether the file is still of that version."""

    def open(self, start: int, version: FileVersion | None) -> AbstractContextManager[RemoteStream]:
        """Opens the file at ``start`` if it is still of that version, and at 0 otherwise."""


def fetch(remote: RemoteFile, folder: Path, reporter: Reporter, *, pause_s: float = _PAUSE_S) -> Path:
    """Returns the complete file, downloaded to ``folder``, which holds nothing else.

    An earlier copy is used if the server cannot be reached. Raises UserError if the download fails; what has arrived
    is then kept for the next run.
    """
    part, whole = folder / "part", folder / "whole"
    with exclusive_lock(folder / "lock", "Waiting for another job to download the same file", reporter):
        failures = 0
        while True:
            size_before = _size(part)
            try:
                if not _is_current(remote, whole, part):
                    _continue(remote, part, reporter)
                    _finish(part, whole)
                return whole
            except Retry as error:
                if whole.exists() and not part.exists():
                    reporter.say(f"  {error.message}: using the earlier copy of {remote.where}")
                    return whole
                failures = 0 if _size(part) > size_before else failures + 1
                if failures == _ATTEMPTS:
                    kept = f" The {_size(part):,} bytes that arrived are kept: run the same command again to resume."
                    raise UserError(f"{error.message}.{kept if _size(part) else ''}") from error
            time.sleep(pause_s * 2**failures)


def _is_current(remote: RemoteFile, whole: Path, part: Path) -> bool:
    """Whether ``whole`` can be used. If a newer version is partly downloaded, it cannot."""
    version = _read_version(whole)
    return version is not None and whole.exists() and not part.exists() and remote.is_still(version)


def _continue(remote: RemoteFile, part: Path, reporter: Reporter) -> None:
    """Downloads what is missing. Raises Retry if the connection breaks."""
    version = _read_version(part) if part.exists() else None
    start = _size(part) if version else 0
    if version and version.size_bytes == start:
        return
    with (
        remote.open(start, version) as stream,
        part.open("ab" if stream.start else "wb") as file,
        reporter.step(f"Downloading {remote.where}", total=stream.version.size_bytes, in_bytes=True) as advance,
    ):
        # Written only once the file is truncated or continued, so that bytes of two versions are never mixed.
        _version_file(part).write_text(stream.version.model_dump_json())
        advance(stream.start)
        for chunk in stream.chunks:
            with naming(part):
                file.write(chunk)
            advance(len(chunk))


def _finish(part: Path, whole: Path) -> None:
    # A complete file without its version is downloaded again, so a crash between any two of these lines does no harm.
    _version_file(whole).unlink(missing_ok=True)
    part.rename(whole)
    _version_file(part).rename(_version_file(whole))


def _version_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read_version(path: Path) -> FileVersion | None:
    try:
        return FileVersion.model_validate_json(_version_file(path).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
