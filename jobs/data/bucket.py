"""Objects of a bucket as local files: every object under a prefix, single objects, or one large object.

An object is cached under a name made of its URI, size and entity tag. A changed object gets another name, and an
unchanged one is not read again.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

from jobs.data.class_folders import Listing, SourceFile, is_ignored
from jobs.data.dataset import Reason
from jobs.data.download import FileVersion, RemoteStream
from jobs.progress import Reporter
from jobs.user_error import UserError
from worker.aws.storage import Listed, Storage
from worker.errors import ErrorCode, Reject, Retry
from worker.scoring.limits import MAX_BYTES

#: Threads that read. They wait for the network, and each holds one object in memory.
_READERS: Final = 32
#: Objects given to the readers at once, so that a million objects are not a million tasks.
_BATCH: Final = 1024
_RANGE_BYTES: Final = 8 * 1024**2
_RANGES: Final = 8

_Item = TypeVar("_Item")
#: A local copy, or why there is none.
Copy = tuple[Path, Reason | None]


def read_prefix(prefix_uri: str, folder: Path, storage: Storage, reporter: Reporter) -> Listing:
    """Copies all objects whose URI begins with ``prefix_uri``, which ends with a slash, to files in ``folder``.

    An object that can never be read is listed with its reason. Raises UserError if storage is unavailable; the files
    copied so far are kept.
    """
    with reporter.step(f"Listing {prefix_uri}"):
        listed = [item for item in storage.list(prefix_uri) if item.uri != prefix_uri]
    names = {item.uri: item.uri[len(prefix_uri) :] for item in listed}
    folders = [name.rstrip("/") for name in names.values() if name.endswith("/")]  # as the S3 console creates them
    wanted = [item for item in listed if not names[item.uri].endswith("/") and not is_ignored(names[item.uri])]
    copies = _copy_all(wanted, lambda item: _read(item, folder, storage), f"Reading {prefix_uri}", reporter)
    files = [SourceFile(names[item.uri], path, reason) for item, (path, reason) in zip(wanted, copies, strict=True)]
    return Listing.of(prefix_uri, files, folders)


def read_objects(
    uris: Iterable[str], folder: Path, storage: Storage, reporter: Reporter, *, title: str
) -> dict[str, Copy]:
    """Copies single objects to files in ``folder``, under the names that ``read_prefix`` gives them.

    Each takes one request, and the permission s3:GetObject alone. Otherwise as ``read_prefix``.
    """
    wanted = sorted(set(uris))
    copies = _copy_all(wanted, lambda uri: _refresh(uri, folder, storage), title, reporter)
    return dict(zip(wanted, copies, strict=True))


def _copy_all(items: list[_Item], copy: Callable[[_Item], Copy], title: str, reporter: Reporter) -> list[Copy]:
    copies = []
    with reporter.step(title, total=len(items)) as advance, ThreadPoolExecutor(_READERS) as pool:
        remaining = iter(items)
        while batch := list(islice(remaining, _BATCH)):
            for done in pool.map(copy, batch):
                copies.append(done)
                advance(1)
    return copies


def _read(item: Listed, folder: Path, storage: Storage) -> Copy:
    path = _path(item.uri, item.size_bytes, item.etag, folder)
    if item.size_bytes > MAX_BYTES:
        return path, Reason(ErrorCode.TOO_MANY_BYTES, f"{item.size_bytes:,} bytes, over {MAX_BYTES:,}")
    if item.etag and path.exists() and path.stat().st_size == item.size_bytes:
        return path, None
    try:
        body = storage.read(item.uri, max_bytes=MAX_BYTES, etag=item.etag)
    except Reject as error:
        return path, Reason(error.code, error.message)
    except Retry as error:
        raise _resumable(error) from error
    _write(path, body)
    return path, None


def _refresh(uri: str, folder: Path, storage: Storage) -> Copy:
    """Reads an object unless the copy that was made last is still of its entity tag."""
    name = hashlib.sha256(uri.encode()).hexdigest()
    noted = folder / "tags" / name[:2] / name  # the path and the entity tag of that copy
    known, path = _noted(noted, folder)
    try:
        found = storage.read_if_changed(uri, max_bytes=MAX_BYTES, known=known)
    except Reject as error:
        return path, Reason(error.code, error.message)
    except Retry as error:
        raise _resumable(error) from error
    if found is not None:
        body, etag = found
        path = _path(uri, len(body), etag, folder)
        _write(path, body)
        if etag:
            _write(noted, json.dumps([etag, len(body), path.relative_to(folder).as_posix()]).encode())
    return path, None


def _noted(file: Path, folder: Path) -> tuple[str | None, Path]:
    try:
        etag, size_bytes, name = json.loads(file.read_bytes())
        path = folder / name
        return (etag if path.stat().st_size == size_bytes else None), path
    except (FileNotFoundError, ValueError, TypeError):
        return None, folder


def _path(uri: str, size_bytes: int, etag: str | None, folder: Path) -> Path:
    name = hashlib.sha256(f"{uri}\n{size_bytes}\n{etag}".encode()).hexdigest()
    return folder / name[:2] / name


def _write(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(body)
    Path(temporary).rename(path)


def _resumable(error: Retry) -> UserError:
    return UserError(f"{error.message}. Finished files are kept: run the same command again to resume.")


class LargeObject:
    """A ``RemoteFile`` in a bucket, read in ranges, several at a time."""

    def __init__(self, uri: str, storage: Storage) -> None:
        self.where = uri
        self._storage = storage

    def is_still(self, version: FileVersion) -> bool:
        """Compares the version with the one in a listing."""
        return self._version() == version

    @contextmanager
    def open(self, start: int, version: FileVersion | None) -> Iterator[RemoteStream]:
        """Opens the object at ``start`` if its size and entity tag are the same, and at 0 otherwise."""
        now = self._version()
        first = start if version == now else 0
        with ThreadPoolExecutor(_RANGES) as pool:
            yield RemoteStream(now, first, self._ranges(now, first, pool))

    def _version(self) -> FileVersion:
        for item in self._storage.list(self.where):
            if item.uri == self.where:
                return FileVersion(etag=item.etag, size_bytes=item.size_bytes)
        raise UserError(f"{self.where}: no such object. Check the bucket and the key.")

    def _ranges(self, version: FileVersion, first: int, pool: ThreadPoolExecutor) -> Iterator[bytes]:
        size = version.size_bytes or 0

        def read(start: int) -> bytes:
            end = min(start + _RANGE_BYTES, size)
            return self._storage.read_range(self.where, start=start, end=end, etag=version.etag)

        # Only a few ranges ahead of the disk: an archive can be larger than memory.
        step = _RANGES * _RANGE_BYTES
        for begin in range(first, size, step):
            yield from pool.map(read, range(begin, min(begin + step, size), _RANGE_BYTES))
