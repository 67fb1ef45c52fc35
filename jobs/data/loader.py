"""Labelled images to arrays: decoded chunk by chunk, put through a function, and remembered."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from jobs.data.cache import Shelf
from jobs.data.dataset import LabelledImage, Quarantined, Reason
from jobs.progress import Advance
from worker.errors import ErrorCode, Reject
from worker.scoring.decoder import MAX_BYTES, Pixels, decode
from worker.settings import available_cores

#: Images decoded together: 10 MB at 160 pixels, so memory does not grow with the dataset.
_CHUNK: Final = 128

#: ``(N, H, W, 3)`` uint8 RGB of N images to N rows of anything.
Compute = Callable[[Pixels, Sequence[LabelledImage]], NDArray[Any]]


@dataclass(frozen=True)
class Chunk:
    """Some images that could be decoded: ``pixels`` is ``(N, H, W, 3)`` uint8 RGB, N = ``len(images)``."""

    images: list[LabelledImage]
    pixels: Pixels
    left_out: list[Quarantined]


@dataclass(frozen=True)
class Seen:
    """What a function made of the images that could be decoded: a row of ``values`` for each of ``images``."""

    images: list[LabelledImage]
    values: NDArray[Any]


@dataclass(frozen=True)
class _Batch:
    images: list[LabelledImage]
    name: str  #: on the shelf
    found: dict[str, NDArray[Any]] | None  #: there
    decoding: Future[Chunk]  #: else


@dataclass
class Reader:
    """Decodes images with the decoder that serves them later, and remembers what it left out."""

    size_px: int
    #: What could not be decoded, by ref: an image that is read several times is left out once.
    left_out: dict[str, Quarantined] = field(default_factory=dict)

    @property
    def quarantined(self) -> list[Quarantined]:
        """The images left out so far."""
        return list(self.left_out.values())

    def compute(self, images: list[LabelledImage], function: Compute, *, shelf: Shelf, advance: Advance) -> Seen:
        """Puts ``images`` through ``function``, in order. Chunks that lie on ``shelf`` are taken from there: they are
        named by the contents of their images, and all else that a result depends on is the shelf's name.
        """
        kept: list[LabelledImage] = []
        values: NDArray[Any] | None = None  # of all images, once it is known what a row of it is
        for batch in self._ahead(images, shelf):
            found = batch.found
            if found is None:
                found = _work(batch.decoding.result(), function, batch.images)
                if all(image.sha256 for image in batch.images):  # one that cannot be opened today may be tomorrow
                    shelf.put(batch.name, found)
            left_out = _unpack(found["left_out"], batch.images)
            self.left_out |= {item.image.ref: item for item in left_out}
            gone = {item.image.ref for item in left_out}
            if rows := [image for image in batch.images if image.ref not in gone]:
                if values is None:
                    values = np.empty((len(images), *found["values"].shape[1:]), found["values"].dtype)
                values[len(kept) : len(kept) + len(rows)] = found["values"]
                kept += rows
            advance(len(batch.images))
        return Seen(kept, np.empty(0) if values is None else values[: len(kept)])

    def read(self, images: Sequence[LabelledImage]) -> Chunk:
        """Decodes some images, on all cores."""
        kept, pixels, left_out = [], [], []
        with ThreadPoolExecutor(available_cores()) as pool:
            for image, result in zip(images, pool.map(self._decode, images), strict=True):
                if isinstance(result, Reason):
                    left_out.append(Quarantined(image, result))
                else:
                    kept.append(image)
                    pixels.append(result)
        empty = np.empty((0, self.size_px, self.size_px, 3), np.uint8)
        return Chunk(kept, np.stack(pixels) if pixels else empty, left_out)

    def _ahead(self, images: Iterable[LabelledImage], shelf: Shelf) -> Iterator[_Batch]:
        """Batches as they are due, the next one being decoded while whoever asks works on this one."""
        with ThreadPoolExecutor(1) as ahead:
            waiting: _Batch | None = None
            for batch in _batches(images):
                name = _name(batch)
                found = shelf.get(name)
                decoding = ahead.submit(self.read, batch if found is None else [])
                if waiting is not None:
                    yield waiting
                waiting = _Batch(batch, name, found, decoding)
            if waiting is not None:
                yield waiting

    def _decode(self, image: LabelledImage) -> Pixels | Reason:
        try:
            size_bytes = image.path.stat().st_size
            if size_bytes > MAX_BYTES:  # before it is read: it can be larger than memory
                return Reason(ErrorCode.TOO_MANY_BYTES, f"{size_bytes:,} bytes, over {MAX_BYTES:,}")
            return decode(image.path.read_bytes(), size_px=self.size_px)
        except OSError as error:
            return Reason(ErrorCode.ACCESS_DENIED, f"cannot be read: {error.strerror}")
        except Reject as error:
            return Reason(error.code, error.message)


def _work(chunk: Chunk, function: Compute, batch: list[LabelledImage]) -> dict[str, NDArray[Any]]:
    values = function(chunk.pixels, chunk.images) if chunk.images else np.empty(0)
    return {"values": values, "left_out": _pack(chunk.left_out, batch)}


def _batches(images: Iterable[LabelledImage]) -> Iterator[list[LabelledImage]]:
    remaining = iter(images)
    while batch := list(islice(remaining, _CHUNK)):
        yield batch


def _name(batch: list[LabelledImage]) -> str:
    return hashlib.sha256(" ".join(image.sha256 for image in batch).encode()).hexdigest()[:32]


def _pack(left_out: list[Quarantined], batch: list[LabelledImage]) -> NDArray[np.uint8]:
    """By position: the same contents can lie under another name by the time this is read, and one that cannot be
    opened has no digest.
    """
    position = {image.ref: number for number, image in enumerate(batch)}
    lines = [(position[item.image.ref], item.reason.code.value, item.reason.message) for item in left_out]
    return np.frombuffer(json.dumps(lines).encode(), np.uint8)


def _unpack(packed: NDArray[Any], batch: list[LabelledImage]) -> list[Quarantined]:
    lines = json.loads(packed.tobytes())
    return [Quarantined(batch[position], Reason(ErrorCode(code), message)) for position, code, message in lines]
