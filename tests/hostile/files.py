"""Image files built byte by byte, as no program writes them. Each function returns the bytes of one file."""

import io
import struct
import zlib
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from worker.scoring.decoder import Pixels

MIB: Final = 1024 * 1024


def encoded(image: Image.Image | NDArray[Any], kind: str, **options: Any) -> bytes:
    """Encodes an image with Pillow."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def noise(height: int = 60, width: int = 80) -> Pixels:
    """Returns ``(H, W, 3)`` random pixels, always the same ones. They do not compress."""
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)


def zeros(size_bytes: int) -> bytes:
    """Returns a zlib stream of zeros, a thousandth of their size, in microseconds.

    Behind a full flush deflate knows nothing of what came before, so every MiB has the same compressed bytes.
    """
    packer = zlib.compressobj(9, wbits=-15)
    mib = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = packer.compress(bytes(size_bytes % MIB)) + packer.flush()
    adler = struct.pack(">I", size_bytes % 65_521 << 16 | 1)  # RFC 1950: the sum of zeros is 1 from byte to byte
    return b"\x78\xda" + mib * (size_bytes // MIB) + rest + adler


# PNG, https://www.w3.org/TR/png-3/

_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def chunk(name: bytes, data: bytes = b"") -> bytes:
    """Returns a PNG chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    width: int, height: int, *, depth: int = 8, colour: int = 2, packed: bytes | None = None, more: bytes = b""
) -> bytes:
    """Returns a PNG. ``packed`` is its zlib stream, by default of zeros; ``more`` are chunks before it."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    if packed is None:
        packed = zeros(height * (1 + (width * depth * _CHANNELS[colour] + 7) // 8))
    return b"\x89PNG\r\n\x1a\n" + header + more + chunk(b"IDAT", packed) + chunk(b"IEND")


# JPEG, https://www.w3.org/Graphics/JPEG/itu-t81.pdf


def segment(marker: int, data: bytes) -> bytes:
    """Returns a JPEG marker segment with its length."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def with_segments(segments: bytes) -> bytes:
    """Returns a small JPEG with these segments at its beginning."""
    sound = encoded(Image.new("RGB", (16, 16)), "JPEG")
    return sound[:2] + segments + sound[2:]


def progressive_jpeg(width: int, height: int, *, empty_scans: int, components: int = 1) -> bytes:
    """Returns a progressive JPEG of grey blocks, whose scans for detail have a header of 10 bytes and no data.

    libjpeg goes over all blocks of the image in every scan.
    """
    numbers = range(1, components + 1)
    frame = struct.pack(">BHHB", 8, height, width, components) + b"".join(bytes([n, 0x11, 0]) for n in numbers)
    one_code = bytes([1, *[0] * 15, 0])
    tables = segment(0xDB, b"\0" + b"\1" * 64) + segment(0xC4, b"\x00" + one_code) + segment(0xC4, b"\x10" + one_code)
    brightness = segment(0xDA, bytes([components]) + b"".join(bytes([n, 0]) for n in numbers) + b"\0\0\0")
    detail = segment(0xDA, b"\1\1\0\1\x3f\0")
    return b"\xff\xd8" + tables + segment(0xC2, frame) + brightness + detail * empty_scans + b"\xff\xd9"


# GIF, https://www.w3.org/Graphics/GIF/spec-gif89a.txt


def gif(*, frames: int = 1, comments: bytes = b"") -> bytes:
    """Returns a GIF of equal frames. ``comments`` are extensions before the first one."""
    sound = encoded(Image.new("P", (16, 16)), "GIF")
    start = sound.index(b",", 13)
    return sound[:start] + comments + sound[start:-1] * frames + b";"


# BMP, https://learn.microsoft.com/windows/win32/gdi/bitmap-storage


def rle8(width: int, height: int, codes: bytes) -> bytes:
    """Returns a BMP with 256 colours and run-length codes, of two bytes each: how many pixels, and which one."""
    palette = b"".join(bytes([n, 255 - n, n, 0]) for n in range(256))
    start = 14 + 40 + len(palette)
    header = struct.pack("<2sIHHI", b"BM", start + len(codes), 0, 0, start)
    fields = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(codes), 0, 0, 256, 0)
    return header + fields + palette + codes


# WebP, https://developers.google.com/speed/webp/docs/webp_lossless_bitstream_specification


def webp_of_one_colour(width: int, height: int) -> bytes:
    """Returns a lossless WebP of 28 bytes: its five codes have one symbol each, so that its pixels take no bits."""
    codes = [(1, 1), (0, 1), (0, 1), (0, 1)] * 5  # simple, of one symbol, which has one bit: 0
    fields = [(0x2F, 8), (width - 1, 14), (height - 1, 14), (1, 1), (0, 3), (0, 3), *codes]
    bits, count = 0, 0
    for value, size in fields:
        bits, count = bits | value << count, count + size
    data = bits.to_bytes(-(-count // 16) * 2, "little")
    return b"RIFF" + struct.pack("<I", 12 + len(data)) + b"WEBPVP8L" + struct.pack("<I", len(data)) + data


# TIFF, https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf

_TIFF_START: Final = 8
_SHORT, _LONG = 3, 4


def tiff(tags: Iterable[tuple[int, int]], data: bytes = b"", *, following: int = 0) -> bytes:
    """Returns a TIFF with a directory of numbers and ``data`` behind it; ``following`` is where the next one begins."""
    entries = b"".join(struct.pack("<HHII", tag, _LONG, 1, value) for tag, value in sorted(tags))
    count = struct.pack("<H", len(entries) // 12)
    return b"II*\0" + struct.pack("<I", _TIFF_START) + count + entries + struct.pack("<I", following) + data


def tiff_of_strips(width: int, height: int, data: bytes = b"", *, following: int = 0) -> bytes:
    """Returns a grey TIFF of one strip without compression."""
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (277, 1), (278, height), (279, len(data) or 8)]
    return tiff([*tags, (273, _TIFF_START + 2 + 12 * 9 + 4)], data, following=following)


def tiff_of_a_tile(size_px: int, *, tile_px: int) -> bytes:
    """Returns a grey, square TIFF whose one deflated tile is larger than the image."""
    packed = zeros(tile_px * tile_px)
    sizes = [(256, size_px), (257, size_px), (322, tile_px), (323, tile_px), (325, len(packed))]
    place = _TIFF_START + 2 + 12 * 10 + 4
    return tiff([*sizes, (258, 8), (259, 8), (262, 1), (277, 1), (324, place)], packed)


def claiming(kind: str, width: int, height: int) -> bytes:
    """Returns a few bytes whose header claims that many pixels. There are no pixels to decode."""
    if kind == "PNG":
        return png(width, height, packed=zlib.compress(b""))
    if kind == "TIFF":
        return tiff_of_strips(width, height)
    data = bytearray(encoded(Image.new("RGB", (16, 16)), kind))
    if kind == "JPEG":
        struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    elif kind == "GIF":
        struct.pack_into("<HH", data, 6, width, height)
    elif kind == "BMP":
        struct.pack_into("<ii", data, 18, width, height)
    return bytes(data)
