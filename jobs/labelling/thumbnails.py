"""The thumbnails of a page for labelling: small enough that 5,000 of them open at once, large where there are few."""

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from PIL import Image

from jobs.decoding import thumbnail
from jobs.progress import Advance
from worker.errors import TwofoldError
from worker.settings import available_cores

#: The longer side, by the number of images on the page. A telephone's screen has about 400 pixels across.
_SIDES_PX: Final = ((300, 640), (1200, 448), (2500, 320))
_LEAST_PX: Final = 256
#: All thumbnails of a page together. In base64 they take a third more.
_ALL_BYTES: Final = 42_000_000
_MOST_BYTES: Final = 80_000  #: of one of them
_QUALITIES: Final = (72, 50, 30)  #: of WebP, 0 to 100
_METHOD: Final = 2  #: of WebP, 0 to 6: half the time of the default, 4, for 5 % more bytes
#: While some wait for the network, others are decoded.
_READERS: Final = 8

Item = TypeVar("Item")


def side_px(images: int) -> int:
    """Returns the longer side of the thumbnails of a page with so many images."""
    return next((px for most, px in _SIDES_PX if images <= most), _LEAST_PX)


def make_thumbnails(
    items: Sequence[Item], read: Callable[[Item], bytes], *, advance: Advance = lambda _: None
) -> list[bytes | TwofoldError]:
    """Returns a WebP image for each item, in order, or why there is none. ``read`` returns the bytes of its file.

    Files are decoded on all cores, each in a child process: a hostile one costs its own thumbnail only.
    """
    px = side_px(len(items))
    limit_bytes = min(_MOST_BYTES, _ALL_BYTES // max(len(items), 1))

    def make(item: Item) -> bytes | TwofoldError:
        try:
            return _encoded(read(item), px, limit_bytes)
        except TwofoldError as error:
            return error

    made = []
    with ThreadPoolExecutor(max(_READERS, available_cores())) as pool:
        for one in pool.map(make, items):  # after Ctrl-C, only what is under way is finished
            made.append(one)
            advance(1)
    return made


def _encoded(data: bytes, px: int, limit_bytes: int) -> bytes:
    """Returns a thumbnail of at most ``limit_bytes``. One full of detail has a lower quality, and then fewer pixels."""
    image = Image.fromarray(thumbnail(data, max_px=px))
    while True:
        for quality in _QUALITIES:
            file = io.BytesIO()
            image.save(file, "WEBP", quality=quality, method=_METHOD)
            if file.tell() <= limit_bytes:
                return file.getvalue()
        image = image.reduce(2)
