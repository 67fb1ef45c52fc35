"""Variants of an image: the same in every run, and made from the image alone."""

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jobs.data.augment import augment
from tests.conftest import REPOSITORY

IMAGE = np.random.default_rng(5).integers(0, 256, (32, 32, 3), dtype=np.uint8)

SCRIPT = """
import hashlib, numpy as np
from jobs.data.augment import augment
image = np.random.default_rng(5).integers(0, 256, (32, 32, 3), dtype=np.uint8)
print(hashlib.sha256(b"".join(augment(image, n, "a digest").tobytes() for n in range(2, 6))).hexdigest())
"""


def test_the_first_two_variants_are_the_image_and_its_mirror_image() -> None:
    """Equal to the bit."""
    assert np.array_equal(augment(IMAGE, 0, "a"), IMAGE)
    assert np.array_equal(augment(IMAGE, 1, "a"), IMAGE[:, ::-1])


def test_a_variant_is_the_same_in_every_run() -> None:
    """It does not depend on Python's hash, which differs from process to process."""
    digests = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={"PYTHONHASHSEED": seed},
            cwd=REPOSITORY,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


@given(st.integers(2, 31), st.text(max_size=64), st.integers(1, 48), st.integers(1, 48))
def test_a_crop_is_within_the_image(number: int, identity: str, height: int, width: int) -> None:
    """It has the shape of the image, and no border: a crop of one colour has only that colour."""
    image = np.full((height, width, 3), (200, 3, 77), np.uint8)
    crop = augment(image, number, identity)
    assert crop.dtype == np.uint8
    assert np.array_equal(crop, image)


@given(st.integers(2, 31), st.text(max_size=64))
def test_a_crop_shows_three_quarters_of_each_side_at_least(number: int, identity: str) -> None:
    """Measured on a gradient, or its mirror image. Bicubic ends may be a step off."""
    ramp = np.linspace(0, 250, 126)
    image = np.stack([*np.broadcast_arrays(ramp[:, None], ramp[None, :]), np.zeros((126, 126))], axis=-1)
    crop = augment(image.astype(np.uint8), number, identity).astype(int)
    down, across = crop[:, 63, 0], crop[63, :, 1]
    assert down[-1] - down[0] >= 0.75 * 250 - 8
    assert abs(across[-1] - across[0]) >= 0.75 * 250 - 8


def test_crops_differ_between_images_and_between_variants() -> None:
    """Otherwise the model would learn nothing from them."""
    crops = {augment(IMAGE, number, identity).tobytes() for number in (2, 3, 4) for identity in "abc"}
    assert len(crops) == 9
