"""The decoder: it returns what a viewer shows, as (size, size, 3) uint8 RGB, or refuses with a code. Nothing else."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.batch.image_files import HEIC
from tests.conftest import REPOSITORY
from tests.hostile.catalogue import CATALOGUE, IMAGE, Entry
from tests.hostile.files import encoded, png
from tests.hostile.images import as_kind
from worker.errors import ErrorCode, Reject
from worker.scoring.decoder import FORMATS, Pixels, decode, fingerprint, thumbnail
from worker.scoring.limits import MAX_BYTES, MAX_PIXELS

# Pillow warns about odd files, and odd files are what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")

RED, GREEN, BLUE, WHITE = (220, 30, 40), (30, 180, 60), (40, 50, 200), (255, 255, 255)


@pytest.fixture
def odd_images(shared: Path) -> Path:
    """The folder of odd files, which image libraries keep as test inputs."""
    folder = shared / "data" / "odd_images"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: set TWOFOLD_SHARED to the folder that holds data/odd_images")
    return folder


def _quarters(height: int, width: int) -> Pixels:
    """``(H, W, 3)``: red and green above blue and white, an image that differs in all eight orientations."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2], pixels[: height // 2, width // 2 :] = RED, GREEN
    pixels[height // 2 :, : width // 2], pixels[height // 2 :, width // 2 :] = BLUE, WHITE
    return pixels


def _photograph(height: int, width: int) -> Pixels:
    """``(H, W, 3)``: broad shapes and a little noise, as from a camera."""
    y, x = np.mgrid[0:height, 0:width] / width
    shapes = np.stack([np.sin(9 * x + 2 * y), np.cos(7 * y * x), np.sin(5 * (x - y) ** 2 + 1)], axis=-1)
    noise = np.random.default_rng(1).normal(0, 4, (height, width, 3))
    return np.clip(shapes * 100 + 128 + noise, 0, 255).astype(np.uint8)


def _code(data: bytes) -> ErrorCode:
    with pytest.raises(Reject) as caught:
        decode(data, size_px=32)
    assert len(caught.value.message) < 1000
    return caught.value.code


def _outcome(data: bytes) -> str:
    """What becomes of a file, in the words of the catalogue."""
    try:
        decode(data, size_px=32)
    except Reject as reject:
        return reject.code.value if len(reject.message) < 1000 else reject.message
    return "scored"


def _message(data: bytes) -> str:
    with pytest.raises(Reject) as caught:
        decode(data, size_px=32)
    return caught.value.message


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_is_cut_off_is_described_in_plain_words(kind: str) -> None:
    """Without a class or a phrase of Pillow's, which mean nothing to whoever took the picture."""
    whole = encoded(_photograph(90, 120), kind)
    told = "its WebP data is cut off or damaged" if kind == "WEBP" else "the file ends in the middle of the picture"
    assert _message(whole[: len(whole) * 2 // 3]) == told


def test_damage_in_the_middle_is_described_in_plain_words() -> None:
    """A PNG file has checksums, so it is noticed there."""
    whole = encoded(_photograph(90, 120), "PNG")
    half = len(whole) // 2
    assert _message(whole[:half] + bytes(40) + whole[half + 40 :]) == "its picture data is damaged"


def test_pillows_own_words_follow_where_they_say_more() -> None:
    """Which variant it is that nobody can read."""
    file = bytearray(encoded(_quarters(60, 80), "BMP"))
    file[28] = 71
    assert _message(bytes(file)) == (
        "a variant of its format that is not supported (OSError: Unsupported BMP pixel depth (71))"
    )


def test_the_pixels_of_a_bomb_are_compared_with_the_limit_that_holds() -> None:
    """Not with Pillow's own, which is another one."""
    file = bytearray(encoded(_quarters(60, 80), "BMP"))
    file[18:26] = struct.pack("<ii", 50_000, 50_000)
    assert _message(bytes(file)) == f"2,500,000,000 pixels, over the limit of {MAX_PIXELS:,}"


def _one_colour(data: bytes) -> list[int]:
    """The colour of an image of one colour, give or take JPEG's losses."""
    pixels = decode(data, size_px=16)
    assert np.ptp(pixels.reshape(-1, 3).astype(int), axis=0).max() <= 4
    colour: list[int] = pixels[8, 8].tolist()
    return colour


def _difference(one: Pixels, other: Pixels) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("size_px", [16, 96, 160])
def test_every_format_decodes_to_the_size_asked_for(kind: str, size_px: int) -> None:
    """``(size_px, size_px, 3)`` uint8: the stored image, squeezed to a square."""
    pixels = decode(encoded(_quarters(60, 80), kind), size_px=size_px)
    assert pixels.shape == (size_px, size_px, 3)
    assert pixels.dtype == np.uint8
    assert _difference(pixels, _quarters(size_px, size_px)) < 8
    near, far = size_px // 4, 3 * size_px // 4
    corners = [pixels[near, near], pixels[near, far], pixels[far, near], pixels[far, far]]
    assert np.abs(np.array(corners, int) - [RED, GREEN, BLUE, WHITE]).max() <= 12


#: How a camera in each orientation stores an upright image (CIPA DC-008, tag 0x0112).
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, 3),
}


def _turned(pixels: Pixels, orientation: int, kind: str, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(STORED[orientation](pixels))
    return encoded(stored, kind, exif=exif, **options)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_image_is_upright_however_the_camera_was_held(kind: str, orientation: int) -> None:
    """All eight EXIF orientations, in each format that has EXIF."""
    upright = _quarters(60, 80)
    pixels = decode(_turned(upright, orientation, kind), size_px=64)
    assert _difference(pixels, decode(encoded(upright, kind), size_px=64)) < 3


@pytest.mark.parametrize("orientation", STORED)
def test_a_large_photograph_is_upright(orientation: int) -> None:
    """Also where libjpeg decodes at a fraction of the size."""
    upright = _photograph(480, 640)
    pixels = decode(_turned(upright, orientation, "JPEG", quality=90), size_px=64)
    assert _difference(pixels, decode(encoded(upright, "JPEG", quality=90), size_px=64)) < 2


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_thumbnail_shows_an_image_upright_and_in_its_proportions(kind: str, orientation: int) -> None:
    """The longer side has the size asked for."""
    pixels = thumbnail(_turned(_quarters(60, 80), orientation, kind), max_px=40)
    assert pixels.shape == (30, 40, 3)
    corners = [pixels[7, 10], pixels[7, 30], pixels[22, 10], pixels[22, 30]]
    assert np.abs(np.array(corners, int) - [RED, GREEN, BLUE, WHITE]).max() <= 12


@pytest.mark.parametrize(
    ("stored", "shown"),
    [((480, 640), (150, 200)), ((640, 480), (200, 150)), ((900, 3), (200, 1)), ((30, 40), (30, 40)), ((1, 1), (1, 1))],
)
def test_a_thumbnail_is_never_larger_than_asked_or_than_the_image(
    stored: tuple[int, int], shown: tuple[int, int]
) -> None:
    """``(H, W)``; also where libjpeg decodes at a fraction of the size."""
    for kind in ("JPEG", "PNG"):
        assert thumbnail(encoded(_photograph(*stored), kind), max_px=200).shape == (*shown, 3)


@pytest.mark.parametrize("orientation", [0, 9, 99, 65535])
def test_an_unknown_orientation_is_ignored(orientation: int) -> None:
    """The pixels are used as they are."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert _difference(decode(encoded(_quarters(60, 80), "JPEG", exif=exif), size_px=64), _quarters(64, 64)) < 8


@pytest.mark.parametrize("dpi", [None, (72, 72)])  # without a resolution, Pillow itself reads EXIF
@pytest.mark.parametrize(
    "exif",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"nothing", id="text"),
        pytest.param(b"II*\0", id="truncated"),
        pytest.param(b"MM\0*\0\0\0\x08\xff\xff", id="too many tags"),
        pytest.param(b"II*\0\xff\xff\xff\xff", id="offset outside the file"),
    ],
)
def test_broken_exif_around_good_pixels_is_ignored(exif: bytes, dpi: tuple[int, int] | None) -> None:
    """Every viewer shows such a file."""
    options: dict[str, Any] = {"dpi": dpi} if dpi else {}
    data = encoded(_quarters(60, 80), "JPEG", exif=b"Exif\0\0" + exif, **options)
    assert _difference(decode(data, size_px=64), _quarters(64, 64)) < 8


def _palette(colours: list[tuple[int, int, int]]) -> Image.Image:
    image = Image.new("P", (20, 20), 0)
    image.putpalette([part for colour in colours for part in colour])
    return image


def _layers(colour: tuple[int, ...], mode: str) -> Image.Image:
    return Image.new(mode, (20, 20), colour)


#: A file of one colour, and the colour that a viewer shows on white.
COLOURS: dict[str, tuple[bytes, tuple[int, int, int]]] = {
    "grey JPEG": (encoded(Image.new("L", (20, 20), 77), "JPEG"), (77, 77, 77)),
    "grey PNG": (encoded(Image.new("L", (20, 20), 77), "PNG"), (77, 77, 77)),
    "1-bit black": (encoded(Image.new("1", (20, 20), 0), "PNG"), (0, 0, 0)),
    "1-bit white": (encoded(Image.new("1", (20, 20), 1), "BMP"), WHITE),
    "1-bit fax": (encoded(Image.new("1", (20, 20), 1), "TIFF", compression="group4"), WHITE),
    "palette PNG": (encoded(_palette([RED, BLUE]), "PNG"), RED),
    "palette GIF": (encoded(_palette([RED, BLUE]), "GIF"), RED),
    "palette BMP": (encoded(_palette([RED, BLUE]), "BMP"), RED),
    "palette TIFF": (encoded(_palette([RED, BLUE]), "TIFF"), RED),
    "palette PNG, transparent": (encoded(_palette([RED, BLUE]), "PNG", transparency=0), WHITE),
    "palette PNG, half transparent": (encoded(_palette([BLUE]), "PNG", transparency=b"\x80"), (147, 152, 227)),
    "palette GIF, transparent": (encoded(_palette([RED, BLUE]), "GIF", transparency=0), WHITE),
    "RGB PNG with a transparent colour": (encoded(Image.new("RGB", (20, 20), RED), "PNG", transparency=RED), WHITE),
    "grey PNG with a transparent shade": (encoded(Image.new("L", (20, 20), 9), "PNG", transparency=9), WHITE),
    "grey and alpha, opaque": (encoded(_layers((77, 255), "LA"), "PNG"), (77, 77, 77)),
    "grey and alpha, transparent": (encoded(_layers((77, 0), "LA"), "PNG"), WHITE),
    "RGBA PNG, opaque": (encoded(_layers((*RED, 255), "RGBA"), "PNG"), RED),
    "RGBA PNG, transparent": (encoded(_layers((*RED, 0), "RGBA"), "PNG"), WHITE),
    "RGBA PNG, half transparent": (encoded(_layers((*BLUE, 128), "RGBA"), "PNG"), (147, 152, 227)),
    "RGBA WebP, transparent": (encoded(_layers((*RED, 0), "RGBA"), "WEBP", lossless=True, exact=True), WHITE),
    "RGBA TIFF, transparent": (encoded(_layers((*RED, 0), "RGBA"), "TIFF"), WHITE),
    "CMYK JPEG, no ink": (encoded(_layers((0, 0, 0, 0), "CMYK"), "JPEG", quality=95), WHITE),
    "CMYK JPEG, black": (encoded(_layers((0, 0, 0, 255), "CMYK"), "JPEG", quality=95), (0, 0, 0)),
    "CMYK JPEG, magenta and yellow": (encoded(_layers((0, 255, 255, 0), "CMYK"), "JPEG", quality=95), (255, 0, 0)),
    "CMYK TIFF": (encoded(_layers((255, 0, 255, 0), "CMYK"), "TIFF"), (0, 255, 0)),
    "16-bit grey PNG": (encoded(np.full((20, 20), 40_000, np.uint16), "PNG"), (156, 156, 156)),
    "16-bit grey PNG, white": (encoded(np.full((20, 20), 65_535, np.uint16), "PNG"), WHITE),
    "16-bit grey PNG, nearly black": (encoded(np.full((20, 20), 128, np.uint16), "PNG"), (0, 0, 0)),
    "16-bit TIFF, little-endian": (encoded(np.full((20, 20), 40_000, "<u2"), "TIFF"), (156, 156, 156)),
    "16-bit TIFF, big-endian": (encoded(np.full((20, 20), 40_000, ">u2"), "TIFF"), (156, 156, 156)),
    "1 x 1": (encoded(Image.new("RGB", (1, 1), GREEN), "PNG"), GREEN),
    "1 x 60,000": (encoded(Image.new("RGB", (1, 60_000), GREEN), "PNG"), GREEN),
    "60,000 x 1": (encoded(Image.new("RGB", (60_000, 1), GREEN), "JPEG", quality=95), GREEN),
}


@pytest.mark.parametrize("name", COLOURS)
def test_every_kind_of_pixel_has_the_colour_that_a_viewer_shows(name: str) -> None:
    """Transparent parts are put on white, CMYK is ink on paper, and 16 bits are scaled and not clipped."""
    data, colour = COLOURS[name]
    assert _one_colour(data) == pytest.approx(colour, abs=3)


@pytest.mark.parametrize(
    ("colour", "samples"), [(2, [40_000] * 3), (4, [40_000, 65_535]), (6, [*[40_000] * 3, 65_535])]
)
def test_16_bit_colour_is_scaled_like_grey(colour: int, samples: list[int]) -> None:
    """RGB, grey with alpha, and RGBA."""
    line = b"\0" + struct.pack(f">{len(samples)}H", *samples) * 4
    data = png(4, 4, depth=16, colour=colour, packed=zlib.compress(line * 4))
    assert _one_colour(data) == pytest.approx([156] * 3, abs=1)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_is_its_first_frame(kind: str) -> None:
    """And a TIFF its first page."""
    first, *rest = (Image.new("RGB", (20, 20), colour) for colour in (RED, BLUE, GREEN))
    options: dict[str, Any] = {"WEBP": {"lossless": True}}.get(kind, {})
    data = encoded(first, kind, save_all=True, append_images=rest, **options)
    assert _one_colour(data) == pytest.approx(RED, abs=3)


@pytest.mark.parametrize("entry", [entry for entry in CATALOGUE if entry.kind is IMAGE], ids=lambda entry: entry.name)
def test_an_image_of_the_catalogue_is_decoded_or_refused_with_its_code(entry: Entry) -> None:
    """Without a worker around it; ``tests/hostile`` sends the same files to one."""
    product = entry.make()
    files = product if isinstance(product, list) else [product]
    assert entry.holds([_outcome(data) for data in files])


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for Ghostscript is a shell script")
def test_an_eps_file_does_not_start_ghostscript(tmp_path: Path) -> None:
    """No format that runs a program is ever tried."""
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    ghostscript.chmod(0o755)
    code = "import sys\nfrom worker.scoring.decoder import decode\ndecode(sys.stdin.buffer.read(), size_px=32)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=as_kind("EPS"),
        env=os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
    )
    assert b"not_an_image" in done.stderr
    assert not (tmp_path / "started").exists()


def test_32_mib_are_accepted_and_one_byte_more_is_not() -> None:
    """The limit itself passes."""
    data = encoded(_quarters(60, 80), "JPEG").ljust(MAX_BYTES, b"\0")
    assert decode(data, size_px=16).shape == (16, 16, 3)
    assert _code(data + b"\0") is ErrorCode.TOO_MANY_BYTES


def test_30_million_pixels_are_accepted() -> None:
    """The limit itself passes."""
    assert _one_colour(encoded(Image.new("1", (6000, 5000), 1), "PNG")) == [255, 255, 255]
    assert MAX_PIXELS == 6000 * 5000


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_is_truncated_in_its_header_is_damaged(kind: str) -> None:
    """The first sixteen bytes show the format, wherever the file ends after them."""
    data = encoded(_photograph(60, 80), kind)
    assert {_code(data[:length]) for length in range(16, 300)} == {ErrorCode.DAMAGED}


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size_and_looks_the_same() -> None:
    """Detail that resizing would drop is not decoded. That is several times faster, and close to the full image."""
    data = encoded(_photograph(1200, 1600), "JPEG", quality=90)
    with Image.open(io.BytesIO(data)) as image:
        full = np.asarray(image.convert("RGB").resize((160, 160), Image.Resampling.BICUBIC))
    with Image.open(io.BytesIO(data)) as image:
        image.draft(None, (160, 160))
        assert image.size == (400, 300)
        drafted = np.asarray(image.convert("RGB").resize((160, 160), Image.Resampling.BICUBIC))
    pixels = decode(data, size_px=160)
    assert np.array_equal(pixels, drafted)
    assert not np.array_equal(pixels, full)
    assert _difference(pixels, full) < 2


def test_the_fingerprint_is_the_same_in_every_process() -> None:
    """A SHA-256 that training and serving can compare."""
    assert len(bytes.fromhex(fingerprint())) == 32
    fingerprint.cache_clear()
    code = "from worker.scoring.decoder import fingerprint; print(fingerprint())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stdout.strip() == fingerprint()


#: Every file of ``data/odd_images``: the code of its refusal, or its mean red, green and blue at 32 pixels.
ODD: dict[str, ErrorCode | tuple[int, int, int]] = {
    "16_bit_binary.pgm": ErrorCode.NOT_AN_IMAGE,  # PGM is not among the six formats
    "MADE_html_error_page.jpg": ErrorCode.NOT_AN_IMAGE,
    "apng_mode_16bit.png": (255, 0, 0),
    "apng_syntax_num_frames_zero.png": ErrorCode.DAMAGED,  # no frames, and no default image
    "broken.png": ErrorCode.DAMAGED,  # a PNG signature, then noise
    "broken_exif_dpi.jpg": (0, 128, 1),
    "decompression_bomb.gif": ErrorCode.TOO_MANY_PIXELS,  # 4.4 billion pixels in 44 bytes
    "dispose_bgnd.gif": (72, 169, 247),  # the first frame
    "exif_gps.jpg": (0, 0, 0),
    "exif_imagemagick_orientation.png": (144, 142, 142),
    "frozenpond.mpo": (108, 104, 101),  # two JPEGs in one file, one for each eye: the first
    "hopper.webp": (90, 80, 95),
    "hopper_bad_exif.jpg": (124, 124, 124),  # garbage in the middle, which libjpeg accepts
    "hopper_orientation_2.jpg": (90, 80, 95),
    "hopper_orientation_5.jpg": (90, 80, 95),
    "hopper_orientation_6.webp": (90, 80, 96),
    "hymenoptera_imageNotFound.gif": (242, 242, 242),  # an image that says that there is no image
    "invalid-exif-without-x-resolution.jpg": (1, 1, 1),
    "iss634.apng": (135, 137, 90),  # the first frame
    "junk_jpeg_header.jpg": (117, 116, 117),
    "multiple_exif.jpg": (0, 0, 0),
    "p_trns_single.png": (128, 176, 163),  # a hole, on white
    "pil_sample_cmyk.jpg": (26, 6, 8),
    "sugarshack_bad_mpo_header.jpg": (121, 109, 99),
    "transparent.png": (211, 202, 204),  # on white
    "truncated_app14.jpg": (28, 5, 3),  # CMYK with a truncated Adobe marker
    "truncated_exif_dpi.jpg": (255, 255, 255),
    "truncated_jpeg.jpg": ErrorCode.DAMAGED,
}


def test_what_is_not_an_image_is_quoted_and_an_ellipsis_says_that_there_is_more() -> None:
    """Twelve bytes tell an error page from a PDF file."""
    for data, said in ((b"not a picture at all", "'not a pictur'…"), (b"not a pictur", "'not a pictur'")):
        with pytest.raises(Reject) as refused:
            decode(data, size_px=32)
        assert refused.value.message.endswith(f"; begins with {said}")


def test_a_photograph_of_a_telephone_is_called_by_its_format() -> None:
    """As ``twofold batch submit`` calls it, which leaves it out by its name."""
    with pytest.raises(Reject) as refused:
        decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", size_px=32)
    assert (refused.value.code, refused.value.message) == (ErrorCode.NOT_AN_IMAGE, HEIC)


def test_every_odd_file_has_its_expected_outcome(odd_images: Path) -> None:
    """The table lists all of them, and no others."""
    assert sorted(path.name for path in odd_images.iterdir()) == sorted(ODD)


@pytest.mark.parametrize("name", ODD)
def test_an_odd_file_decodes_or_is_refused_with_its_code(odd_images: Path, name: str) -> None:
    """These are the test files of image libraries."""
    data, expected = (odd_images / name).read_bytes(), ODD[name]
    if isinstance(expected, ErrorCode):
        assert _code(data) is expected
    else:
        means = decode(data, size_px=32).mean(axis=(0, 1))
        assert means.tolist() == pytest.approx(expected, abs=3)


@pytest.mark.parametrize(
    "turned", ["hopper_orientation_2.jpg", "hopper_orientation_5.jpg", "hopper_orientation_6.webp"]
)
def test_a_portrait_that_is_stored_turned_is_upright(odd_images: Path, turned: str) -> None:
    """Pillow's own test files, compared to the upright one."""
    upright, same = (decode((odd_images / name).read_bytes(), size_px=96) for name in ("hopper.webp", turned))
    assert _difference(upright, same) < 6
