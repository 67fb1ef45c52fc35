"""Pages for labelling in a browser."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.labelling.page import PageImage, render_labelling_page
from tests.browser import Browser, Page

CLASSES = ("cat", "dog")
#: Opens a page of so many images, or of those given; other arguments are those of ``render_labelling_page``.
OpenPage = Callable[..., Page]


def picture(number: int, width: int = 96, height: int = 64) -> bytes:
    """A WebP image with a colour of its own."""
    pixels = np.full((height, width, 3), (37 * number % 256, 91 * number % 256, 200), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=50)
    return file.getvalue()


def some_images(number: int) -> list[PageImage]:
    """Images called 1.jpg, 2.jpg …"""
    return [PageImage(f"photos/{n}.jpg", f"{n}.jpg", picture(n)) for n in range(1, number + 1)]


@pytest.fixture
def write_page(tmp_path: Path) -> Callable[..., Path]:
    """Writes a page, and returns its path."""

    def write(images: int | list[PageImage] = 6, **given: object) -> Path:
        shown = some_images(images) if isinstance(images, int) else images
        options = {"title": "photos", "classes": CLASSES, "key": "k", "file_name": "labels.csv"} | given
        path = tmp_path / "labels.html"
        path.write_bytes(render_labelling_page(shown, **options))  # type: ignore[arg-type]
        return path

    return write


@pytest.fixture
def open_page(browser: Browser, write_page: Callable[..., Path]) -> OpenPage:
    """Opens a page as a file, in a window with a storage of its own."""

    def opened(
        images: int | list[PageImage] = 6, *, window: dict[str, int | bool] | None = None, **given: object
    ) -> Page:
        return browser.open(write_page(images, **given).as_uri(), **(window or {}))  # type: ignore[arg-type]

    return opened
