"""Images as arrays: decoded in chunks, passed through a function, and the results cached."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from jobs.data.cache import ArrayCache
from jobs.data.dataset import LabelledImage, Quarantined, Reason
from jobs.decoding import decode
from jobs.progress import Advance
from worker.errors import ErrorCode, Reject
from worker.scoring.decoder import Pixels
from worker.scoring.limits import MAX_BYTES
from worker.settings import available_cores

#: Images decoded together: 10 MB at 160 pixels, so that memory does not grow with the dataset.
_CHUNK_IMAGES: Final = 128

#: ``(N, H, W, 3)`` uint8 RGB pixels of N images to N rows of any shape and dtype.
Compute = Callable[[Pixels, Sequence[LabelledImage]], NDArray[Any]]


@dataclass(frozen=True)
class LoadedImages:
    """Images that could be decoded, and those that could not."""

    images: list[LabelledImage]
    pixels: Pixels  #: ``(N, H, W, 3)`` uint8 RGB, one for each of ``images``
    quarantined: list[Quarantined]


@dataclass(frozen=True)
class ImageValues:
    """What a function returned for the images that could be decoded."""

    images: list[LabelledImage]
    values: NDArray[Any]  #: ``(N, …)``, one row for each of ``images``


@dataclass(frozen=True)
class _Chunk:
    images: list[LabelledImage]
    name: str  #: in the cache
    cached: dict[str, NDArray[Any]] | None
    loading: Future[LoadedImages]  #: empty if ``cached``


@dataclass
class ImageLoader:
    """Decodes images with the worker's decoder, and keeps a record of those that cannot be decoded."""

    size_px: int
    #: By ref, so that an image that is read several times is recorded once.
    left_out: dict[str, Quarantined] = field(default_factory=dict)

    @property
    def quarantined(self) -> list[Quarantined]:
        """The images left out so far."""
        return list(self.left_out.values())

    def compute(
        self, images: list[LabelledImage], function: Compute, *, cache: ArrayCache, advance: Advance
    ) -> ImageValues:
        """Passes ``images`` through ``function``, in order, and takes from ``cache`` what it has.

        A chunk is cached by the contents of its images. The name of the cache must cover all else that the result
        depends on.
        """
        kept: list[LabelledImage] = []
        values: NDArray[Any] | None = None  # of all images; allocated when the first chunk gives shape and dtype
        for chunk in self._ahead(images, cache):
            found = chunk.cached
            if found is None:
                found = _compute(chunk, function)
            quarantined = _unpack(found["left_out"], chunk.images)
            if chunk.cached is None and _is_lasting(chunk, quarantined):
                cache.put(chunk.name, found)
            self.left_out |= {item.image.ref: item for item in quarantined}
            gone = {item.image.ref for item in quarantined}
            if rows := [image for image in chunk.images if image.ref not in gone]:
                if values is None:
                    values = np.empty((len(images), *found["values"].shape[1:]), found["values"].dtype)
                values[len(kept) : len(kept) + len(rows)] = found["values"]
                kept += rows
            advance(len(chunk.images))
        return ImageValues(kept, np.empty(0) if values is None else values[: len(kept)])

    def check(self, images: Sequence[LabelledImage], *, advance: Advance) -> None:
        """Decodes images only to record those that cannot be decoded."""
        for chunk in _chunks(images):
            self.left_out |= {item.image.ref: item for item in self.load(chunk).quarantined}
            advance(len(chunk))

    def load(self, images: Sequence[LabelledImage]) -> LoadedImages:
        """Decodes images on all cores."""
        kept, pixels, quarantined = [], [], []
        with ThreadPoolExecutor(available_cores()) as pool:
            for image, result in zip(images, pool.map(self._decode, images), strict=True):
                if isinstance(result, Reason):
                    quarantined.append(Quarantined(image, result))
                else:
                    kept.append(image)
                    pixels.append(result)
        empty = np.empty((0, self.size_px, self.size_px, 3), np.uint8)
        return LoadedImages(kept, np.stack(pixels) if pixels else empty, quarantined)

    def _ahead(self, images: Iterable[LabelledImage], cache: ArrayCache) -> Iterator[_Chunk]:
        """Yields chunks, and decodes the next one while the caller works on the current one."""
        with ThreadPoolExecutor(1) as ahead:
            waiting: _Chunk | None = None
            for chunk in _chunks(images):
                name = _name(chunk)
                cached = cache.get(name)
                loading = ahead.submit(self.load, chunk if cached is None else [])
                if waiting is not None:
                    yield waiting
                waiting = _Chunk(chunk, name, cached, loading)
            if waiting is not None:
                yield waiting

    def _decode(self, image: LabelledImage) -> Pixels | Reason:
        try:
            size_bytes = image.path.stat().st_size
            if size_bytes > MAX_BYTES:  # checked before it is read: it can be larger than memory
                return Reason(ErrorCode.TOO_MANY_BYTES, f"{size_bytes:,} bytes, over {MAX_BYTES:,}")
            return decode(image.path.read_bytes(), size_px=self.size_px)
        except OSError as error:
            return Reason(ErrorCode.ACCESS_DENIED, f"cannot be read: {error.strerror}")
        except Reject as error:
            return Reason(error.code, error.message)


def _is_lasting(chunk: _Chunk, left_out: list[Quarantined]) -> bool:
    """Returns whether the next run would find the same: a file may open then, and a machine be less busy."""
    passing = {ErrorCode.TOO_SLOW, ErrorCode.DECODER_CRASHED, ErrorCode.TOO_MUCH_MEMORY}
    return all(image.sha256 for image in chunk.images) and not any(one.reason.code in passing for one in left_out)


def _chunks(images: Iterable[LabelledImage]) -> Iterator[list[LabelledImage]]:
    remaining = iter(images)
    while chunk := list(islice(remaining, _CHUNK_IMAGES)):
        yield chunk


def _name(chunk: list[LabelledImage]) -> str:
    return hashlib.sha256(" ".join(image.sha256 for image in chunk).encode()).hexdigest()[:32]


def _compute(chunk: _Chunk, function: Compute) -> dict[str, NDArray[Any]]:
    loaded = chunk.loading.result()
    values = function(loaded.pixels, loaded.images) if loaded.images else np.empty(0)
    return {"values": values, "left_out": _pack(loaded.quarantined, chunk.images)}


def _pack(quarantined: list[Quarantined], chunk: list[LabelledImage]) -> NDArray[np.uint8]:
    """Records the images by position: later, the same contents can have another name, and an image that cannot be
    opened has no digest.
    """
    position = {image.ref: number for number, image in enumerate(chunk)}
    lines = [(position[item.image.ref], item.reason.code.value, item.reason.message) for item in quarantined]
    return np.frombuffer(json.dumps(lines).encode(), np.uint8)


def _unpack(packed: NDArray[Any], chunk: list[LabelledImage]) -> list[Quarantined]:
    lines = json.loads(packed.tobytes())
    return [Quarantined(chunk[position], Reason(ErrorCode(code), message)) for position, code, message in lines]
