"""The image decoder, from untrusted bytes to pixels. Training and serving use this one.

    decode(data, size_px=160)    ->  (160, 160, 3) uint8 RGB
    thumbnail(data, max_px=160)  ->  (120, 160, 3) uint8 RGB, for people

For a model the image is resized to a square, ignoring its proportions, as Keras's ``image_dataset_from_directory``
does. A thumbnail keeps them. EXIF orientation is applied, transparent parts are put on white, colour profiles are
ignored, and an animation is its first frame.

A truncated file is refused, but not all damage can be detected: JPEG and PNG data with wrong pixels in the middle
decodes without an error. Only the storage's checksums prove integrity.
"""

import base64
import functools
import hashlib
import io
import math
import re
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

# Each import registers a format. Pillow would otherwise import all 43 of them for a file that it does not recognise.
from PIL import (
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from worker.errors import ErrorCode, Reject
from worker.scoring.limits import MAX_BYTES, MAX_PIXELS, MAX_SIDE_PX

Pixels = NDArray[np.uint8]
#: Width and height of an image, to those of its pixels.
_Fit = Callable[[tuple[int, int]], tuple[int, int]]

#: Pillow registers 43 formats, some of which start other programs (EPS runs Ghostscript). It decodes these six itself.
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
#: How files of these formats begin.
SIGNATURE: Final = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP|GIF8[79]a|BM....\0\0\0\0|II\*\0|MM\0\*", re.DOTALL
)
#: https://nokiatech.github.io/heif/technical.html#table-1
_HEIC: Final = re.compile(rb"....ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)", re.DOTALL)
#: Of a file that is not an image, in its message.
_QUOTED_BYTES: Final = 12

#: How Pillow words damage, what to say instead, and whether its own words add anything. The first match counts.
_DAMAGE: Final = (
    (
        r"(?i)truncated|incomplete|not enough image data|index out of range|requires a buffer|must be .* bytes",
        "the file ends in the middle of the picture",
        False,
    ),
    # libwebp does not say which of the two it is.
    ("could not create decoder object|failed to read next frame", "its WebP data is cut off or damaged", False),
    (
        "(?i)unsupported|unknown (comp|pixel|filter)|cannot handle",
        "a variant of its format that is not supported",
        True,
    ),
    ("(?i)PNG|cannot load this image|image data found", "its PNG data is damaged", False),
    (
        "decod|broken data stream|unrecognized data|buffer overrun|bad configuration",
        "its picture data is damaged",
        False,
    ),
)
_UNKNOWN: Final = "it cannot be decoded"

_EXIF_ORIENTATION: Final = 0x0112
#: The transposition that undoes each EXIF orientation (CIPA DC-008, tag 0x0112).
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes, *, size_px: int, admit: Callable[[int], None] = lambda _: None) -> Pixels:
    """Decodes a JPEG, PNG, WebP, GIF, BMP or TIFF file to ``(size_px, size_px, 3)`` uint8 RGB.

    ``admit`` is called with an estimate of the bytes that the pixels will need, before they are decoded. Raises Reject
    with the code ``empty``, ``too_many_bytes``, ``not_an_image``, ``too_many_pixels``, ``unsupported_pixels`` or
    ``damaged``, or else MemoryError, and nothing else, whatever the bytes are.
    """
    return _decoded(data, lambda _: (size_px, size_px), admit)


def thumbnail(data: bytes, *, max_px: int, admit: Callable[[int], None] = lambda _: None) -> Pixels:
    """Decodes a file as ``decode`` does to ``(H, W, 3)`` uint8 RGB, in its own proportions.

    The longer side has ``max_px`` pixels, or fewer: a small image is not enlarged.
    """

    def fit(size: tuple[int, int]) -> tuple[int, int]:
        scale = min(1.0, max_px / max(size))
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

    return _decoded(data, fit, admit)


def _decoded(data: bytes, fit: _Fit, admit: Callable[[int], None]) -> Pixels:
    if not data:
        raise Reject(ErrorCode.EMPTY, "the file has no bytes")
    if len(data) > MAX_BYTES:
        raise Reject(ErrorCode.TOO_MANY_BYTES, f"{len(data):,} bytes, over the limit of {MAX_BYTES:,}")
    webp_size = _webp_size(data)
    if webp_size is not None:  # libwebp allocates all its pixels when it opens the file
        _check_size(*webp_size)
        admit(4 * 4 * math.prod(webp_size))  # two frames of its own, the one it hands over, and Pillow's copy
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return _pixels(image, fit, (lambda _: None) if webp_size else admit)
    except (Reject, MemoryError):
        raise
    except UnidentifiedImageError:
        if SIGNATURE.match(data):
            raise Reject(ErrorCode.DAMAGED, "its header is truncated or corrupt") from None
        raise Reject(ErrorCode.NOT_AN_IMAGE, _what(data)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Reject(ErrorCode.TOO_MANY_PIXELS, _counted(f"{error}")) from None
    except Exception as error:  # noqa: BLE001 - a hostile file can make Pillow raise nearly anything
        if "out of memory" in str(error):  # ImageFile.ERRORS: a codec in C that could not allocate
            raise MemoryError from None
        raise Reject(ErrorCode.DAMAGED, _plainly(error)) from None


def _what(data: bytes) -> str:
    """Describes a file that is not an image: telephones make HEIC, and twelve bytes tell an error page from a PDF."""
    if _HEIC.match(data):
        return "HEIC, not supported (save as JPEG)"
    more = "…" if len(data) > _QUOTED_BYTES else ""
    return f"not a JPEG, PNG, WebP, GIF, BMP or TIFF file; begins with {repr(data[:_QUOTED_BYTES])[1:]}{more}"


def _counted(bomb: str) -> str:
    """Returns the number of pixels from Pillow's message about a decompression bomb, with the limit that holds here."""
    found = re.search(r"\d+", bomb)
    return f"{int(found[0]):,} pixels, over the limit of {MAX_PIXELS:,}" if found else bomb


def _plainly(error: Exception) -> str:
    """Describes damage in plain words, followed by Pillow's own where these say more."""
    text = f"{error}"
    words, adds = next(
        ((words, adds) for pattern, words, adds in _DAMAGE if re.search(pattern, text)), (_UNKNOWN, True)
    )
    return f"{words} ({type(error).__name__}: {text})" if adds and text else words


def _pixels(image: Image.Image, fit: _Fit, admit: Callable[[int], None]) -> Pixels:
    width, height = image.size
    _check_size(width, height)
    # libjpeg can decode at 1/2, 1/4 or 1/8 of the size where that is still large enough, which is several times faster.
    image.draft(None, fit(image.size))
    admit(_needs(image, width * height))
    image.load()
    # After load(): TIFF turns itself upright there, and PNG may carry its EXIF after the pixels.
    turn = _UPRIGHT.get(_orientation(image))
    # The order does not change the result, and turning after resizing moves fewer pixels.
    resized = _on_white(_resized(_eight_bit(image), fit(image.size)))
    if turn is not None:
        resized = resized.transpose(turn)
    return np.asarray(resized, dtype=np.uint8)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE_PX:
        limits = f"{MAX_PIXELS:,} in total or {MAX_SIDE_PX:,} on a side"
        raise Reject(ErrorCode.TOO_MANY_PIXELS, f"{width:,} x {height:,} pixels, over the limit of {limits}")


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Returns width and height of a WebP file, or None for anything else (RFC 9649, sections 2.5 to 2.7)."""
    header = data[:30].ljust(30, b"\0")
    if header[:4] != b"RIFF" or header[8:12] != b"WEBP":
        return None
    match header[12:16]:
        case b"VP8X":
            return 1 + int.from_bytes(header[24:27], "little"), 1 + int.from_bytes(header[27:30], "little")
        case b"VP8L":
            bits = int.from_bytes(header[21:25], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case _:
            width, height = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
            return width & 0x3FFF, height & 0x3FFF


def _needs(image: Image.Image, file_pixels: int) -> int:
    """Returns about how many bytes the pixels will take, as measured with 30 million of them."""
    needs = 8 * image.width * image.height  # Pillow keeps four bytes for most pixels, and converting makes a copy
    if image.info.get("progressive"):  # libjpeg keeps all coefficients, in two bytes each, whatever the scale
        needs += 2 * len(image.getbands()) * file_pixels
    return needs


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - broken metadata around good pixels, which every viewer shows
        return 1
    return value if isinstance(value, int) else 1


def _eight_bit(image: Image.Image) -> Image.Image:
    """Converts an image to RGB, or to RGBA where it is transparent."""
    if image.mode.startswith("I;16"):
        # convert() would clip 40,000 to 255. 65,535 / 257 = 255 exactly, rounded, and without leaving 16 bits.
        deep = np.asarray(image)
        return Image.fromarray(((np.minimum(deep, 65_407) + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise Reject(
            ErrorCode.UNSUPPORTED_PIXELS,
            "32-bit samples have no agreed black and white: save the image with 8 or 16 bits",
        )
    return _replaced(image, "RGBA" if image.has_transparency_data else "RGB")


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    if image.size == size:
        return image
    # As Pillow does it, with transparent pixels weighted by their opacity, but never with three copies in memory.
    weighted = _replaced(image, {"RGBA": "RGBa"}.get(image.mode, image.mode))
    return weighted.resize(size, Image.Resampling.BICUBIC).convert(image.mode)


def _replaced(image: Image.Image, mode: str) -> Image.Image:
    """Converts an image to another mode, and frees its own pixels: they can take 120 MB."""
    if image.mode == mode:
        return image
    converted = image.convert(mode)
    image.close()
    return converted


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    paper = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(paper, image).convert("RGB")


@functools.cache
def fingerprint() -> str:
    """Returns the SHA-256 of a fixed JPEG's pixels, decoded at two sizes.

    Two machines have the same fingerprint when they decode it to the same pixels, bit for bit. A bundle records the
    fingerprint of its training, so another version of libjpeg or Pillow is noticed.
    """
    digest = hashlib.sha256()
    for size_px in (16, 160):
        digest.update(decode(_PROBE, size_px=size_px).tobytes())
    return digest.hexdigest()


#: The JPEG of the fingerprint: 64 x 48, with subsampled colour.
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
