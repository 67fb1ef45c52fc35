"""A file from elsewhere to a file of this machine: resumed where it broke off, and kept until it changes there.

<folder>/part, part.json      what has arrived, and of which version of the file
<folder>/whole, whole.json    all of it
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from jobs.progress import Reporter
from jobs.store import alone
from jobs.user_error import UserError
from worker.errors import Retry

#: Tries that bring nothing, one after the other, before it is given up.
_TRIES: Final = 5
_PAUSE_S: Final = 0.5


class Version(BaseModel):
    """What tells one version of a file from the next, as far as the server says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    etag: str | None = None
    last_modified: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True)
class Answer:
    """The bytes of ``version`` from ``start`` on, which can be 0 where more was asked to be left out."""

    version: Version
    start: int
    chunks: Iterator[bytes]


class Remote(Protocol):
    """A file elsewhere. Its methods raise Retry for what may pass, UserError or Reject for what will not."""

    #: As a message may show it: without secrets.
    where: str

    def is_still(self, version: Version) -> bool:
        """Whether the file is the one of that version."""

    def open(self, start: int, version: Version | None) -> AbstractContextManager[Answer]:
        """The bytes from ``start`` on if the file is still of that version; all of them otherwise."""


def fetch(remote: Remote, folder: Path, reporter: Reporter, *, pause_s: float = _PAUSE_S) -> Path:
    """The file, whole; ``folder`` is its own.

    Raises UserError when it does not get on; what has arrived is then kept for the next time. A file that was there
    before is used as it is where the server cannot be reached.
    """
    part, whole = folder / "part", folder / "whole"
    with alone(folder / "lock", "downloading the same", reporter):
        failures = 0
        while True:
            had = _size(part)
            try:
                if not _is_current(remote, whole, part):
                    _continue(remote, part, reporter)
                    _finish(part, whole)
                return whole
            except Retry as error:
                if whole.exists() and not part.exists():
                    reporter.say(f"  {error.message}: using the copy of {remote.where} from before")
                    return whole
                failures = 0 if _size(part) > had else failures + 1
                if failures == _TRIES:
                    kept = f"What arrived, {_size(part):,} bytes, is kept: run the same command again to go on."
                    raise UserError(f"{error.message}. {kept}") from error
            time.sleep(pause_s * 2**failures)


def _is_current(remote: Remote, whole: Path, part: Path) -> bool:
    """Whether ``whole`` can be used; a download of something newer that was begun is to be ended first."""
    version = _read_version(whole)
    return version is not None and whole.exists() and not part.exists() and remote.is_still(version)


def _continue(remote: Remote, part: Path, reporter: Reporter) -> None:
    """Writes what is missing. Raises Retry when it breaks off."""
    version = _read_version(part) if part.exists() else None
    start = _size(part) if version else 0
    if version and version.size_bytes == start:
        return
    with (
        remote.open(start, version) as answer,
        part.open("ab" if answer.start else "wb") as file,
        reporter.step(f"Downloading {remote.where}", total=answer.version.size_bytes, in_bytes=True) as advance,
    ):
        # Only now, so that no other version's bytes ever stand before this one's.
        _version_file(part).write_text(answer.version.model_dump_json())
        advance(answer.start)
        for chunk in answer.chunks:
            file.write(chunk)
            advance(len(chunk))


def _finish(part: Path, whole: Path) -> None:
    # A whole without its version is one of a version unknown, and loaded again: no moment in between is wrong.
    _version_file(whole).unlink(missing_ok=True)
    part.rename(whole)
    _version_file(part).rename(_version_file(whole))


def _version_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read_version(path: Path) -> Version | None:
    try:
        return Version.model_validate_json(_version_file(path).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
