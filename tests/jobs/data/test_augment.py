"""Further views of a picture: the same in every run, and of the picture alone."""

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jobs.data.augment import view
from tests.conftest import REPOSITORY

PICTURE = np.random.default_rng(5).integers(0, 256, (32, 32, 3), dtype=np.uint8)

SCRIPT = """
import hashlib, numpy as np
from jobs.data.augment import view
picture = np.random.default_rng(5).integers(0, 256, (32, 32, 3), dtype=np.uint8)
print(hashlib.sha256(b"".join(view(picture, n, "a digest").tobytes() for n in range(2, 6))).hexdigest())
"""


def test_the_first_views_are_the_picture_and_its_mirror_image() -> None:
    """To the bit."""
    assert np.array_equal(view(PICTURE, 0, "a"), PICTURE)
    assert np.array_equal(view(PICTURE, 1, "a"), PICTURE[:, ::-1])


def test_a_view_is_the_same_in_every_run() -> None:
    """No hash of Python's, which is another in each process, has a say in it."""
    said = {
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
    assert len(said) == 1


@given(st.integers(2, 31), st.text(max_size=64), st.integers(1, 48), st.integers(1, 48))
def test_a_crop_lies_within_the_picture(number: int, identity: str, height: int, width: int) -> None:
    """Of its shape, and of a picture of one colour nothing but that colour: there is no paper around it."""
    picture = np.full((height, width, 3), (200, 3, 77), np.uint8)
    crop = view(picture, number, identity)
    assert crop.dtype == np.uint8
    assert np.array_equal(crop, picture)


@given(st.integers(2, 31), st.text(max_size=64))
def test_a_crop_shows_three_quarters_of_each_side_at_least(number: int, identity: str) -> None:
    """Of a slope it shows a part, or the mirror image of one; bicubic ends may be a step off."""
    slope = np.linspace(0, 250, 126)
    picture = np.stack([*np.broadcast_arrays(slope[:, None], slope[None, :]), np.zeros((126, 126))], axis=-1)
    crop = view(picture.astype(np.uint8), number, identity).astype(int)
    down, across = crop[:, 63, 0], crop[63, :, 1]
    assert down[-1] - down[0] >= 0.75 * 250 - 8
    assert abs(across[-1] - across[0]) >= 0.75 * 250 - 8


def test_crops_differ_from_picture_to_picture_and_from_view_to_view() -> None:
    """Or they would teach nothing."""
    crops = {view(PICTURE, number, identity).tobytes() for number in (2, 3, 4) for identity in "abc"}
    assert len(crops) == 9
