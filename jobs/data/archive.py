"""Unpacking of zip and tar archives that may be hostile.

This does not use extractall, whose filters have been bypassed (CVE-2025-4517): a dataset needs no links, modes or
owners. The bytes of each member go to a numbered file, ``0000/000``, ``0000/001`` and so on. The name of a member is
never used as a path.

    an absolute name, or one with ".."     the archive is refused; no dataset has such names
    a symbolic link, a device              left out, and listed in quarantine.csv
    a hard link to an earlier member       the same file again
    the same name twice                    the last one counts, as it would on disk
"""

import errno
import json
import lzma
import re
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jobs.data.class_folders import Listing, SourceFile, is_ignored
from jobs.data.dataset import DatasetCode, Reason
from jobs.data.members import Limits, Member, Readable, members, ref_of
from jobs.progress import Reporter
from jobs.store import exclusive_lock, naming
from jobs.user_error import UserError

_INDEX: Final = "index.json"
_FILES_PER_FOLDER: Final = 1000
_CHUNK_BYTES: Final = 1024**2


def unpack(archive: Path, folder: Path, where: str, reporter: Reporter, *, limits: Limits | None = None) -> Listing:
    """Unpacks to ``folder``, which is complete or absent. Does nothing if an earlier job has unpacked the archive.

    Raises UserError if the file is not an archive, or is damaged, encrypted, hostile or over ``limits``.
    """
    lock = folder.with_name(f"{folder.name}.lock")
    with exclusive_lock(lock, "Waiting for another job to unpack the same archive", reporter):
        if (known := find_unpacked(folder, where)) is not None:
            return known
        draft = folder.with_name(f"{folder.name}.draft")
        for leftover in (draft, folder):  # of a job that was killed, or a folder that has lost a file
            shutil.rmtree(leftover, ignore_errors=True)
        try:
            _write_index(draft, *_copy_all(archive, draft, where, reporter, limits or Limits()))
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        done = find_unpacked(folder, where)
    if done is None:
        raise UserError(f"{folder} was changed by another program. Run the same command again.")
    return done


def _copy_all(
    archive: Path, draft: Path, where: str, reporter: Reporter, limits: Limits
) -> tuple[dict[str, SourceFile], set[str]]:
    files: dict[str, SourceFile] = {}
    folders: set[str] = set()
    total = archive.stat().st_size
    with (
        archive.open("rb") as stream,
        reporter.step(f"Unpacking {where}", total=total, in_bytes=True) as advance,
        _explained(where) as place,
    ):
        done = 0
        for number, member in enumerate(members(stream, where, limits)):
            ref = ref_of(member.name)
            if ref is None and not (member.is_folder and member.name.strip("/") in ("", ".")):
                raise UserError(f"{where} is refused: its member {member.name[:200]!r} has a name that leads outside.")
            if ref is None or is_ignored(ref):
                continue
            place.member = ref
            if member.is_folder:
                folders.add(ref)
            else:
                target = draft / f"{number // _FILES_PER_FOLDER:04d}" / f"{number % _FILES_PER_FOLDER:03d}"
                files[ref] = _copy(member, ref, target, files)
            position = stream.tell()
            advance(max(0, position - done))
            done = max(done, position)
    return files, folders


def _copy(member: Member, ref: str, target: Path, files: dict[str, SourceFile]) -> SourceFile:
    if member.open is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        source: Readable = member.open()
        with target.open("xb") as file:
            while data := source.read(_CHUNK_BYTES):
                with naming(target):
                    file.write(data)
        return SourceFile(ref, target)
    if member.link is not None:
        earlier = files.get(ref_of(member.link) or "")
        if earlier is not None:
            return SourceFile(ref, earlier.path, earlier.reason)
    what = member.what or "a hard link to a file that is not in the archive"
    return SourceFile(ref, target, Reason(DatasetCode.NOT_A_FILE, f"{what}; archive the file itself"))


#: What the libraries raise for hostile bytes, as found by fuzzing.
_DAMAGE: Final = (
    EOFError,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    struct.error,
    ValueError,
    LookupError,
    ArithmeticError,
    RuntimeError,
)


#: How the libraries word damage, and what to say instead. The first match counts.
_WORDS: Final = (
    ("not a zip file|end-of-stream|central directory|Truncated", "its end is missing"),
    ("CRC", "its checksum is wrong"),
    ("Error -[0-9]+ while decompressing|Not a gzipped|invalid (block|code|distance)", "its compressed data is broken"),
)


@dataclass
class _Place:
    """Where the reading of an archive has come to."""

    where: str
    member: str = ""

    def damaged(self, error: Exception) -> UserError:
        words = next((said for form, said in _WORDS if re.search(form, str(error))), str(error))
        last = f" The damage is at {self.member} or behind it." if self.member else ""
        return UserError(f"{self.where} is damaged or incomplete: {words}.{last} Create or download it again.")


@contextmanager
def _explained(where: str) -> Iterator[_Place]:
    place = _Place(where)
    try:
        yield place
    except NotImplementedError as error:
        raise UserError(f"{where} uses an unsupported compression: {error}. Pack it with deflate.") from error
    except _DAMAGE as error:
        raise place.damaged(error) from error
    except OSError as error:
        # bz2 gives no number, and EINVAL means an offset before the start of the file. Any other may be a full disk.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise place.damaged(error) from error


def _write_index(folder: Path, files: dict[str, SourceFile], folders: set[str]) -> None:
    listed = [
        {"ref": file.ref, "why": file.reason.message}
        if file.reason
        else {"ref": file.ref, "name": file.path.relative_to(folder).as_posix(), "size": file.path.stat().st_size}
        for file in files.values()
    ]
    folder.mkdir(exist_ok=True)  # an archive can be empty
    (folder / _INDEX).write_text(json.dumps({"folders": sorted(folders), "files": listed}))


def find_unpacked(folder: Path, where: str) -> Listing | None:
    """Returns what was unpacked to ``folder``, or None if nothing was or a file has changed since."""
    try:
        index = json.loads((folder / _INDEX).read_text())
        files = []
        for item in index["files"]:
            if "why" in item:
                files.append(SourceFile(item["ref"], folder, Reason(DatasetCode.NOT_A_FILE, item["why"])))
                continue
            path = folder / item["name"]
            if path.stat().st_size != item["size"]:
                return None
            files.append(SourceFile(item["ref"], path))
        return Listing.of(where, files, index["folders"])
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError):
        return None
