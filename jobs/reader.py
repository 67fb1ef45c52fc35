"""Labelled images to pixels, chunk by chunk."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import numpy as np

from jobs.labelled import LabelledImage, Quarantined
from jobs.progress import Advance
from jobs.reason import Reason
from worker.errors import ErrorCode, Reject
from worker.images import MAX_BYTES, Pixels, decode
from worker.settings import available_cores

#: Images decoded together: 10 MB at 160 pixels, so memory does not grow with the dataset.
_CHUNK: Final = 128


@dataclass(frozen=True)
class Chunk:
    """Some images that could be decoded: ``pixels`` is ``(N, H, W, 3)`` uint8 RGB, N = ``len(images)``."""

    images: list[LabelledImage]
    pixels: Pixels


@dataclass
class Reader:
    """Decodes images chunk by chunk, and remembers what it left out."""

    size_px: int
    quarantined: list[Quarantined] = field(default_factory=list)

    def chunks(self, images: Iterable[LabelledImage], advance: Advance) -> Iterator[Chunk]:
        """The images that can be decoded, in order, with the decoder that serves them later.

        ``advance`` hears of each chunk when whoever asked for it is done with it.
        """
        remaining = iter(images)
        with ThreadPoolExecutor(available_cores()) as pool:
            while batch := list(islice(remaining, _CHUNK)):
                kept, pixels = [], []
                for image, result in zip(batch, pool.map(self._decode, batch), strict=True):
                    if isinstance(result, Reason):
                        self.quarantined.append(Quarantined(image, result))
                    else:
                        kept.append(image)
                        pixels.append(result)
                if kept:
                    yield Chunk(kept, np.stack(pixels))
                advance(len(batch))

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
