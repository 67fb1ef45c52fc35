"""A zip or tar archive to files of our own names, and what they are called in it.

Never extractall: its filters have been escaped (CVE-2025-4517), and a dataset needs no links, modes or owners. Member
by member the bytes go to ``0000/000``, ``0000/001`` and so on; a name in the archive is only ever text.

    an absolute name, or one with ".."     no dataset has these: the archive is refused
    a symbolic link, a device              left out, and listed in quarantine.csv
    a hard link to an earlier member       that file again
    the same name twice                    the last one counts, as it does on disk
"""

import errno
import json
import lzma
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from jobs.data.class_folders import Listing, SourceFile, is_ignored
from jobs.data.dataset import DatasetCode, Reason
from jobs.data.members import Limits, Member, Readable, members, ref_of
from jobs.progress import Reporter
from jobs.store import alone
from jobs.user_error import UserError

_INDEX: Final = "index.json"
_A_FOLDER: Final = 1000  #: files
_CHUNK_BYTES: Final = 1024**2


def unpack(archive: Path, folder: Path, where: str, reporter: Reporter, *, limits: Limits | None = None) -> Listing:
    """Unpacks to ``folder``, unless that was done before: it is there whole or not at all.

    Raises UserError for what is no archive, damaged, encrypted, hostile or over ``limits``.
    """
    with alone(folder.with_name(f"{folder.name}.lock"), "unpacking the same", reporter):
        if (known := find_unpacked(folder, where)) is not None:
            return known
        draft = folder.with_name(f"{folder.name}.draft")
        for left_over in (draft, folder):  # of a job that was killed, or that lost a file since
            shutil.rmtree(left_over, ignore_errors=True)
        try:
            _write_index(draft, *_copy_all(archive, draft, where, reporter, limits or Limits()))
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        done = find_unpacked(folder, where)
    if done is None:
        raise UserError(f"{folder} changed while it was written. Run the same command again.")
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
        _explained(where),
    ):
        done = 0
        for number, member in enumerate(members(stream, where, limits)):
            ref = ref_of(member.name)
            if ref is None and not (member.is_folder and member.name.strip("/") in ("", ".")):
                raise UserError(f"{where} is refused: its member {member.name[:200]!r} has a name that leads outside.")
            if ref is None or is_ignored(ref):
                continue
            if member.is_folder:
                folders.add(ref)
            else:
                target = draft / f"{number // _A_FOLDER:04d}" / f"{number % _A_FOLDER:03d}"
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
                file.write(data)
        return SourceFile(ref, target)
    if member.link is not None:
        earlier = files.get(ref_of(member.link) or "")
        if earlier is not None:
            return SourceFile(ref, earlier.path, earlier.reason)
    what = member.what or "a hard link to what is not in the archive"
    return SourceFile(ref, target, Reason(DatasetCode.NOT_A_FILE, f"{what}; archive the file itself"))


#: What the libraries raise over hostile bytes, as fuzzing shows.
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


@contextmanager
def _explained(where: str) -> Iterator[None]:
    try:
        yield
    except NotImplementedError as error:
        raise UserError(f"{where} is packed in a way that is not known here: {error}. Pack it with deflate.") from error
    except _DAMAGE as error:
        raise UserError(f"{where} is damaged or breaks off: {error}. Make or download it again.") from error
    except OSError as error:
        # bz2 gives no number, and EINVAL is a place before the start of the file; others are a full disk and the like.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise UserError(f"{where} is damaged: {error}. Make or download it again.") from error


def _write_index(folder: Path, files: dict[str, SourceFile], folders: set[str]) -> None:
    listed = [
        {"ref": file.ref, "why": file.reason.message}
        if file.reason
        else {"ref": file.ref, "name": file.path.relative_to(folder).as_posix(), "size": file.path.stat().st_size}
        for file in files.values()
    ]
    folder.mkdir(exist_ok=True)  # there may be no file at all
    (folder / _INDEX).write_text(json.dumps({"folders": sorted(folders), "files": listed}))


def find_unpacked(folder: Path, where: str) -> Listing | None:
    """What was unpacked to ``folder``; None where that was not done, or a file is not what it was."""
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
