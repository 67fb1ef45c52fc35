"""The images that a labelled list names, as local files.

    photos/1.jpg          below the folder of the list, on this machine or in its bucket
    /data/photos/1.jpg    on this machine, if the list is on it too
    s3://shelter/1.jpg    an object, cached by its entity tag

A name that leads to no file costs its own line, and not the list: the image is left out with its reason.
"""

import posixpath
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jobs.data import bucket, sources
from jobs.data.class_folders import SourceFile
from jobs.data.dataset import DatasetCode, Reason
from jobs.data.sources import ListFile
from jobs.labelled_list import LabelledLine, read_labelled_list
from jobs.progress import Reporter
from jobs.store import open_buckets
from worker.errors import ErrorCode

_S3: Final = "s3://"
_NO_FILE: Final = Reason(ErrorCode.NOT_FOUND, "there is no such file")


@dataclass(frozen=True)
class LabelSource:
    """The lines of a labelled list that have a label, each pair of name and label once."""

    file: ListFile
    lines: list[LabelledLine]
    undecided: int  #: lines without a label

    @classmethod
    def of(cls, file: ListFile, reporter: Reporter) -> "LabelSource":
        """Reads the list. Raises UserError, with the number of the line, if it is not one."""
        with reporter.step(f"Listing {file.where}"):
            lines = read_labelled_list(file.body, where=file.where)
        decided = [line for line in lines if line.label is not None]
        # The last of several equal lines, but one that was reviewed before one that was not.
        unique = {(line.source_ref, line.label): line for line in sorted(decided, key=_was_reviewed)}
        return cls(file, list(unique.values()), len(lines) - len(decided))

    @property
    def where(self) -> str:
        """The list, as a message may show it."""
        return self.file.where

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that it names, in alphabetical order."""
        return tuple(sorted({line.label for line in self.lines if line.label is not None}))

    def locate(self, cache: Path, reporter: Reporter) -> list[tuple[LabelledLine, SourceFile]]:
        """Returns the file of each line, in the order of the names. Objects are copied to the folder ``cache``.

        Raises UserError if storage is unavailable.
        """
        ordered = sorted(self.lines, key=lambda line: (line.source_ref.split("/"), line.label))
        places = [_place(line.source_ref, self.file.folder) for line in ordered]
        copies = self._copy([place for place in places if isinstance(place, str)], cache, reporter)
        found = []
        with reporter.step(f"Finding the images of {self.where}", total=len(ordered)) as advance:
            for line, place in zip(ordered, places, strict=True):
                found.append((line, _source_file(line.source_ref, copies[place] if isinstance(place, str) else place)))
                advance(1)
        return found

    def _copy(self, uris: list[str], cache: Path, reporter: Reporter) -> dict[str, bucket.Copy]:
        if not uris:
            return {}
        return bucket.read_objects(uris, cache, open_buckets(), reporter, title=f"Reading the images of {self.where}")


def files_of(data: str, cache: Path, reporter: Reporter) -> list[Path]:
    """Returns the files of any source, as far as they can be read. Raises what ``open_source`` and ``open_list`` do."""
    if sources.is_list(data):
        listed = LabelSource.of(sources.open_list(data, cache, reporter), reporter)
        files = [file for _, file in listed.locate(cache / "objects", reporter)]
    else:
        files = sources.open_source(data, cache, reporter).files
    return [file.path for file in files if file.reason is None]


def _was_reviewed(line: LabelledLine) -> bool:
    return line.reviewed_at is not None


def _place(ref: str, folder: str | None) -> Path | str | Reason:
    """Returns the path or the URI that a name of a list leads to, or why it leads nowhere."""
    if ref.startswith(_S3):
        return ref
    if "://" in ref:
        return Reason(ErrorCode.BAD_SOURCE_REF, "neither an s3:// URI nor the name of a file")
    if folder is None:
        return Reason(ErrorCode.BAD_SOURCE_REF, "a list on the web can name only s3:// URIs")
    if not folder.startswith(_S3):
        return Path(folder) / ref
    name, _, prefix = folder.removeprefix(_S3).partition("/")
    key = posixpath.normpath(posixpath.join(prefix, ref))
    if ref.startswith("/") or key == ".." or key.startswith("../"):
        return Reason(ErrorCode.BAD_SOURCE_REF, "a list in a bucket can name only objects")
    return f"{_S3}{name}/{key}"


def _source_file(ref: str, place: bucket.Copy | Path | Reason) -> SourceFile:
    if isinstance(place, tuple):
        return SourceFile(ref, *place)
    if isinstance(place, Reason):
        return SourceFile(ref, Path(), place)
    return SourceFile(ref, place, _unusable(place))


def _unusable(path: Path) -> Reason | None:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return _NO_FILE
    except ValueError:  # a name that no file can have
        return _NO_FILE
    except OSError as error:
        return Reason(ErrorCode.ACCESS_DENIED, f"cannot be read: {error.strerror}")
    if stat.S_ISREG(mode):
        return None
    return Reason(DatasetCode.NOT_A_FILE, "a folder" if stat.S_ISDIR(mode) else "a device or a pipe")
