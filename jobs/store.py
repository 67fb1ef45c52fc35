"""A store of named files: a folder, or a prefix of a bucket. It holds bundles, pointers, checkpoints and caches.

    open_store("s3://shelter/models")    open_store("models/")

A file is complete or absent, even if the process or the machine dies while it is written.
"""

import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

from pydantic_settings import BaseSettings, SettingsConfigDict

from jobs import folder_settings
from jobs.progress import Reporter
from jobs.user_error import UserError
from worker.aws.clients import open_session, open_storage
from worker.aws.storage import Storage
from worker.errors import ErrorCode, Reject
from worker.settings import AccountId
from worker.uris import is_bucket, masked

_CONTENT_TYPES: Final = {
    ".json": "application/json",
    ".csv": "text/csv; charset=utf-8",
    ".html": "text/html; charset=utf-8",
}
_MAX_BYTES: Final = 4 * 1024**3
#: The name of an unfinished file: ``.model.json.k2j4x8_q.draft``.
_DRAFT: Final = re.compile(r"\..+\.[a-z0-9_]{8}\.draft")


class Store(Protocol):
    """Files by name, such as ``pets/v1/model.json``."""

    #: As a user would type it, without a slash at the end.
    uri: str

    def exists(self, name: str) -> bool:
        """Whether the file exists."""

    def read(self, name: str) -> bytes | None:
        """Returns the bytes of a file, or None if it does not exist."""

    def names(self, prefix: str) -> list[str]:
        """Lists the names that begin with ``prefix``, which is empty or ends with a slash, in alphabetical order."""

    def write(self, name: str, body: bytes) -> None:
        """Writes a file, replacing any that exists."""

    def write_once(self, name: str, body: bytes) -> bool:
        """Writes a file and returns True, or returns False if it exists already."""

    def replace(self, name: str, body: bytes, *, seen: bytes) -> bool:
        """Replaces a file whose bytes are still those ``seen``, or returns False if they have changed."""

    def remove(self, name: str) -> None:
        """Removes a file, if it exists."""


class FolderStore:
    """A local folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._swept: set[Path] = set()  # the folders in which this store has removed what killed processes left
        self.uri = str(root)

    def exists(self, name: str) -> bool:
        """Whether the file exists."""
        return (self._root / name).exists()

    def read(self, name: str) -> bytes | None:
        """Returns the bytes of a file, or None if it does not exist."""
        try:
            return (self._root / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def names(self, prefix: str) -> list[str]:
        """Lists the names, without those of unfinished files, which begin with a dot."""
        found = (self._root / prefix).rglob("*")
        return sorted(p.relative_to(self._root).as_posix() for p in found if p.is_file() and not p.name.startswith("."))

    def write(self, name: str, body: bytes) -> None:
        """Renames a complete file into place."""
        with self._complete_file(name, body) as file:
            file.replace(self._root / name)

    def write_once(self, name: str, body: bytes) -> bool:
        """Links a complete file into place, which only one of several writers can do."""
        with self._complete_file(name, body) as file:
            try:
                (self._root / name).hardlink_to(file)
            except FileExistsError:
                return False
        return True

    def replace(self, name: str, body: bytes, *, seen: bytes) -> bool:
        """Compares and renames under a lock, one process at a time."""
        with (self._root / f"{name}.lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.read(name) != seen:
                return False
            self.write(name, body)
        return True

    def remove(self, name: str) -> None:
        """Removes a file, if it exists, and the folders that this leaves empty."""
        path = self._root / name
        path.unlink(missing_ok=True)
        self._sweep(path.parent)
        with suppress(OSError):  # not empty
            for folder in path.relative_to(self._root).parents[:-1]:
                (self._root / folder).rmdir()

    @contextmanager
    def _complete_file(self, name: str, body: bytes) -> Iterator[Path]:
        """Yields a temporary file with the bytes, next to where it belongs."""
        path = self._root / name
        handle, draft = open_draft(path)
        try:
            with naming(path), os.fdopen(handle, "wb") as file:
                self._sweep(path.parent)
                file.write(body)
                file.flush()
                os.fsync(handle)  # or the name could survive a power cut without the bytes
                draft.chmod(0o644)
                yield draft
        finally:
            draft.unlink(missing_ok=True)

    def _sweep(self, folder: Path) -> None:
        """Removes the drafts of processes that were killed, once for each folder."""
        if folder in self._swept:
            return
        self._swept.add(folder)
        with suppress(OSError):  # the folder is gone
            for path in folder.iterdir():
                if _DRAFT.fullmatch(path.name):
                    remove_abandoned(path)


class BucketStore:
    """A prefix of a bucket."""

    def __init__(self, uri: str, storage: Storage) -> None:
        self.uri = uri.rstrip("/")
        self._storage = storage

    def exists(self, name: str) -> bool:
        """Whether the object exists."""
        return self._storage.metadata(self._uri(name)) is not None

    def read(self, name: str) -> bytes | None:
        """Returns the bytes of an object, or None if it does not exist."""
        try:
            return self._storage.read(self._uri(name), max_bytes=_MAX_BYTES)
        except Reject as error:
            if error.code is ErrorCode.NOT_FOUND:
                return None
            raise

    def names(self, prefix: str) -> list[str]:
        """Lists the names in alphabetical order, as S3 does."""
        start = len(self.uri) + 1
        return sorted(item.uri[start:] for item in self._storage.list(self._uri(prefix)))

    def write(self, name: str, body: bytes) -> None:
        """Sends one PutObject."""
        self._storage.write(self._uri(name), body, content_type=_content_type(name))

    def write_once(self, name: str, body: bytes) -> bool:
        """Sends one conditional PutObject."""
        return self._storage.write_once(self._uri(name), body, content_type=_content_type(name), metadata={})

    def replace(self, name: str, body: bytes, *, seen: bytes) -> bool:
        """Sends one PutObject on condition that the entity tag is that of the bytes seen."""
        return self._storage.replace(self._uri(name), body, seen=seen, content_type=_content_type(name))

    def remove(self, name: str) -> None:
        """Sends one DeleteObject."""
        self._storage.remove(self._uri(name))

    def _uri(self, name: str) -> str:
        return f"{self.uri}/{name}"


class _BucketSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="TWOFOLD_", frozen=True, env_ignore_empty=True)

    expected_bucket_owner: AccountId | None = None


def open_buckets() -> Storage:
    """Opens the storage of the environment. Every call names the owner that TWOFOLD_EXPECTED_BUCKET_OWNER names.

    Raises UserError if the settings are those of an emulator that does not run.
    """
    folder_settings.check_emulator()
    return open_storage(open_session(), bucket_owner=_BucketSettings().expected_bucket_owner)


def check_bucket(uri: str) -> None:
    """Raises UserError unless ``uri`` begins with ``s3://`` and the name of a bucket."""
    parts = uri.split("/")
    if not uri.startswith("s3://") or not parts[2]:
        raise UserError(f"{uri} is not of the form s3://bucket/prefix.")
    if not is_bucket(parts[2]):
        raise UserError(
            f"{uri} is not of the form s3://bucket/prefix: {parts[2]!r} is not the name of a bucket, which has 3 to 63 "
            "lower-case letters, digits, dots and hyphens. Put the name of your own bucket there."
        )


def open_store(where: str) -> Store:
    """Opens ``s3://bucket/prefix``, or a folder, which is created if it does not exist."""
    if where.startswith("s3:"):
        check_bucket(where)
        return BucketStore(where, open_buckets())
    if "://" in where:
        raise UserError(f"{masked(where)} is neither an s3:// URI nor a folder.")
    try:
        Path(where).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{where} cannot be used as a folder: {error.strerror}.") from error
    return FolderStore(Path(where))


@contextmanager
def exclusive_lock(path: Path, waiting: str, reporter: Reporter) -> Iterator[None]:
    """Holds the lock file at ``path``, which stays. While another process holds it, the title ``waiting`` is shown."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with reporter.step(waiting):
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Adds the name of a file to an error of the block that has none, as those of writing: a full disk, a limit."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def open_draft(path: Path) -> tuple[int, Path]:
    """Opens a new file in the folder of ``path``. It stays locked while it is open: its writer is alive."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".draft", dir=path.parent)
        except FileNotFoundError:  # another process removed the folder together with its last file
            continue
        with suppress(OSError):  # a file system without locks, on which no draft is ever removed
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, Path(draft)
        os.close(handle)  # another process removed it before it was locked


def remove_abandoned(draft: Path) -> None:
    """Removes a draft that no process holds open."""
    with suppress(OSError), draft.open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        draft.unlink()


def _content_type(name: str) -> str:
    return _CONTENT_TYPES.get(Path(name).suffix, "application/octet-stream")
