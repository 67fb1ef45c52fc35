"""The base and both images, built once for all tests of a run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Once
from tests.images import engine
from tests.images.engine import Image


@pytest.fixture(scope="session")
def base(once: Once) -> str:
    """The base image. Where none can be made, the test is skipped with the reason."""
    if reason := engine.missing():
        pytest.skip(reason)

    def make(folder: Path) -> None:
        folder.mkdir()
        engine.make_base(folder)

    once.make("base", make)
    return engine.BASE


def _built(kind: str, base: str, folder: Path, **arguments: str) -> Iterator[Image]:
    image = Image.build(kind, base, folder, **arguments)
    yield image
    image.remove()


@pytest.fixture(scope="session")
def worker_image(base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The worker's image."""
    yield from _built("worker", base, tmp_path_factory.mktemp("worker"))


@pytest.fixture(scope="session")
def train_image(base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The training image with the libraries without CUDA."""
    folder = tmp_path_factory.mktemp("train")
    yield from _built("train", base, folder, REQUIREMENTS="train-requirements.txt")
