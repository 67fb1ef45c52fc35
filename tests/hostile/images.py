"""The images of the catalogue: small files that are damaged, odd, or something else under an image's name."""

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image

from tests.hostile.files import (
    chunk,
    claiming,
    encoded,
    gif,
    noise,
    png,
    segment,
    tiff_of_strips,
    with_segments,
    zeros,
)
from worker.scoring.decoder import FORMATS, MAX_SIDE_PX

#: What PutObject and GetObject need for an object that is encrypted with its owner's key.
_KEY: Final = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32}
_PLAIN: Final = Image.new("RGB", (16, 16))
#: The EXIF tag of the orientation, CIPA DC-008.
_ORIENTATION: Final = 0x0112


@dataclass(frozen=True, eq=False)
class Stored:
    """An object with other options of PutObject."""

    body: bytes
    options: dict[str, str]


def encrypted() -> Stored:
    """Returns a sound image that only who has its key can read."""
    return Stored(as_kind("PNG"), _KEY)


def as_kind(kind: str, mode: str = "RGB") -> bytes:
    """Returns a plain image as Pillow writes it in any of its formats."""
    return encoded(_PLAIN.convert(mode), kind)


def truncated(part: float) -> list[bytes]:
    """Returns the first ``part`` of a file of each format."""
    files = [encoded(noise(), kind) for kind in FORMATS]
    return [data[: int(len(data) * part)] for data in files]


def headers_claiming(width: int, height: int) -> list[bytes]:
    """Returns a file of each format whose header can have that size, and that has no pixels to decode."""
    kinds = ["JPEG", "PNG", "GIF", "BMP", "TIFF"] if max(width, height) <= MAX_SIDE_PX else ["PNG", "BMP", "TIFF"]
    return [claiming(kind, width, height) for kind in kinds]


def upright_in_every_way() -> list[bytes]:
    """Returns a JPEG with each orientation that EXIF knows, and with three that it does not."""
    return [_with_exif({_ORIENTATION: number}) for number in (*range(1, 9), 0, 9, 65_535)]


def broken_exif() -> list[bytes]:
    """Returns JPEGs whose EXIF is empty, text, cut off, of too many tags, or points out of itself and at itself."""
    points_at_itself = struct.pack("<4sIHHHIII", b"II*\0", 8, 1, 0x8769, 4, 1, 8, 8)
    broken = [b"", b"text", b"II*\0", b"MM\0*\0\0\0\x08\xff\xff", b"II*\0\xff\xff\xff\xff", points_at_itself]
    return [with_segments(segment(0xE1, b"Exif\0\0" + exif)) for exif in broken]


def overlapping_exif() -> bytes:
    """Returns a JPEG of 64 KB whose 5,000 EXIF tags have one another for values, as much as the file each."""
    tags = b"".join(struct.pack("<HHII", 300 + number, 1, 60_000, 8) for number in range(5000))
    return with_segments(segment(0xE1, b"Exif\0\0II*\0" + struct.pack("<IH", 8, 5000) + tags))


def damaged_silently() -> list[bytes]:
    """Returns files with wrong pixels that decode without an error.

    A JPEG with zeros in the middle of its scan, a PNG with 10 of its 64 rows, and one with a wrong checksum.
    """
    jpeg = bytearray(encoded(noise(), "JPEG"))
    middle = len(jpeg) // 2
    jpeg[middle : middle + 200] = bytes(200)
    rows = b"".join(b"\0" + row.tobytes() for row in noise(64, 64))
    sound = png(64, 64, packed=zlib.compress(rows))
    checksum = sound.index(b"IEND") - 5
    altered = sound[:checksum] + bytes([sound[checksum] ^ 1]) + sound[checksum + 1 :]
    return [bytes(jpeg), png(64, 64, packed=zlib.compress(rows[: 10 * 193])), altered]


def png_with_altered_pixels() -> bytes:
    """Returns a PNG with other bytes in the middle of its zlib stream."""
    data = bytearray(encoded(noise(), "PNG"))
    data[len(data) // 2] ^= 0xFF
    return bytes(data)


def animations() -> list[bytes]:
    """Returns three frames in each format that has them."""
    first, *rest = (Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "green"))
    return [encoded(first, kind, save_all=True, append_images=rest) for kind in ("GIF", "PNG", "WEBP", "TIFF")]


def millions_of_frames() -> bytes:
    """Returns a PNG that claims two billion frames."""
    return png(16, 16, more=chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)))


def png_with(name: bytes, size_bytes: int) -> bytes:
    """Returns a PNG with so much text, or so large a colour profile, deflated to a thousandth."""
    return png(16, 16, more=chunk(name, b"k\0\0" + zeros(size_bytes)))


def png_with_a_nameless_chunk() -> bytes:
    """Returns a PNG whose pixels break off, and whose last chunk has a name that is not even ASCII."""
    return png(4, 4, packed=zlib.compress(bytes(9))).replace(b"IEND", b"\x84" * 4)


def png_of_five_bytes() -> bytes:
    """Returns a PNG whose header has five bytes instead of thirteen."""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"\0\0\0\4\0") + chunk(b"IEND")


def tiff_with_endless_text() -> bytes:
    """Returns 26 bytes of TIFF with a description of 4 GB."""
    return b"II*\0" + struct.pack("<IHHHIII", 8, 1, 270, 2, 2**32 - 1, 100, 0)


def riff_files() -> list[bytes]:
    """Returns an AVI and a WAV."""
    return [b"RIFF" + struct.pack("<I", 1000) + kind + bytes(1000) for kind in (b"AVI LIST", b"WAVEfmt ")]


def odd_pixels() -> list[bytes]:
    """Returns CMYK, palettes with alpha, 1 bit, 16 bit, grey with alpha, and a fax."""
    palette = Image.new("P", (16, 16))
    palette.putpalette([200, 30, 40])
    return [
        encoded(Image.new("CMYK", (16, 16)), "JPEG"),
        encoded(Image.new("CMYK", (16, 16)), "TIFF"),
        encoded(palette, "PNG", transparency=0),
        encoded(palette, "GIF", transparency=0),
        encoded(Image.new("1", (16, 16)), "PNG"),
        encoded(Image.new("1", (16, 16)), "TIFF", compression="group4"),
        encoded(Image.fromarray(np.full((16, 16), 40_000, np.uint16)), "PNG"),
        encoded(Image.fromarray(np.full((16, 16), 40_000, np.uint16)), "TIFF"),
        encoded(Image.new("LA", (16, 16)), "PNG"),
        png(16, 16, depth=16, colour=6),
    ]


def tiny_and_long() -> list[bytes]:
    """Returns images of 1 x 1, 1 x 60,000 and 60,000 x 1."""
    return [encoded(Image.new("RGB", size), "PNG") for size in ((1, 1), (1, 60_000), (60_000, 1))]


def wider_than_its_screen() -> bytes:
    """Returns a GIF of 16 x 16 with a frame of 65,535 x 65,535."""
    data = bytearray(gif())
    struct.pack_into("<HH", data, data.index(b",", 13) + 5, 65_535, 65_535)
    return bytes(data)


def canvas_without_frames() -> bytes:
    """Returns 30 bytes of an animated WebP whose canvas is 16,384 x 16,384."""
    fields = b"\x02\0\0\0" + (16_383).to_bytes(3, "little") * 2
    return b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8X" + struct.pack("<I", 10) + fields


def of_another_process() -> list[bytes]:
    """Returns JPEGs that claim to be lossless or of 12 bits, which libjpeg as Pillow has it does not decode."""
    data = encoded(noise(), "JPEG")
    return [data.replace(b"\xff\xc0", b"\xff\xc3"), data.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c")]


def circular_tiff() -> bytes:
    """Returns a TIFF whose next directory is its first one."""
    return tiff_of_strips(16, 16, bytes(256), following=8)


def two_in_one() -> bytes:
    """Returns a JPEG with a zip archive behind it, which both kinds of program open."""
    return as_kind("JPEG") + b"PK\x03\x04" + bytes(100)


def _with_exif(tags: dict[int, Any]) -> bytes:
    exif = Image.Exif()
    for tag, value in tags.items():
        exif[tag] = value
    stream = io.BytesIO()
    _PLAIN.save(stream, "JPEG", exif=exif)
    return stream.getvalue()
