"""Pictures into the piles of a folder on this machine: from where they were submitted, or from S3."""

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from jobs.batch.file_names import base_of
from jobs.batch.pile_folder import Content, Occupied, OtherBytes, PileFolder, open_original, pieces_of, read_content
from jobs.batch.pile_list import Entry, Known, Method, State
from jobs.batch.piles import REPLACED, Picture
from jobs.batch.placing import TAKEN, UNREAD, Placement, entry_of, is_by_hand
from jobs.batch.safe_names import with_digest
from jobs.user_error import UserError
from worker.aws.storage import Storage
from worker.errors import ErrorCode, Reject, TwofoldError

#: Of the disk, and not of one picture: nothing else can be written, either.
_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


class FolderPlacer:
    """Copies, links or moves. A file that is not on this machine any more, or has changed, comes from S3."""

    threads = 8

    def __init__(self, target: PileFolder, storage: Storage, *, how: Method, sources: Sequence[str]) -> None:
        """``sources`` are those of the job."""
        self._target = target
        self._storage = storage
        self._how = how
        self._base = _real(base_of(sources))

    def is_done(self, picture: Picture, known: Known) -> bool:
        """Compares the size of the file with the list, and not its bytes."""
        entry = known.entry
        if entry.state is not State.PLACED or not (entry.file == picture.file or is_by_hand(entry)):
            return False
        if picture.sha256 is not None and entry.sha256 != picture.sha256:
            return False
        if self._how is Method.MOVE and entry.how is not Method.MOVE and self._original(picture):
            return False
        if entry.size_bytes is None or self._target.size(entry.file) != entry.size_bytes:
            return False
        picture.pile = entry.file.partition("/")[0]
        return True

    def intent(self, picture: Picture) -> Entry:
        """Names the original, so that a move can be undone."""
        return entry_of(picture, self._how)

    def intended(self) -> None:
        """Makes the name of the list durable."""
        self._target.sync_list()

    def place(self, picture: Picture, _: Entry, known: Known | None) -> Placement:
        """Puts a file into its pile. Raises UserError where nothing more can be written."""
        try:
            found = self._place(picture, known)
            if self._how is Method.MOVE:
                self._let_go(picture, found)
        except Occupied:
            return Placement(problem=f"{picture.file}: {TAKEN}")
        except TwofoldError as error:
            return Placement(problem=error.message)
        except OSError as error:
            if error.errno in _DISK:
                raise UserError(
                    f"{picture.file} cannot be written: {error.strerror}. Run the command again."
                ) from error
            return Placement(problem=f"{picture.file}: {error.strerror}")
        return found

    def finish(self, placements: Iterable[Placement]) -> None:
        """Only when the names of the new files are durable, originals and old places go."""
        self._target.sync()
        for placement in placements:
            if placement.moved is not None and placement.seen is not None:
                _remove_original(placement.moved, placement.seen)
            for file in placement.replaced:
                self._set_aside(file)
            for file in placement.obsolete:
                self._target.remove(file)

    def _place(self, picture: Picture, known: Known | None) -> Placement:
        contents = self._elsewhere(picture, known)
        if self._target.size(picture.file) is not None and not self._is_outdated(picture, known):
            found = self._already_there(picture, known)
        else:
            found = self._moved_over(picture, contents, known) or self._by_hand(picture, known) or self._new(picture)
        entry = found.entry
        if entry is not None:
            other = {file: content for file, content in contents.items() if file != entry.file}
            found.obsolete = tuple(file for file, content in other.items() if content.sha256 == entry.sha256)
            found.replaced = tuple(file for file, content in other.items() if content.sha256 != entry.sha256)
        return found

    def _elsewhere(self, picture: Picture, known: Known | None) -> dict[str, Content]:
        """Returns where else the picture is, by the list."""
        files = [file for file in known.files if file != picture.file] if known else []
        return {file: content for file in files if (content := self._target.content(file)) is not None}

    def _is_outdated(self, picture: Picture, known: Known | None) -> bool:
        """Sets aside what is at the picture's own place if that is the picture before it changed."""
        if known is None or picture.sha256 in {None, known.entry.sha256} or picture.file not in known.files:
            return False
        content = self._target.content(picture.file)
        if content is None or content.sha256 != known.entry.sha256:
            return False
        self._set_aside(picture.file, prune=False)
        return True

    def _already_there(self, picture: Picture, known: Known | None) -> Placement:
        content = self._target.content(picture.file)
        expected = picture.sha256 or (known.entry.sha256 if known else None)
        if content is not None and expected is None:  # it was being placed when the command was killed
            digest = hashlib.sha256()
            for piece in self._pieces(picture):
                digest.update(piece)
            expected = digest.hexdigest()
        if content is None or content.sha256 != expected:
            return Placement(problem=f"{picture.file}: {TAKEN}")
        return Placement(entry=_placed(picture, known.entry.how if known else Method.COPY, content))

    def _moved_over(self, picture: Picture, contents: dict[str, Content], known: Known | None) -> Placement | None:
        for file, content in contents.items():
            if known is not None and picture.sha256 in {None, content.sha256}:
                self._target.move(file, picture.file)
                return Placement(entry=_placed(picture, known.entry.how, content), over=True)
        return None

    def _by_hand(self, picture: Picture, known: Known | None) -> Placement | None:
        """Returns where a person has put a picture since it was placed, if that is another pile."""
        if known is None or known.entry.state is not State.PLACED:
            return None
        for pile in self._target.piles():
            file = f"{pile}/{picture.name}"
            content = self._target.content(file) if pile not in {known.entry.pile, REPLACED} else None
            if content is not None and content.sha256 == (picture.sha256 or known.entry.sha256):
                entry = replace(_placed(picture, known.entry.how, content), pile=known.entry.pile, file=file)
                picture.pile = pile
                return Placement(entry=entry, by_hand=True)
        return None

    def _new(self, picture: Picture) -> Placement:
        original = self._original(picture)
        found = self._from_original(picture, original) if original is not None else None
        if found is not None:
            return found
        try:
            content = self._target.add(picture.file, self._pieces(picture), sha256=picture.sha256)
        except OtherBytes:
            return Placement(problem=f"{picture.source_ref}: not the file that was uploaded")
        return Placement(entry=_placed(picture, Method.COPY, content), new=True, instead=self._how is not Method.COPY)

    def _from_original(self, picture: Picture, original: str) -> Placement | None:
        """Takes the file that was submitted. Returns None if it has changed since."""
        handle = open_original(original)
        if handle is None:
            return None
        like = os.fstat(handle)
        if self._how is not Method.COPY:
            content = read_content(handle)
            if content is None or content.sha256 != picture.sha256:
                return None
            if self._target.link(original, picture.file):
                return Placement(entry=_placed(picture, self._how, content), new=True, seen=like)
            handle = open_original(original)  # it is on another file system, so it is copied
            if handle is None:
                return None
        try:
            content = self._target.add(picture.file, pieces_of(handle), sha256=picture.sha256, like=like)
        except OtherBytes:
            return None
        how = Method.MOVE if self._how is Method.MOVE else Method.COPY
        return Placement(entry=_placed(picture, how, content), new=True, seen=like, instead=self._how is Method.LINK)

    def _let_go(self, picture: Picture, found: Placement) -> None:
        """Marks the original of a file that is in its pile, if it still is that file."""
        original, entry = self._original(picture), found.entry
        if original is None or entry is None:
            return
        if found.seen is None:
            handle = open_original(original)
            seen = None if handle is None else os.fstat(handle)
            content = None if handle is None else read_content(handle)
            if content is None or content.sha256 != entry.sha256:
                return
            found.seen = seen
        found.moved = original
        found.entry = replace(entry, how=Method.MOVE)

    def _original(self, picture: Picture) -> str | None:
        """Returns the path of the file that was submitted, if it is still there, below the folder that was submitted.

        A job's folder says what its files are called. Whoever can write there must not be able to move others.
        """
        path = picture.original
        if path is None or picture.sha256 is None or self._base is None:
            return None
        try:
            if Path(path).is_symlink() or not Path(path).is_file():
                return None
            folder = _real(Path(path).parent)
        except (OSError, ValueError):  # no name of a file
            return None
        return path if folder is not None and folder.is_relative_to(self._base) else None

    def _pieces(self, picture: Picture) -> Iterator[bytes]:
        if picture.unread:
            raise Reject(ErrorCode.BAD_SOURCE_REF, f"{picture.source_ref}: {UNREAD}")
        return self._storage.stream(picture.source_ref, version_id=picture.version_id)

    def _set_aside(self, file: str, *, prune: bool = True) -> None:
        """Keeps what a picture was before it changed, out of the piles."""
        content = self._target.content(file)
        if content is None:
            return
        aside = with_digest(f"{REPLACED}/{file.partition('/')[2]}", content.sha256)
        try:
            self._target.move(file, aside)
        except Occupied:
            if self._target.content(aside) != content:
                raise
        self._target.remove(file, prune=prune)


def _placed(picture: Picture, how: Method, content: Content) -> Entry:
    sha256, size_bytes = content
    return replace(entry_of(picture, how), sha256=sha256, size_bytes=size_bytes, state=State.PLACED)


def _real(folder: Path | None) -> Path | None:
    """Returns a folder without the links on the way to it, or None if it is not there."""
    try:
        return None if folder is None else folder.resolve(strict=True)
    except (OSError, RuntimeError):
        return None


def _remove_original(path: str, seen: os.stat_result) -> None:
    """Removes a file if it is the one that was read, and has not been written to since."""
    try:
        now = os.lstat(path)
    except FileNotFoundError:
        return
    same = (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns)
    if same == (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns):
        Path(path).unlink(missing_ok=True)
