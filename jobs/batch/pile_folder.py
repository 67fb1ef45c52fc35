"""The folder of the piles on this machine: files are added without replacing any, and nothing leads out of it.

Every step of a path is opened without following symbolic links, relative to the folder above it. A file is written next
to the piles, made durable, and linked to its name, which fails if there is one.
"""

import errno
import fcntl
import hashlib
import os
import secrets
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from jobs.batch.pile_list import STEPS
from jobs.printable import printable
from jobs.user_error import UserError

_DRAFTS: Final = ".twofold-drafts"
_PIECE: Final = 1024 * 1024
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: How file systems say that they have no hard links, or none to this place.
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EXDEV, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS})
#: What a path that cannot be walked is: a symbolic link, or a file.
_NO_FOLDER: Final = frozenset({errno.ELOOP, errno.ENOTDIR})


class Occupied(Exception):
    """There is something at the name of a new file."""


class OtherBytes(Exception):
    """The bytes that arrived are not those that were expected."""


class Content(NamedTuple):
    """The bytes of a file."""

    sha256: str
    size_bytes: int


class PileFolder:
    """One folder, which belongs to this process while it is open. Safe to share between threads."""

    def __init__(self, root: Path) -> None:
        """Creates the folder if it is not there. Raises UserError where that cannot be, or another process is at work.

        What a killed process left unfinished is removed.
        """
        self._path = root
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise UserError(f"{root} cannot be used as a folder: {error.strerror}. Choose another --to.") from error
        try:
            fcntl.flock(self._root, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with self._folder((_DRAFTS,), create=True) as drafts, os.scandir(drafts) as left:
                for item in left:
                    os.unlink(item.name, dir_fd=drafts)
            with self._folder((STEPS,), create=True):  # the list goes through paths: no link may lead it elsewhere
                pass
        except BlockingIOError:
            os.close(self._root)
            raise UserError(f"Another command is sorting into {root}. Wait for it, and run this one again.") from None
        except BaseException:
            os.close(self._root)
            raise
        self._lock = threading.Lock()
        self._touched: set[tuple[str, ...]] = set()  #: folders whose entries may not be durable yet

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            for name in (_DRAFTS, STEPS):
                with suppress(OSError):  # not empty: it holds what the next run needs
                    os.rmdir(name, dir_fd=self._root)
        finally:
            os.close(self._root)

    def piles(self) -> list[str]:
        """Returns the folders that are here."""
        with os.scandir(self._root) as items:
            return sorted(item.name for item in items if item.is_dir(follow_symlinks=False) and item.name != _DRAFTS)

    def size(self, file: str) -> int | None:
        """Returns the size of a file, or None where there is none; -1 for what is no file."""
        try:
            with self._parent(file) as (folder, name):
                found = os.lstat(name, dir_fd=folder)
        except FileNotFoundError:
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else -1

    def content(self, file: str) -> Content | None:
        """Returns the digest and the size of a file, or None for what is no file."""
        try:
            with self._parent(file) as (folder, name):
                handle = os.open(name, _READ, dir_fd=folder)
        except OSError as error:
            if error.errno in _NO_FOLDER or isinstance(error, FileNotFoundError):
                return None
            raise
        return read_content(handle)

    def add(
        self, file: str, pieces: Iterable[bytes], *, sha256: str | None = None, like: os.stat_result | None = None
    ) -> Content:
        """Writes a file. With ``like``, it gets the times and the mode of that one.

        Raises Occupied where there is something of that name, OtherBytes unless the digest of the bytes is ``sha256``,
        if that is given, and what ``pieces`` raises. Nothing is there then.
        """
        draft = f"{secrets.token_hex(8)}.draft"
        with self._folder((_DRAFTS,), create=True) as drafts:
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=drafts)
            try:
                content = _write(handle, pieces, like)
                if sha256 not in {None, content.sha256}:
                    raise OtherBytes
                with self._parent(file, create=True) as (folder, name):
                    _place(drafts, draft, folder, name)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(draft, dir_fd=drafts)
        return content

    def link(self, path: str, file: str) -> bool:
        """Gives a file of this machine another name here. Returns False where the file system cannot do that.

        Raises Occupied where there is something of that name.
        """
        with self._parent(file, create=True) as (folder, name):
            return _link(path, name, into=folder)

    def move(self, file: str, to: str) -> None:
        """Gives a file of this folder another name; ``remove`` takes the old one. Raises Occupied."""
        with self._parent(file) as (old, name), self._parent(to, create=True) as (new, new_name):
            _place(old, name, new, new_name)

    def is_same(self, file: str, path: str) -> bool:
        """Returns whether a file here and a path outside are two names of one file."""
        try:
            with self._parent(file) as (folder, name):
                return os.path.samestat(os.lstat(name, dir_fd=folder), os.lstat(path))
        except FileNotFoundError:
            return False

    def give_back(self, file: str, path: str) -> bool:
        """Gives a file of this folder a name outside, too. Returns False where the file system cannot do that.

        Raises FileExistsError where there is something of that name.
        """
        with self._parent(file) as (folder, name):
            try:
                os.link(name, path, src_dir_fd=folder, follow_symlinks=False)
            except OSError as error:
                if error.errno in _NO_LINKS:
                    return False
                raise
        sync_folder(Path(path).parent)
        return True

    def pieces(self, file: str) -> Iterator[bytes]:
        """Yields the bytes of a file."""
        with self._parent(file) as (folder, name):
            handle = os.open(name, _READ, dir_fd=folder)
        yield from pieces_of(handle)

    def stat(self, file: str) -> os.stat_result:
        """Returns the status of a file. Raises FileNotFoundError."""
        with self._parent(file) as (folder, name):
            return os.lstat(name, dir_fd=folder)

    def remove(self, file: str, *, prune: bool = True) -> None:
        """Removes a file, if it is there, and the folders that this leaves empty.

        Not these while other threads add files: they may be about to use one.
        """
        steps = file.split("/") if prune else []
        with suppress(FileNotFoundError), self._parent(file) as (folder, name):
            os.unlink(name, dir_fd=folder)
        for count in range(len(steps) - 1, 0, -1):
            with suppress(OSError), self._folder(tuple(steps[: count - 1])) as above:  # not empty, or gone already
                os.rmdir(steps[count - 1], dir_fd=above)

    def sync(self) -> None:
        """Makes the names of all new files durable: only then may their originals go."""
        with self._lock:
            touched, self._touched = self._touched, set()
        for above in {steps[:count] for steps in touched for count in range(len(steps) + 1)}:
            with suppress(FileNotFoundError), self._folder(above) as folder:
                os.fsync(folder)

    def sync_list(self) -> None:
        """Makes the names of the files of the list durable."""
        with self._folder((STEPS,)) as folder:
            os.fsync(folder)
        os.fsync(self._root)

    @contextmanager
    def _parent(self, file: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
        *steps, name = file.split("/")
        if create:
            with self._lock:
                self._touched.add(tuple(steps))
        with self._folder(tuple(steps), create=create) as folder:
            yield folder, name

    @contextmanager
    def _folder(self, steps: tuple[str, ...], *, create: bool = False) -> Iterator[int]:
        """Opens a folder below the root. Raises UserError where a step of the path is a link or a file."""
        handle = os.dup(self._root)
        try:
            for step in steps:
                inner = self._step(handle, step, steps, create=create)
                os.close(handle)
                handle = inner
            yield handle
        finally:
            os.close(handle)

    def _step(self, folder: int, step: str, steps: tuple[str, ...], *, create: bool) -> int:
        while True:
            try:
                return os.open(step, _FOLDER, dir_fd=folder)
            except FileNotFoundError:
                if not create:
                    raise
                with suppress(FileExistsError):
                    os.mkdir(step, 0o755, dir_fd=folder)
            except OSError as error:
                if error.errno not in _NO_FOLDER:
                    raise
                where = printable(str(self._path.joinpath(*steps)))
                raise UserError(
                    f"{where}: {printable(step)} is not a folder, or a link to one. Links are not followed out of "
                    f"{printable(str(self._path))}. Remove it, or choose another --to."
                ) from None


def read_content(handle: int) -> Content | None:
    """Reads an open file to its end and closes it. Returns None for what is no file."""
    digest, size = hashlib.sha256(), 0
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        return None
    for piece in pieces_of(handle):
        digest.update(piece)
        size += len(piece)
    return Content(digest.hexdigest(), size)


def open_original(path: str) -> int | None:
    """Opens a file of this machine, or returns None for what is no file; a link is none."""
    try:
        return os.open(path, _READ)
    except (OSError, ValueError):
        return None


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def pieces_of(handle: int) -> Iterator[bytes]:
    """Yields the bytes of an open file, and closes it."""
    with os.fdopen(handle, "rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _write(handle: int, pieces: Iterable[bytes], like: os.stat_result | None) -> Content:
    digest, size = hashlib.sha256(), 0
    with os.fdopen(handle, "wb") as file:
        for piece in pieces:
            file.write(piece)
            digest.update(piece)
            size += len(piece)
        file.flush()
        os.fchmod(handle, 0o644 if like is None else stat.S_IMODE(like.st_mode) & 0o777)
        if like is not None:
            os.utime(handle, ns=(like.st_atime_ns, like.st_mtime_ns))
        os.fsync(handle)  # or the name could survive a power cut without the bytes
    return Content(digest.hexdigest(), size)


def _link(source: str, name: str, *, into: int, out_of: int | None = None) -> bool:
    try:
        os.link(source, name, src_dir_fd=out_of, dst_dir_fd=into, follow_symlinks=False)
    except FileExistsError:
        raise Occupied from None
    except OSError as error:
        if error.errno in _NO_LINKS:
            return False
        raise
    return True


def _place(drafts: int, draft: str, folder: int, name: str) -> None:
    """Gives a complete file its name. Raises Occupied where there is something of that name."""
    if _link(draft, name, into=folder, out_of=drafts):
        return
    # A file system without hard links, as on many USB sticks. No other command is at work in this folder.
    try:
        os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        os.rename(draft, name, src_dir_fd=drafts, dst_dir_fd=folder)
    else:
        raise Occupied
