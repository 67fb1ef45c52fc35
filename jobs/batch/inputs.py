"""The sources of a job: manifests and prefixes in storage, and manifests and images on this machine.

    s3://bucket/list.csv, list.jsonl.gz, manifest.json   every format of worker.manifest.references
    s3://bucket/prefix/                                  every object below it
    list.csv                                             the same formats, on this machine
    pets/, rex.jpg                                       images on this machine

Images on this machine get a URI that follows from their content, and are uploaded when the job is submitted.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from jobs.printable import printable
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
    """Which names of a listing to take: any of ``include`` but not ``exclude``. ``*`` also matches slashes."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def take(self, name: str) -> bool:
        """Returns whether to take ``name``, which is relative to the prefix or folder that is listed."""
        included = not self.include or any(fnmatchcase(name, pattern) for pattern in self.include)
        return included and not any(fnmatchcase(name, pattern) for pattern in self.exclude)


@dataclass
class Inputs:
    """Reads sources, and collects the files to upload."""

    storage: Storage
    output_uri: str
    patterns: Patterns = field(default_factory=Patterns)
    files: dict[str, Path] = field(default_factory=dict)  #: by the URI that each one gets

    def references(self, source: str) -> Iterator[ImageRef]:
        """Yields the images of a source in its order. Raises UserError or Reject when it is not a source."""
        if source.startswith("s3://"):
            return references(ManifestRef(uri=source), opener=self._open, lister=self._list)
        path = Path(source)
        if path.is_dir():
            return self._of_folder(path)
        if not path.is_file():
            raise UserError(f"{printable(source)} is not a file, a folder or an s3:// URI.")
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return iter([self._of_image(path, path.name)])
        return self._of_manifest(path)

    def repaired(self, uri: str, file: str, sources: Sequence[str]) -> str:
        """Returns the new URI of an uploaded image whose file may have been repaired, or ``uri`` if the file is gone.

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
            for new in pool.map(put, self.files.items()):
                sent += new
                advance(1)
        return sent

    def _open(self, uri: str, version_id: str | None) -> Iterator[bytes]:
        return self.storage.stream(uri, version_id=version_id)

    def _list(self, prefix: str) -> Iterator[str]:
        # A prefix may include the folder of all jobs: what they wrote is not an image.
        own = f"{self.output_uri.rstrip('/')}/"
        return (
            item.uri
            for item in self.storage.list(prefix)
            if not item.uri.startswith(own) and self.patterns.take(item.uri.removeprefix(prefix))
        )

    def _of_folder(self, folder: Path) -> Iterator[ImageRef]:
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        visible = [name for name in names if not any(step.startswith(".") for step in name.split("/"))]
        # With --include, the patterns alone decide; without, the suffixes of image files.
        taken = [
            name
            for name in visible
            if self.patterns.take(name) and (self.patterns.include or Path(name).suffix.lower() in IMAGE_SUFFIXES)
        ]
        if not taken:
            raise UserError(
                f"No images to submit among the {len(visible)} files in {folder}. "
                f"Image files end in {', '.join(sorted(IMAGE_SUFFIXES))}. Add --include '*' to take every file."
            )
        return (self._of_image(folder / name, name) for name in taken)

    def _of_manifest(self, path: Path) -> Iterator[ImageRef]:
        def pieces() -> Iterator[bytes]:
            with path.open("rb") as opened:
                while piece := opened.read(_PIECE):
                    yield piece

        refs: Iterable[ImageRef] = of_file(pieces(), str(path), declared=None, opener=self._open)
        for ref in refs:
            file = path.parent / ref.source_ref
            # Check the suffix too: an untrusted manifest must not make us upload arbitrary files.
            if file.suffix.lower() in IMAGE_SUFFIXES and not ref.source_ref.startswith("s3://") and _is_file(file):
                yield self._of_image(file, ref.source_ref, ref.columns)
            else:
                yield ref

    def _of_image(self, path: Path, name: str, columns: dict[str, str] | None = None) -> ImageRef:
        # The digest makes sure that a file is uploaded once; the name is for the reader of the results.
        uri = f"{self.output_uri.rstrip('/')}/{UPLOADS}/{_digest(path)}/{_text(path.name)}"
        self.files[uri] = path
        return ImageRef.of(uri, columns={"file": _text(name)} | (columns or {}))


def _is_file(path: Path) -> bool:
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
