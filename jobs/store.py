"""Named files in a folder or under a prefix of a bucket, the same for both: bundles, pointers, checkpoints, caches.

    open_store("s3://shelter/models")    open_store("models/")

A file is there whole or not at all, whatever dies in between.
"""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from jobs.progress import Reporter
from jobs.user_error import UserError
from worker.aws.clients import open_session, open_storage
from worker.aws.storage import Storage
from worker.errors import ErrorCode, Reject

_CONTENT_TYPES: Final = {
    ".json": "application/json",
    ".csv": "text/csv; charset=utf-8",
    ".html": "text/html; charset=utf-8",
}
_MAX_BYTES: Final = 4 * 1024**3


class Store(Protocol):
    """Files by name, such as ``pets/v1/model.json``."""

    #: Where it is, as a person would type it; no slash at the end.
    uri: str

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""

    def read(self, name: str) -> bytes | None:
        """The bytes of a file, or None where there is none."""

    def names(self, prefix: str) -> list[str]:
        """The names that begin with ``prefix``, which ends with a slash or is empty; in alphabetical order."""

    def write(self, name: str, body: bytes) -> None:
        """Writes a file over whatever is there."""

    def write_once(self, name: str, body: bytes) -> bool:
        """Writes a file, unless there is one of that name already: then False."""

    def replace(self, name: str, body: bytes, *, seen: bytes) -> bool:
        """Writes over a file that still is what was ``seen``; False where somebody else was faster."""

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""


class FolderStore:
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.uri = str(root)

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self._root / name).exists()

    def read(self, name: str) -> bytes | None:
        """The bytes of a file, or None where there is none."""
        try:
            return (self._root / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def names(self, prefix: str) -> list[str]:
        """Drafts, which begin with a dot, are none."""
        found = (self._root / prefix).rglob("*")
        return sorted(p.relative_to(self._root).as_posix() for p in found if p.is_file() and not p.name.startswith("."))

    def write(self, name: str, body: bytes) -> None:
        """Renames a finished file into place."""
        with self._draft(name, body) as draft:
            draft.replace(self._root / name)

    def write_once(self, name: str, body: bytes) -> bool:
        """Links a finished file into place, so that nobody ever reads half of it, and only one of two is first."""
        with self._draft(name, body) as draft:
            try:
                (self._root / name).hardlink_to(draft)
            except FileExistsError:
                return False
        return True

    def replace(self, name: str, body: bytes, *, seen: bytes) -> bool:
        """One process at a time compares and renames."""
        with (self._root / f"{name}.lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.read(name) != seen:
                return False
            self.write(name, body)
        return True

    def remove(self, name: str) -> None:
        """Removes a file, if it is there, and the folders that are empty without it."""
        path = self._root / name
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty
            for folder in path.relative_to(self._root).parents[:-1]:
                (self._root / folder).rmdir()

    @contextlib.contextmanager
    def _draft(self, name: str, body: bytes) -> Iterator[Path]:
        path = self._root / name
        handle, draft = _make_draft(path)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(body)
                file.flush()
                os.fsync(handle)  # or a name could outlive a power cut, and what it names not
            Path(draft).chmod(0o644)
            yield Path(draft)
        finally:
            Path(draft).unlink(missing_ok=True)


class BucketStore:
    """A prefix of a bucket."""

    def __init__(self, uri: str, storage: Storage) -> None:
        self.uri = uri.rstrip("/")
        self._storage = storage

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        return self._storage.metadata(self._uri(name)) is not None

    def read(self, name: str) -> bytes | None:
        """The whole object, or None where there is none."""
        try:
            return self._storage.read(self._uri(name), max_bytes=_MAX_BYTES)
        except Reject as error:
            if error.code is ErrorCode.NOT_FOUND:
                return None
            raise

    def names(self, prefix: str) -> list[str]:
        """In alphabetical order, as S3 lists them."""
        start = len(self.uri) + 1
        return sorted(item.uri[start:] for item in self._storage.list(self._uri(prefix)))

    def write(self, name: str, body: bytes) -> None:
        """One PutObject."""
        self._storage.write(self._uri(name), body, content_type=_content_type(name))

    def write_once(self, name: str, body: bytes) -> bool:
        """One conditional PutObject."""
        return self._storage.write_once(self._uri(name), body, content_type=_content_type(name), metadata={})

    def replace(self, name: str, body: bytes, *, seen: bytes) -> bool:
        """One conditional PutObject, on the entity tag of what was seen."""
        return self._storage.replace(self._uri(name), body, seen=seen, content_type=_content_type(name))

    def remove(self, name: str) -> None:
        """One DeleteObject."""
        self._storage.remove(self._uri(name))

    def _uri(self, name: str) -> str:
        return f"{self.uri}/{name}"


def open_store(where: str) -> Store:
    """``s3://bucket/prefix``, or a folder, which is made if it is not there."""
    if where.startswith("s3://"):
        return BucketStore(where, open_storage(open_session()))
    try:
        Path(where).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{where} cannot be a folder: {error.strerror}.") from error
    return FolderStore(Path(where))


def _make_draft(path: Path) -> tuple[int, str]:
    """A new file beside ``path``, open."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        except FileNotFoundError:  # somebody removed the last file of that folder, and the folder with it
            continue


def _content_type(name: str) -> str:
    return _CONTENT_TYPES.get(Path(name).suffix, "application/octet-stream")


@contextmanager
def alone(path: Path, what: str, reporter: Reporter) -> Iterator[None]:
    """Holds the lock file at ``path``, which stays; waits for another process that holds it, and says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with reporter.step(f"Waiting for another job that is {what}"):
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield
