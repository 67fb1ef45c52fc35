"""What all scenarios share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.ground import Sample
from tests.chaos.workers import Template


@pytest.fixture(scope="session")
def sample(models: Path, digit_images: Path) -> Iterator[Sample]:
    with Template.of_workers() as template:
        yield Sample(models, digit_images, template)
