"""The sources of a job: manifests and prefixes in storage, and manifests and images on this machine.

    s3://bucket/list.csv, list.jsonl.gz, manifest.json   every format of worker.manifest.references
    s3://bucket/prefix/                                  every object below it
    list.csv                                             the same formats, on this machine
    pets/, rex.jpg                                       images on this machine

Images on this machine get a URI that follows from their content, and are uploaded when the job is submitted.
"""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from jobs.batch.image_files import HEIC, has_image_suffix, unfit
from jobs.batch.tally import Tally, in_words
from jobs.printable import printable
from jobs.progress import Advance
from jobs.user_error import UserError
from jobs.wording import counted
from worker.aws.storage import Storage
from worker.batch.job_folder import UPLOADS
from worker.contract import ManifestRef
from worker.errors import Reject
from worker.manifest.formats import ImageRef
from worker.manifest.references import EXPECTED, Opener, of_file, references

#: Why a name of a list gets a row with an error code, as people read it.
MISSING: Final = "not there"
_NO_IMAGE: Final = "neither a file nor an s3:// URI"

_HIDDEN: Final = "hidden"
_EXCLUDED: Final = "left out by --exclude"
_NOT_INCLUDED: Final = "not among --include"

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


@dataclass
class Inputs:
    """Reads sources, and collects the files to upload."""

    storage: Storage
    output_uri: str
    patterns: Patterns = field(default_factory=Patterns)
    files: dict[str, Path] = field(default_factory=dict)  #: by the URI that each one gets
    skipped: Tally = field(default_factory=Tally)  #: of folders and prefixes: they have no row
    unusable: Tally = field(default_factory=Tally)  #: of lists on this machine: their rows will have an error code

    def references(self, source: str) -> Iterator[ImageRef]:
        """Yields the images of a source in its order. Raises UserError or Reject when it is not a source."""
        if source.startswith("s3://"):
            return references(ManifestRef(uri=source), opener=self._open, lister=self._list)
        path = Path(source)
        if path.is_dir():
            return self._of_folder(path)
        if not path.is_file():
            raise UserError(f"{printable(source)} is not a file, a folder or an s3:// URI.")
        reason = unfit(path)
        if reason is None:
            return iter([self._of_image(path, path.name)])
        if reason == HEIC:
            raise UserError(f"{printable(source)} is {HEIC}.")
        return self._of_manifest(path)

    def upload_bytes(self) -> int:
        """Returns the size of all files, of which some may be uploaded already."""
        return sum(path.stat().st_size for path in self.files.values())

    def repaired(self, uri: str, file: str, sources: Sequence[str]) -> str:
        """Returns the new URI of an uploaded image whose file may have been repaired, or ``uri`` if the file is gone.

        ``file`` is its name below one of the ``sources``, as a job keeps it in a column.
        """
        if not file or not uri.startswith(f"{self.output_uri.rstrip('/')}/{UPLOADS}/"):
            return uri
        for source in map(Path, sources):
            for path in (source / file, source.parent / file):
                if is_file(path):
                    return self._of_image(path, file).source_ref
        return uri

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
        if not taken and self.skipped.total == before:
            raise UserError(f"There are no images to submit in {printable(str(folder))}: the folder is empty.")
        if not taken:
            found = counted(self.skipped.total - before, "file")
            reasons = "".join(f"\n  {line}" for line in in_words(self.skipped.groups()))
            raise UserError(
                f"No images to submit among the {found} in {printable(str(folder))}.{reasons}\n"
                "Add --include '*' to take every file."
            )
        return (self._of_image(folder / name, name) for name in taken)

    def _of_manifest(self, path: Path) -> Iterator[ImageRef]:
        for ref in lines_of(path, self._open):
            yield ref if "://" in ref.source_ref else self._of_name(path.parent, ref)

    def _of_name(self, folder: Path, ref: ImageRef) -> ImageRef:
        """Returns the image of a line that is no URI: an image file in ``folder``, or else one that will not be found.

        A list may come from someone else, so it must not make us upload a file that is not an image.
        """
        name = ref.source_ref
        if is_file(folder / name):
            reason = unfit(folder / name)
            if reason is None:
                return self._of_image(folder / name, name, ref.columns)
        else:
            reason = MISSING if has_image_suffix(name) else _NO_IMAGE
        self.unusable.add(reason, name)
        if reason == MISSING:
            return self._missing(name, ref.columns)
        return ref if reason == _NO_IMAGE else ref._replace(columns={"file": _text(name)} | ref.columns)

    def _missing(self, name: str, columns: dict[str, str]) -> ImageRef:
        """Returns an image that is not there, so that its row is ``not_found``, and a redrive looks for the file."""
        steps = [step for step in name.split("/") if step not in {"", ".", ".."}]
        uri = f"{self.output_uri.rstrip('/')}/{UPLOADS}/missing/{'/'.join(steps)}"
        return ImageRef.of(uri, columns={"file": name} | columns)

    def _of_image(self, path: Path, name: str, columns: dict[str, str] | None = None) -> ImageRef:
        # The digest makes sure that a file is uploaded once; the name is for the reader of the results.
        uri = f"{self.output_uri.rstrip('/')}/{UPLOADS}/{_digest(path)}/{_text(path.name)}"
        self.files[uri] = path
        return ImageRef.of(uri, columns={"file": _text(name)} | (columns or {}))


def images_in(folder: Path, patterns: Patterns, skipped: Tally) -> list[str]:
    """Returns the names of the images in a folder, in order, and adds those of its other files to ``skipped``."""
    taken = []
    for name in sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()):
        reason = _refuse(folder, name, patterns)
        if reason is None:
            taken.append(name)
        else:
            skipped.add(reason, _text(name))
    return taken


def _refuse(folder: Path, name: str, patterns: Patterns) -> str | None:
    """Returns why a file of a folder is skipped, or None."""
    if any(step.startswith(".") for step in name.split("/")):
        return _HIDDEN
    # With --include, the patterns alone decide.
    return patterns.refuse(name) or (None if patterns.include else unfit(folder / name))


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


def is_file(path: Path) -> bool:
    """Returns whether a path is that of a file, also if it cannot be one."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # not a valid name of a file
        return False


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
