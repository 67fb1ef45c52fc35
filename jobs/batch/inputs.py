"""What a person points at, to image references: manifests and prefixes in storage, and files of this machine.

    s3://bucket/list.csv, list.jsonl.gz, manifest.json   every kind of worker.manifest.references
    s3://bucket/prefix/                                  every object below it
    list.csv                                             the same kinds, on this machine
    pets/, rex.jpg                                       images of this machine

Images of this machine are named by their content, and uploaded when the job is.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from jobs.progress import Advance
from jobs.user_error import UserError
from worker.aws.storage import Storage
from worker.batch.job_folder import UPLOADS
from worker.contract import ManifestRef
from worker.manifest.formats import ImageRef
from worker.manifest.references import of_file, references

IMAGE_SUFFIXES: Final = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

_PIECE: Final = 1024 * 1024
_UPLOADERS: Final = 8


@dataclass(frozen=True)
class Patterns:
    """Which of a listing are meant: any of ``include``, none of ``exclude``; ``*`` matches slashes too."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def take(self, name: str) -> bool:
        """Whether a name below the listed prefix or folder is meant."""
        included = not self.include or any(fnmatchcase(name, pattern) for pattern in self.include)
        return included and not any(fnmatchcase(name, pattern) for pattern in self.exclude)


@dataclass
class Inputs:
    """Reads sources, and remembers which files are to be uploaded."""

    storage: Storage
    output_uri: str
    patterns: Patterns = field(default_factory=Patterns)
    files: dict[str, Path] = field(default_factory=dict)  #: by the URI that each is to have

    def references(self, source: str) -> Iterator[ImageRef]:
        """The images of one source, in its order. Raises UserError or Reject, saying what was expected."""
        if source.startswith("s3://"):
            return references(ManifestRef(uri=source), opener=self._open, lister=self._list)
        path = Path(source)
        if path.is_dir():
            return self._of_folder(path)
        if not path.is_file():
            raise UserError(f"No file, folder or s3:// URI: {source}")
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return iter([self._of_image(path, path.name)])
        return self._of_manifest(path)

    def repaired(self, uri: str, file: str, sources: Sequence[str]) -> str:
        """The URI of an image that failed, as its file on this machine is now; as it was, where that is not here.

        ``file`` is its name below one of the ``sources``, as a job keeps it in a column.
        """
        if not file or not uri.startswith(f"{self.output_uri.rstrip('/')}/{UPLOADS}/"):
            return uri
        for source in map(Path, sources):
            for path in (source / file, source.parent / file):
                if _is_file(path):
                    return self._of_image(path, file).source_ref
        return uri

    def upload(self, advance: Advance) -> int:
        """Puts every file that is not there yet, and returns how many that were."""

        def put(item: tuple[str, Path]) -> bool:
            uri, path = item
            if self.storage.metadata(uri) is not None:
                return False
            body = _read(path)
            if hashlib.sha256(body).hexdigest() != uri.split("/")[-2]:
                raise UserError(f"{path} was changed while the list was read: type the command again.")
            return self.storage.write_once(uri, body, content_type="application/octet-stream", metadata={})

        sent = 0
        with ThreadPoolExecutor(_UPLOADERS) as pool:
            for new in pool.map(put, self.files.items()):
                sent += new
                advance(1)
        return sent

    def _open(self, uri: str, version_id: str | None) -> Iterator[bytes]:
        return self.storage.stream(uri, version_id=version_id)

    def _list(self, prefix: str) -> Iterator[str]:
        # What jobs wrote is no picture to be asked for.
        own = f"{self.output_uri.rstrip('/')}/"
        return (
            item.uri
            for item in self.storage.list(prefix)
            if not item.uri.startswith(own) and self.patterns.take(item.uri.removeprefix(prefix))
        )

    def _of_folder(self, folder: Path) -> Iterator[ImageRef]:
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        visible = [name for name in names if not any(step.startswith(".") for step in name.split("/"))]
        # Patterns decide alone where there are any; without them, the names of image files.
        taken = [
            name
            for name in visible
            if self.patterns.take(name) and (self.patterns.include or Path(name).suffix.lower() in IMAGE_SUFFIXES)
        ]
        if not taken:
            raise UserError(
                f"{folder} holds no image that is asked for, of {len(visible)} files. "
                f"Images end in {', '.join(sorted(IMAGE_SUFFIXES))}; --include '*' takes every file."
            )
        return (self._of_image(folder / name, name) for name in taken)

    def _of_manifest(self, path: Path) -> Iterator[ImageRef]:
        def pieces() -> Iterator[bytes]:
            with path.open("rb") as file:
                while piece := file.read(_PIECE):
                    yield piece

        refs: Iterable[ImageRef] = of_file(pieces(), str(path), declared=None, opener=self._open)
        for ref in refs:
            beside = path.parent / ref.source_ref
            # By its name, too: a list of somebody else's must not make us upload what is no picture.
            if beside.suffix.lower() in IMAGE_SUFFIXES and not ref.source_ref.startswith("s3://") and _is_file(beside):
                yield self._of_image(beside, ref.source_ref, ref.columns)
            else:
                yield ref

    def _of_image(self, path: Path, name: str, columns: dict[str, str] | None = None) -> ImageRef:
        # By content, so that it is uploaded once however often it is asked for; by name, so that a person knows it.
        uri = f"{self.output_uri.rstrip('/')}/{UPLOADS}/{_digest(path)}/{_text(path.name)}"
        self.files[uri] = path
        return ImageRef.of(uri, columns={"file": _text(name)} | (columns or {}))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _text(name: str) -> str:
    """A file's name as text: what is no UTF-8 in it becomes an escape."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _digest(path: Path) -> str:
    return hashlib.sha256(_read(path)).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. Nothing was sent.") from error
