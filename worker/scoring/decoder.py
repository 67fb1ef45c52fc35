"""The one decoder: untrusted bytes to pixels, the same for training and for serving.

    decode(data, size_px=160)  ->  (160, 160, 3) uint8 RGB

The shape of the picture is not kept (the seed's recipe squeezes it, and so does this), EXIF orientation is applied,
transparent parts lie over white, colour profiles are ignored, and of an animation the first frame counts.
A file that ends early is refused, but not every damage can be seen: JPEG and PNG data with wrong pixels in the
middle decodes without a word. Checksums of the storage, not decoders, prove integrity.
"""

import base64
import functools
import hashlib
import io
import re
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from worker.errors import ErrorCode, Reject

Pixels = NDArray[np.uint8]

#: Pillow registers 43 formats, some of which start other programs (EPS runs Ghostscript). These six it decodes itself.
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
#: Above what most cameras take. As RGBA it is 120 MB, and two copies of it are alive at the worst.
MAX_PIXELS: Final = 30_000_000
#: JPEG's own limit. Pillow resizes with a table of some 32 bytes for each pixel of a side: 30 million would be 1 GB.
MAX_SIDE_PX: Final = 65_535
#: Times the images held at once (``worker.scoring.pipeline``), this bounds the memory that hostile files can take.
MAX_BYTES: Final = 32 * 1024 * 1024

#: How files of these formats begin, whatever becomes of them later.
_SIGNATURE: Final = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP|GIF8[79]a|BM....\0\0\0\0|II\*\0|MM\0\*", re.DOTALL
)

_EXIF_ORIENTATION: Final = 0x0112
#: What undoes each EXIF orientation (CIPA DC-008, tag 0x0112).
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes, *, size_px: int) -> Pixels:
    """Decodes a JPEG, PNG, WebP, GIF, BMP or TIFF file to ``(size_px, size_px, 3)`` uint8 RGB.

    Raises Reject with the code ``empty``, ``too_many_bytes``, ``not_an_image``, ``too_many_pixels``,
    ``unsupported_pixels`` or ``damaged``; never anything else, whatever the bytes are.
    """
    if not data:
        raise Reject(ErrorCode.EMPTY, "the file has no bytes")
    if len(data) > MAX_BYTES:
        raise Reject(ErrorCode.TOO_MANY_BYTES, f"{len(data):,} bytes, over {MAX_BYTES:,}")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return _pixels(image, size_px)
    except (Reject, MemoryError):  # out of memory is the worker's trouble, not the picture's
        raise
    except UnidentifiedImageError:
        if _SIGNATURE.match(data):
            raise Reject(ErrorCode.DAMAGED, "breaks off, or makes no sense, in its header") from None
        raise Reject(ErrorCode.NOT_AN_IMAGE, f"none of {', '.join(FORMATS)}; begins with {data[:12]!r}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Reject(ErrorCode.TOO_MANY_PIXELS, f"{error}") from None
    except Exception as error:  # noqa: BLE001 - a hostile file can make Pillow raise nearly anything
        raise Reject(ErrorCode.DAMAGED, f"{type(error).__name__}: {error}") from None


def _pixels(image: Image.Image, size_px: int) -> Pixels:
    width, height = image.size
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE_PX:
        limits = f"{MAX_PIXELS:,} in all or {MAX_SIDE_PX:,} on a side"
        raise Reject(ErrorCode.TOO_MANY_PIXELS, f"{width:,} x {height:,} pixels, over {limits}")
    # libjpeg can leave out fine detail (1/2, 1/4, 1/8 of the size) where what is left is still >= size_px: several
    # times faster.
    image.draft(None, (size_px, size_px))
    image.load()
    # After load(): TIFF turns itself upright there, and PNG may carry its EXIF behind the pixels.
    turn = _UPRIGHT.get(_orientation(image))
    # Resizing before turning is the same picture for a square, and turns fewer pixels.
    square = _on_white(_eight_bit(image).resize((size_px, size_px), Image.Resampling.BICUBIC))
    if turn is not None:
        square = square.transpose(turn)
    return np.asarray(square, dtype=np.uint8)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - broken metadata around good pixels: the picture counts, as every viewer has it
        return 1
    return value if isinstance(value, int) else 1


def _eight_bit(image: Image.Image) -> Image.Image:
    """RGB, or RGBA where something shows through."""
    if image.mode.startswith("I;16"):
        # convert() would clip 40,000 to 255. 65,535 / 257 = 255 exactly, rounded, and without leaving 16 bits.
        deep = np.asarray(image)
        return Image.fromarray(((np.minimum(deep, 65_407) + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise Reject(ErrorCode.UNSUPPORTED_PIXELS, "32-bit samples have no agreed black and white: save as 8 or 16 bit")
    wanted = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == wanted else image.convert(wanted)


def _on_white(square: Image.Image) -> Image.Image:
    if square.mode == "RGB":
        return square
    paper = Image.new("RGBA", square.size, "white")
    return Image.alpha_composite(paper, square).convert("RGB")


@functools.cache
def fingerprint() -> str:
    """SHA-256 of what this decoder makes of a fixed JPEG, at two sizes: the same on two machines when, to the bit,
    the same pixels come out. A bundle carries the one it was trained with; another libjpeg or Pillow shows here.
    """
    digest = hashlib.sha256()
    for size_px in (16, 160):
        digest.update(decode(_PROBE, size_px=size_px).tobytes())
    return digest.hexdigest()


#: A 64 x 48 JPEG with subsampled colour, made once for the fingerprint.
_PROBE: Final = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABcQERQRDhcUEhQaGBcbIjklIh8fIkYyNSk5UkhXVVFIUE5bZoNvW2F8Yk5QcptzfIeLkpSSWG2g"
    "rJ+OqoOPko3/2wBDARgaGiIeIkMlJUONXlBejY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY3/wAAR"
    "CAAwAEADASIAAhEBAxEB/8QAFwABAQEBAAAAAAAAAAAAAAAAAwIFBv/EACIQAAICAgICAgMAAAAAAAAAAAABAhEDIRIxE0EiYTJRof/EABgB"
    "AQADAQAAAAAAAAAAAAAAAAQBAgMG/8QAIxEAAgEDAwQDAAAAAAAAAAAAAAIBERIhAyIxIzJBUUJDYf/aAAwDAQACEQMRAD8A5hY3+howVCxi"
    "iljb9F629uSqOF47fQkIUtjRhSpl+O3ojjdHItHB8d1RcMdPY8MddicL6K21m7z6FJqA+O0VHE76Hjip20KoJkSl2WxIpNQzI4mJGKWhIr6F"
    "jivZRWj6zlVf2Esd7EjDjpixjWqFjj5bNYp8eRKuCsfLoSOPjtjRx8fsulW0Wm2NzcikcNQvRSxqLVtFxXLSVfYkcFbvoynVl9yRX9FoxnRx"
    "ISMWtFxix440/QdGu7MHKq4Ucd7FUOOkIoU6QnFKNvv0IhliJ8TAlHBapLWyoQ56f8Fx4+f5boXxqK+OmHq2p1Jnb6Fo9MBLEobXZdNovg3t"
    "9lwg2ZtrUm1MQLRj/9k="
)
