"""The images to label: those of a folder, of a prefix or of a list, and which of them a page shows.

    photos/                              a folder
    s3://bucket/photos/                  every object below a prefix
    list.csv, s3://bucket/list.jsonl     a list in any of the worker's formats

A page shows all of them, or a number drawn at random. The draw is fixed: the same images give the same draw, and a
larger number has those of a smaller one in it.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from jobs.batch.file_names import is_file
from jobs.batch.image_files import HEIC, NOT_AN_IMAGE, has_image_suffix, has_other_suffix, unfit
from jobs.batch.inputs import MISSING, Patterns, images_in, lines_of
from jobs.batch.tally import Tally, in_words
from jobs.printable import printable
from jobs.store import open_buckets
from jobs.user_error import UserError
from jobs.wording import counted
from worker.aws.storage import Storage
from worker.contract import ManifestRef
from worker.errors import ErrorCode, Reject
from worker.manifest.references import references
from worker.scoring.limits import MAX_BYTES

#: More would make a page that browsers open slowly.
MAX_IMAGES: Final = 5000
#: The draw is the same every time.
_SEED: Final = "twofold label"
_NOT_UTF8: Final = "a name that is not UTF-8, which a list cannot hold"
_S3: Final = "s3://"
_FOREIGN: Final = "neither a file nor an s3:// URI"


@dataclass(frozen=True)
class SourceImage:
    """An image that can be labelled."""

    source_ref: str  #: as a labelled list in the folder ``ImageSource.beside`` has it
    where: str  #: the path or the s3:// URI to read it from
    place: str  #: its name within the source, whatever the source is called here

    @property
    def name(self) -> str:
        """The name of the file."""
        return self.where.rpartition("/")[2]

    @property
    def folder(self) -> str:
        """The folder within the source."""
        return self.place.rpartition("/")[0]


@dataclass
class ImageSource:
    """Finds and reads images. ``beside`` is the folder of the list that their labels go to."""

    beside: Path
    skipped: Tally = field(default_factory=Tally)

    def find(self, source: str) -> list[SourceImage]:
        """Returns the images of a source in its order, each once. Raises UserError or Reject if there are none."""
        found = {image.source_ref: image for image in self._of(source)}
        if not found:
            reasons = "".join(f"\n  {line}" for line in in_words(self.skipped.groups()))
            raise UserError(f"There are no images in {printable(source)}.{reasons}")
        return list(found.values())

    def read(self, image: SourceImage) -> bytes:
        """Reads an image. Raises Reject or Retry, with the reason."""
        if image.where.startswith(_S3):
            return self._storage.read(image.where, max_bytes=MAX_BYTES)
        path = Path(image.where)
        try:
            size_bytes = path.stat().st_size
            if size_bytes > MAX_BYTES:  # checked before it is read: it can be larger than memory
                raise Reject(ErrorCode.TOO_MANY_BYTES, f"{size_bytes:,} bytes, over the limit of {MAX_BYTES:,}")
            return path.read_bytes()
        except OSError as error:
            raise Reject(ErrorCode.ACCESS_DENIED, f"cannot be read: {error.strerror}") from error

    @cached_property
    def _storage(self) -> Storage:
        return open_buckets()

    def _of(self, source: str) -> Iterator[SourceImage]:
        if source.startswith(_S3):
            for ref in references(ManifestRef(uri=source), opener=self._open, lister=self._list):
                yield from self._named(ref.source_ref, None, start=source if source.endswith("/") else "")
            return
        path = Path(source)
        if path.is_dir():
            for name in images_in(path, Patterns(), self.skipped):
                yield from self._file(path / name, name)
        elif not path.is_file():
            raise UserError(f"{printable(source)} is not a folder, a list or an s3:// URI.")
        elif (reason := unfit(path)) is None:
            yield from self._file(path, path.name)
        elif reason == HEIC:
            raise UserError(f"{printable(source)} is {HEIC}.")
        else:
            for ref in lines_of(path, self._open):
                yield from self._named(ref.source_ref, path.parent)

    def _named(self, name: str, folder: Path | None, *, start: str = "") -> Iterator[SourceImage]:
        """Yields the image that a list names; ``folder`` is where the list is, unless it is in a bucket."""
        if name.startswith(_S3):
            yield SourceImage(name, name, name.removeprefix(start))
        elif folder is None or "://" in name:
            self.skipped.add(_FOREIGN, name)
        elif is_file(folder / name):
            reason = unfit(folder / name)
            if reason is None:
                yield from self._file(folder / name, name)
            else:
                self.skipped.add(reason, name)
        else:
            self.skipped.add(MISSING if has_image_suffix(name) else _FOREIGN, name)

    def _file(self, path: Path, place: str) -> Iterator[SourceImage]:
        try:
            str(path).encode()
        except UnicodeEncodeError:
            self.skipped.add(_NOT_UTF8, os.fsencode(path.name).decode(errors="backslashreplace"))
            return
        yield SourceImage(list_ref(path, self.beside), str(path), place)

    def _open(self, uri: str, version_id: str | None) -> Iterator[bytes]:
        return self._storage.stream(uri, version_id=version_id)

    def _list(self, prefix: str) -> Iterator[str]:
        for item in self._storage.list(prefix):
            if has_other_suffix(item.uri):
                self.skipped.add(NOT_AN_IMAGE, item.uri.removeprefix(prefix))
            else:
                yield item.uri


def list_ref(path: Path, beside: Path) -> str:
    """Returns the path of a file as a list in the folder ``beside`` has it.

    It is relative if the file is below that folder, so that both can be moved together, and absolute otherwise.
    """
    absolute, folder = _absolute(path), _absolute(beside)
    return (absolute.relative_to(folder) if absolute.is_relative_to(folder) else absolute).as_posix()


def _absolute(path: Path) -> Path:
    """Returns a path from the root, without ``..``. Links stay as they are."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - which is what pathlib's functions do not do


def as_listed(images: Iterable[SourceImage], refs: Iterable[str], beside: Path) -> list[SourceImage]:
    """Returns images with the ``source_ref`` that a list in ``beside`` has already, if only its spelling differs."""
    known = {_absolute(beside / ref): ref for ref in refs if not ref.startswith(_S3)}
    return [
        image
        if image.where.startswith(_S3)
        else replace(image, source_ref=known.get(_absolute(Path(image.where)), image.source_ref))
        for image in images
    ]


def choose(images: Sequence[SourceImage], number: int | None, source: str) -> list[SourceImage]:
    """Returns the images for a page: all of them in their order, or ``number`` drawn at random.

    Raises UserError if all of them are more than a page holds.
    """
    if number is not None:
        return drawn(images)[:number]
    if len(images) > MAX_IMAGES:
        raise UserError(
            f"{printable(source)} has {counted(len(images), 'image')}, and a page holds at most {MAX_IMAGES:,}. "
            "Draw some of them at random: -n 200"
        )
    return list(images)


def drawn(images: Iterable[SourceImage]) -> list[SourceImage]:
    """Returns the images in the order of the draw: each start of it has its share of every folder.

    Within a folder the order is that of a digest of the names. It has nothing to do with the names themselves, and a
    new image changes nothing about the order of the others.
    """
    in_order = sorted(images, key=_digest)
    sizes = Counter(image.folder for image in in_order)
    seen: Counter[str] = Counter()
    shares = []  # of its folder, up to and with half of the image
    for image in in_order:
        shares.append((seen[image.folder] + 0.5) / sizes[image.folder])
        seen[image.folder] += 1
    return [image for _, image in sorted(zip(shares, in_order, strict=True), key=lambda pair: pair[0])]


def _digest(image: SourceImage) -> bytes:
    return hashlib.sha256(f"{_SEED}\0{image.place}".encode()).digest()
