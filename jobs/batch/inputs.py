"""The sources of a job: manifests and prefixes in storage, and manifests and images on this machine.

    s3://bucket/list.csv, list.jsonl.gz, manifest.json   every format of worker.manifest.references
    s3://bucket/prefix/                                  every object below it
    list.csv                                             the same formats, on this machine
    pets/, rex.jpg                                       images on this machine

Images on this machine get a URI that follows from their content, and are uploaded when the job is submitted.
"""

import hashlib
import shlex
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, NamedTuple

from jobs.batch.file_names import find_file, is_file, name_in, own_name, renamed
from jobs.batch.image_files import NOT_AN_IMAGE, UNREADABLE, begins_as_image, has_image_suffix, oversize, unfit
from jobs.batch.tally import Tally, in_words
from jobs.printable import printable
from jobs.progress import Advance
from jobs.user_error import UserError
from worker.aws.storage import Storage
from worker.batch.job_folder import MISSING_UPLOADS, UPLOADS
from worker.contract import ManifestRef, NamedFiles
from worker.errors import Reject
from worker.manifest.formats import ImageRef
from worker.manifest.references import EXPECTED, Opener, of_file, references

#: Why a name of a list gets a row with an error code, as people read it.
MISSING: Final = "not there"
#: Why a redrive would get the same answer for a file.
GONE: Final = "no longer there"
STILL_MISSING: Final = "still not there"
_UNCHANGED: Final = "not replaced yet"
_NO_IMAGE: Final = "neither a file nor an s3:// URI"

_HIDDEN: Final = "hidden"
_EXCLUDED: Final = "left out by --exclude"
_NOT_INCLUDED: Final = "not among --include"
_LINKED_FOLDER: Final = "a link to a folder (submit that folder as well)"
_NOT_A_FILE: Final = "not a file"

_PIECE: Final = 1024 * 1024
_UPLOADERS: Final = 8


@dataclass(frozen=True)
class Patterns:
    """Which names of a listing to take: any of ``include`` but not ``exclude``. ``*`` also matches slashes."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def refuse(self, name: str) -> str | None:
        """Returns why ``name`` is left out, or None. It is relative to the prefix or folder that is listed."""
        if self.include and not any(fnmatchcase(name, pattern) for pattern in self.include):
            return _NOT_INCLUDED
        return _EXCLUDED if any(fnmatchcase(name, pattern) for pattern in self.exclude) else None


class Again(NamedTuple):
    """An image that is asked for again."""

    uri: str
    same: str | None = None  #: why its file is as it was; None: it has changed, or is not on this machine
    was_missing: bool = False  #: whether a list named it, and it was not there


@dataclass
class Inputs:
    """Reads sources, and collects the files to upload."""

    storage: Storage
    output_uri: str
    patterns: Patterns = field(default_factory=Patterns)
    #: The folder that names of files are relative to, for all sources of the job (jobs.batch.file_names).
    base: Path | None = None
    files: dict[str, Path] = field(default_factory=dict)  #: by the URI that each one gets
    skipped: Tally = field(default_factory=Tally)  #: of folders and prefixes: they have no row
    unusable: Tally = field(default_factory=Tally)  #: of lists on this machine: their rows will have an error code

    def references(self, source: str) -> Iterator[ImageRef]:
        """Yields the images of a source in its order. Raises UserError or Reject when it is not a source."""
        if source.startswith("s3://"):
            refs = references(ManifestRef(uri=source), opener=self._open, lister=self._list)
            return refs if self.base is None else (ref._replace(columns=renamed(ref.columns)) for ref in refs)
        path = Path(source)
        if path.is_dir():
            return self._of_folder(path)
        if not path.is_file():
            raise UserError(f"{printable(source)} is not a file, a folder or an s3:// URI.")
        reason = unfit(path)
        if reason is None:
            return iter([self._of_image(path, self._name(path.parent, path.name))])
        if reason not in (NOT_AN_IMAGE, UNREADABLE):
            raise UserError(f"{printable(source)} is {reason}.")
        return self._of_manifest(path)

    def upload_bytes(self) -> int:
        """Returns the size of all files, of which some may be uploaded already."""
        return sum(path.stat().st_size for path in self.files.values())

    def repaired(self, uri: str, file: str, sources: Sequence[str]) -> Again:
        """Returns the URI of an image as it is now: a new one if its file on this machine was replaced.

        ``file`` is its name in a job with these ``sources``.
        """
        if not file or not uri.startswith(f"{self.output_uri.rstrip('/')}/{UPLOADS}/"):
            return Again(uri)
        was_missing = uri.startswith(self._missing_prefix)
        path = find_file(sources, file)
        reason = unfit(path) if path else STILL_MISSING if was_missing else GONE
        if path is None or reason:
            return Again(uri, reason, was_missing)
        new = self._of_image(path, file).source_ref
        return Again(new, _UNCHANGED if new == uri else None, was_missing)

    def upload(self, advance: Advance) -> int:
        """Uploads every file that is not there yet, and returns how many were uploaded."""

        def put(item: tuple[str, Path]) -> bool:
            uri, path = item
            if self.storage.metadata(uri) is not None:
                return False
            body = _read(path)
            if hashlib.sha256(body).hexdigest() != uri.split("/")[-2]:
                raise UserError(f"{path} changed while it was being read. Run the command again.")
            return self.storage.write_once(uri, body, content_type="application/octet-stream", metadata={})

        sent = 0
        with ThreadPoolExecutor(_UPLOADERS) as pool:
            for new in pool.map(put, self.files.items()):  # after Ctrl-C, only what is under way is finished
                sent += new
                advance(1)
        return sent

    def _open(self, uri: str, version_id: str | None) -> Iterator[bytes]:
        return self.storage.stream(uri, version_id=version_id)

    def _list(self, prefix: str) -> Iterator[str]:
        # A prefix may include the folder of all jobs: what they wrote is not an image.
        own = f"{self.output_uri.rstrip('/')}/"
        uris = (item.uri for item in self.storage.list(prefix) if not item.uri.startswith(own))
        return (uri for uri in uris if uri.endswith("/") or self._takes(uri.removeprefix(prefix)))

    def _takes(self, name: str) -> bool:
        reason = self.patterns.refuse(name)
        if reason is not None:
            self.skipped.add(reason, name)
        return reason is None

    def _of_folder(self, folder: Path) -> Iterator[ImageRef]:
        before = self.skipped.total
        taken = images_in(folder, self.patterns, self.skipped)
        if not taken:
            raise UserError(self._nothing_in(folder, self.skipped.total - before))
        return (self._of_image(folder / name, self._name(folder, name)) for name in taken)

    def _nothing_in(self, folder: Path, found: int) -> str:
        where = printable(str(folder))
        if not found:
            return f"There are no images to submit in {where}: the folder is empty."
        groups = self.skipped.groups()
        reasons = "".join(f"\n  {line}" for line in in_words(groups))
        files = "The only file there is" if found == 1 else f"The {found:,} files there are"
        return f"There are no images to submit in {where}. {files} skipped:{reasons}{_hint(folder, groups)}"

    def _name(self, folder: Path, name: str) -> str:
        """Returns what the column ``file`` says of a file that a source in ``folder`` calls ``name``."""
        return name_in(self.base or Path(folder).absolute(), folder, name)

    def _of_manifest(self, path: Path) -> Iterator[ImageRef]:
        for ref in lines_of(path, self._open):
            if "://" in ref.source_ref:
                yield ref._replace(columns=renamed(ref.columns))
            else:
                yield self._of_name(path.parent, ref)

    def _of_name(self, folder: Path, ref: ImageRef) -> ImageRef:
        """Returns the image of a line that is no URI: an image file in ``folder``, or else one that will not be found.

        A list may come from someone else, so it must not make us upload a file that is not an image.
        """
        name = ref.source_ref
        shown = self._name(folder, name)
        if is_file(folder / name):
            reason = unfit(folder / name)
            if reason is None:
                return self._of_image(folder / name, shown, ref.columns)
        else:
            reason = MISSING if has_image_suffix(name) else _NO_IMAGE
        self.unusable.add(reason, name)
        if reason == MISSING:
            return self._missing(name, own_name(shown, ref.columns))
        columns = renamed(ref.columns) if reason == _NO_IMAGE else own_name(_text(shown), ref.columns)
        return ref._replace(columns=columns)

    def _missing(self, name: str, columns: dict[str, str]) -> ImageRef:
        """Returns an image that is not there, so that its row is ``not_found``, and a redrive looks for the file."""
        steps = [step for step in name.split("/") if step not in {"", ".", ".."}]
        return ImageRef.of(f"{self._missing_prefix}{'/'.join(steps)}", columns=columns)

    @property
    def _missing_prefix(self) -> str:
        return f"{self.output_uri.rstrip('/')}/{MISSING_UPLOADS}/"

    def _of_image(self, path: Path, name: str, columns: dict[str, str] | None = None) -> ImageRef:
        # The digest makes sure that a file is uploaded once; the name is for the reader of the results.
        uri = f"{self.output_uri.rstrip('/')}/{UPLOADS}/{_digest(path)}/{_text(path.name)}"
        self.files[uri] = path
        return ImageRef.of(uri, columns=own_name(_text(name), columns or {}))


def images_in(folder: Path, patterns: Patterns, skipped: Tally) -> list[str]:
    """Returns the names of the images in a folder, in order, and adds those of its other files to ``skipped``."""
    taken = []
    for name in sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")):
        reason = _refuse(folder, name, patterns)
        if reason is None:
            taken.append(name)
        elif reason:
            skipped.add(reason, _text(name))
    return taken


def _refuse(folder: Path, name: str, patterns: Patterns) -> str | None:
    """Returns why what is in a folder is skipped, None if it is not, and "" for a folder in it."""
    path = folder / name
    if path.is_dir():
        return _LINKED_FOLDER if path.is_symlink() else ""
    if any(step.startswith(".") for step in name.split("/")):
        return _HIDDEN
    if not is_file(path):
        return _NOT_A_FILE
    # With --include, the patterns alone decide what is an image.
    return patterns.refuse(name) or (oversize(path) if patterns.include else unfit(path))


def lines_of(path: Path, opener: Opener) -> Iterator[ImageRef]:
    """Yields the references of a list on this machine. Raises UserError for a file that is not a list."""

    def pieces() -> Iterator[bytes]:
        with path.open("rb") as opened:
            while piece := opened.read(_PIECE):
                yield piece

    try:
        yield from of_file(pieces(), str(path), declared=None, opener=opener)
    except Reject as error:
        reason = error.message.removeprefix(f"{path}: ")
        if not reason.startswith(EXPECTED):
            raise
        raise UserError(f"{printable(str(path))} is neither an image nor a list of images: {reason}") from error


def _hint(folder: Path, skipped: dict[str, NamedFiles]) -> str:
    """Returns how to submit files that have the content of an image and another ending, if there are any."""
    for name in skipped[NOT_AN_IMAGE].names if NOT_AN_IMAGE in skipped else ():
        if begins_as_image(folder / name):
            pattern = shlex.quote(f"*{Path(name).suffix}")
            return f"\n{printable(name)} begins as an image does. To take such files, add --include {pattern}"
    return ""


def _text(name: str) -> str:
    """Returns a file's name as text. Bytes that are not UTF-8 become escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _digest(path: Path) -> str:
    return hashlib.sha256(_read(path)).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. Nothing was submitted.") from error
