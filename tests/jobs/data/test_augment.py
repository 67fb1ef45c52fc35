"""Variants of an image: the same in every run, and made from the image alone."""

import hashlib
import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jobs.data.augment import augment
from tests.conftest import REPOSITORY

IMAGE = np.random.default_rng(5).integers(0, 256, (32, 32, 3), dtype=np.uint8)

#: Prints the digest of some variants.
SCRIPT = """
import hashlib, numpy as np
from jobs.data.augment import augment
image = np.random.default_rng(5).integers(0, 256, (32, 32, 3), dtype=np.uint8)
print(hashlib.sha256(b"".join(augment(image, n, "a digest").tobytes() for n in range(2, 6))).hexdigest())
"""

#: Side of the gradient below.
SIDE = 63
_RAMP = np.linspace(0, 250, SIDE)
#: Rises by 250 from top to bottom in the first channel, and from left to right in the second.
GRADIENT = np.stack([*np.broadcast_arrays(_RAMP[:, None], _RAMP[None, :]), np.zeros((SIDE, SIDE))], axis=-1).astype(
    np.uint8
)


def test_the_first_two_variants_are_the_image_and_its_mirror_image() -> None:
    """Equal to the bit."""
    assert np.array_equal(augment(IMAGE, 0, "a"), IMAGE)
    assert np.array_equal(augment(IMAGE, 1, "a"), IMAGE[:, ::-1])


def test_a_variant_is_the_same_in_every_run() -> None:
    """It does not depend on Python's hash, which differs from process to process."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={"PYTHONHASHSEED": "1"},
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    )
    here = b"".join(augment(IMAGE, number, "a digest").tobytes() for number in range(2, 6))
    assert done.stdout.strip() == hashlib.sha256(here).hexdigest()


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
    crop = augment(GRADIENT, number, identity).astype(int)
    down, across = crop[:, SIDE // 2, 0], crop[SIDE // 2, :, 1]
    assert down[-1] - down[0] >= 0.75 * 250 - 8
    assert abs(across[-1] - across[0]) >= 0.75 * 250 - 8


def test_crops_differ_between_images_and_between_variants() -> None:
    """Otherwise the model would learn nothing from them."""
    crops = {augment(IMAGE, number, identity).tobytes() for number in (2, 3, 4) for identity in "abc"}
    assert len(crops) == 9
