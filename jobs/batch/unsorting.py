"""The undoing of a sort that moved files or tagged objects: everything is again where it was, and as it was."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from jobs import output_file
from jobs.batch.pile_folder import PileFolder, open_original, read_content, sync_folder
from jobs.batch.pile_list import FILE, Entry, Known, Method, PileList, State
from jobs.batch.s3_objects import S3Objects
from jobs.batch.s3_placers import TAG, tag_value
from jobs.batch.sorting import Unplaced
from jobs.progress import Reporter
from jobs.store import FolderStore
from jobs.user_error import UserError
from worker.batch.job_folder import UPLOADS
from worker.errors import TwofoldError

_BATCH: Final = 500
#: The digest of a file is in the name that it was uploaded to.
_UPLOADED: Final = re.compile(rf"/{UPLOADS}/([0-9a-f]{{64}})/")


class Unsorted(BaseModel):
    """What was undone."""

    restored: int = 0
    already_there: int = 0  #: an earlier run has restored them
    kept: int = 0  #: copies and links, whose originals were never touched
    unplaced: list[Unplaced] = []


def folder_of(path: Path) -> Path:
    """Returns the folder of a list. Raises UserError for another file, or where there is no list."""
    folder = path if path.is_dir() else path.parent
    if path.is_dir() or path.name == FILE:
        if (folder / FILE).is_file():
            return folder
        raise UserError(f"There is no {FILE} in {folder}. Name the one that 'batch sort' wrote.")
    raise UserError(f"{path} is not a list that 'batch sort' wrote: it is called {FILE}.")


def undo(folder: Path, objects: Callable[[], S3Objects], reporter: Reporter) -> Unsorted:
    """Puts files and tags back. Run it again if it is killed. ``objects`` opens S3, where tags are to be undone.

    What cannot be put back is counted with its reason, and the rest goes on.
    """
    found = Unsorted()
    with PileFolder(folder) as target:
        known = PileList(FolderStore(folder))
        pending = [one for one in known if one.entry.how in {Method.MOVE, Method.TAG}]
        found.kept = sum(1 for _ in known) - len(pending)
        s3 = objects() if any(one.entry.how is Method.TAG for one in pending) else None
        with reporter.step("Undoing", total=len(pending)) as advance:
            for start in range(0, len(pending), _BATCH):
                batch = pending[start : start + _BATCH]
                for one in batch:
                    _undo(one, target, s3, known, found)
                known.intend([])
                advance(len(batch))
        known.finish()
        if all(one.entry.state is State.REMOVED for one in known):
            (folder / FILE).unlink()
    return found


def _undo(one: Known, target: PileFolder, s3: S3Objects | None, known: PileList, found: Unsorted) -> None:
    entry = one.entry
    try:
        again = _untag(entry, s3) if s3 is not None and entry.how is Method.TAG else _move_back(one, target)
    except TwofoldError as error:
        found.unplaced.append(Unplaced(picture=entry.source_ref, reason=error.message))
        return
    except (UserError, OSError) as error:
        reason = (error.strerror if isinstance(error, OSError) else str(error)) or "cannot be restored"
        found.unplaced.append(Unplaced(picture=entry.original or entry.source_ref, reason=reason))
        return
    found.restored += not again
    found.already_there += again
    known.settle(replace(entry, state=State.REMOVED))


def _move_back(one: Known, target: PileFolder) -> bool:
    """Gives a file the name that it had. Returns whether it has it already. Raises UserError if it cannot be."""
    path = one.entry.original or ""
    files = _files_of(one, target)
    handle = open_original(path)
    if handle is not None:
        there = read_content(handle)
        same = [file for file in files if target.content(file) == there]
        if files and not same:
            raise UserError("another file has its name now, so it stays in its pile")
        for file in same:  # killed between its new name and the end of the old one
            target.remove(file)
        return True
    if os.path.lexists(path):
        raise UserError("its name is taken by what is no file, so it stays in its pile")
    if not files:
        raise UserError("it is neither where it was nor in its pile")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if not target.give_back(files[0], path):
        _copy_back(files[0], path, target)
    for file in files:
        target.remove(file)
    return False


def _files_of(one: Known, target: PileFolder) -> list[str]:
    """Returns where a picture is in the piles, also if a person has put it into another one, or changed it there."""
    entry = one.entry
    uploaded = _UPLOADED.search(entry.source_ref)
    wanted = uploaded[1] if uploaded else entry.sha256
    name = entry.file.partition("/")[2]
    files = dict.fromkeys([*one.files, *(f"{pile}/{name}" for pile in target.piles())])
    contents = ((file, target.content(file)) for file in files)
    return [
        file
        for file, content in contents
        if content and (content.sha256 == wanted or (file == entry.file and entry.state is State.PLACED))
    ]


def _copy_back(file: str, path: str, target: PileFolder) -> None:
    """Copies a file to another file system, with its mode and times."""
    status = target.stat(file)
    with output_file.writing(Path(path), force=False) as draft:
        for piece in target.pieces(file):
            draft.write(piece)
    Path(path).chmod(status.st_mode & 0o777)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    sync_folder(Path(path).parent)


def _untag(entry: Entry, s3: S3Objects) -> bool:
    """Takes the tag away again, or restores the one of that name that there was. Tags added since stay."""
    before = json.loads(entry.tags or "{}")
    tags = s3.tags(entry.source_ref, version_id=entry.version_id)
    if tags.get(TAG) != tag_value(entry.pile):
        return True
    wanted = {name: value for name, value in tags.items() if name != TAG}
    if TAG in before:
        wanted[TAG] = before[TAG]
    s3.set_tags(entry.source_ref, wanted, version_id=entry.version_id)
    return False
