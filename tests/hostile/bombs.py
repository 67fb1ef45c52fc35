"""The bombs of the catalogue: files that take seconds of processor time or hundreds of megabytes to decode.

The catalogue's notes say how much, measured with Pillow 13.0.0 on one core of an Intel Xeon, without any limit.
"""

from typing import Final

from tests.hostile.bodies import BUCKET, Sent, manifest_request
from tests.hostile.files import (
    chunk,
    gif,
    png,
    progressive_jpeg,
    rle8,
    segment,
    tiff,
    tiff_of_a_tile,
    webp_of_one_colour,
    with_segments,
    zeros,
)
from tests.hostile.lists import bomb as gzip_bomb
from worker.scoring.limits import MAX_BYTES

#: A little less than the largest file that is read.
_FULL_BYTES: Final = MAX_BYTES - 2000


def empty_scans(count: int) -> bytes:
    """Returns a progressive JPEG of 30 megapixels, which libjpeg goes over in every scan of 10 bytes."""
    return progressive_jpeg(6000, 5000, empty_scans=count)


def coefficients() -> list[bytes]:
    """Returns eight progressive CMYK JPEGs of 30 megapixels: libjpeg keeps 240 MB for each 165 bytes."""
    return [progressive_jpeg(6000, 5000, empty_scans=1, components=4)] * 8


def repeated_exif(size_bytes: int) -> bytes:
    """Returns a JPEG of EXIF segments, all of which Pillow adds to the first, copying it each time."""
    one = segment(0xE1, b"Exif\0\0" + bytes(10))
    return with_segments(one * (size_bytes // len(one)))


def comments_in_a_jpeg() -> bytes:
    """Returns a JPEG of eight million empty comments, each an object in Pillow's list."""
    return with_segments(segment(0xFE, b"") * (_FULL_BYTES // 4))


def fill_bytes() -> bytes:
    """Returns a JPEG with 32 MiB of 0xFF before a marker, as the standard allows. Pillow reads them one by one."""
    return with_segments(b"\xff" * _FULL_BYTES)


def ends_of_lines() -> bytes:
    """Returns a BMP of 2.9 KB and its palette: a pixel, and an end of the line that Pillow fills byte by byte."""
    return rle8(41_000, 730, b"\1\0\0\0" * 730)


def runs_of_one() -> bytes:
    """Returns a BMP whose 16 million runs have one pixel each."""
    return rle8(6000, 5000, b"\1\5" * (_FULL_BYTES // 2))


def private_chunks() -> bytes:
    """Returns a PNG of 2.8 million empty private chunks, each an object in Pillow's list."""
    return png(16, 16, more=chunk(b"prVt") * (_FULL_BYTES // 12))


def text_chunks() -> bytes:
    """Returns a PNG of a million empty texts, each with another name, which Pillow's limit on text does not count."""
    return png(16, 16, more=b"".join(chunk(b"tEXt", b"%x\0" % number) for number in range(1_000_000)))


def comments_in_gifs() -> list[bytes]:
    """Returns four GIFs whose comments come in eleven million blocks of two bytes: 1.5 GB for each."""
    return [gif(comments=b"!\xfe" + b"\2xx" * (_FULL_BYTES // 3) + b"\0")] * 4


def large_webps() -> list[bytes]:
    """Returns eight WebPs of 28 bytes and 29 megapixels: 450 MB of canvas for each."""
    return [webp_of_one_colour(5400, 5400)] * 8


def damaged_objects() -> list[bytes]:
    """Returns forty times the same 32 MiB: the bodies wait in memory while others are decoded."""
    return [b"\x89PNG\r\n\x1a\n" + bytes(_FULL_BYTES)] * 40


def deep_pngs() -> list[bytes]:
    """Returns four PNGs of 30 megapixels with 16-bit RGBA, within all limits."""
    return [png(6000, 5000, depth=16, colour=6)] * 4


def large_tile() -> bytes:
    """Returns a TIFF of 8 x 8 whose one tile has 1.6 billion pixels in 1.6 MB. Pillow unpacks tiles whole."""
    return tiff_of_a_tile(8, tile_px=40_000)


def cmyk_tiffs() -> list[bytes]:
    """Returns four TIFFs of 30 megapixels of ink, within all limits: 240 MB for each while it becomes RGB."""
    packed = zeros(4 * 6000 * 5000)
    tags = [(256, 6000), (257, 5000), (258, 8), (259, 8), (262, 5), (277, 4), (278, 5000), (279, len(packed))]
    return [tiff([*tags, (273, 8 + 2 + 12 * 9 + 4)], packed)] * 4


def empty_rows() -> Sent:
    """Returns a CSV with a gigabyte of blank lines, which yield no image and so are not counted."""
    return _listed("empty-rows", gzip_bomb(b"\n", start=b"source_ref\n"))


def long_column_names() -> Sent:
    """Returns a CSV of 600 images and eight columns, whose names of 100,000 characters a shard repeats in each line."""
    header = ",".join(["source_ref", *(letter * 100_000 for letter in "abcdefgh")])
    line = f"s3://{BUCKET}/in/none.png" + ",x" * 8
    return _listed("long-names", "\n".join([header, *[line] * 600]).encode())


def _listed(name: str, manifest: bytes) -> Sent:
    return Sent((manifest_request(name, f"lists/{name}"),), {f"lists/{name}": manifest})
