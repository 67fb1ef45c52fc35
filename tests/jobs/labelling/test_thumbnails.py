"""Thumbnails: small enough for thousands of them on a page, and made on all cores."""

import io

import numpy as np
import pytest
from PIL import Image

from jobs.labelling import thumbnails
from jobs.labelling.images import MAX_IMAGES
from jobs.labelling.page import PageImage, render_labelling_page
from jobs.labelling.thumbnails import make_thumbnails, side_px
from tests.hostile.files import encoded, noise, png
from worker.errors import ErrorCode, Reject, TwofoldError


def _size(thumbnail: bytes | TwofoldError) -> tuple[int, int]:
    assert isinstance(thumbnail, bytes)
    with Image.open(io.BytesIO(thumbnail)) as image:
        assert image.format == "WEBP"
        return image.size


def test_an_image_keeps_its_proportions_and_a_bad_one_costs_only_itself() -> None:
    """In the order of the items. A bomb, text, and an image that cannot be read are reasons."""
    files = {
        "wide": encoded(noise(300, 900), "JPEG"),
        "bomb": png(30_000, 30_000),
        "text": b"not an image",
        "tall": encoded(noise(90, 30), "PNG"),
    }

    def read(name: str) -> bytes:
        if name == "gone":
            raise Reject(ErrorCode.NOT_FOUND, "it is gone")
        return files[name]

    done: list[int] = []
    wide, bomb, text, gone, tall = make_thumbnails(["wide", "bomb", "text", "gone", "tall"], read, advance=done.append)
    assert (_size(wide), _size(tall)) == ((640, 213), (30, 90))
    codes = [one.code for one in (bomb, text, gone) if isinstance(one, TwofoldError)]
    assert codes == [ErrorCode.TOO_MANY_PIXELS, ErrorCode.NOT_AN_IMAGE, ErrorCode.NOT_FOUND]
    assert sum(done) == 5


@pytest.mark.parametrize("images", [1, 300, 1200, 2500, MAX_IMAGES])
def test_a_page_stays_below_60_mb_whatever_is_on_it(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise does not compress: its thumbnails have a lower quality, and then fewer pixels."""
    pixels = noise(480, 640)
    monkeypatch.setattr(thumbnails, "thumbnail", lambda _, *, max_px: pixels[: max_px * 3 // 4, :max_px])
    limit = min(thumbnails._MOST_BYTES, thumbnails._ALL_BYTES // images)
    one = thumbnails._encoded(b"", side_px(images), limit)
    page_image = PageImage("s3://shelter/" + 200 * "x", 40 * "x", one)
    empty = len(render_labelling_page([], title="", classes=("a", "b"), key="", file_name=""))
    full = len(render_labelling_page([page_image], title="", classes=("a", "b"), key="", file_name="")) - empty
    assert empty + full * images < 60_000_000


def test_thumbnails_are_as_large_as_their_number_allows() -> None:
    """A photograph of 480 by 640 pixels stays as it is on a page of 200."""
    assert [side_px(number) for number in (1, 200, 1000, 2000, 5000)] == [640, 640, 448, 320, 256]
    grey = np.full((640, 480, 3), 128, np.uint8)
    (shown,) = make_thumbnails([encoded(grey, "JPEG")], lambda data: data)
    assert _size(shown) == (480, 640)
