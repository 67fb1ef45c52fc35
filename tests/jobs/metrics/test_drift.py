"""The population stability index."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jobs.metrics.arrays import Scores
from jobs.metrics.drift import drift

scores = st.lists(st.floats(0, 1), min_size=1, max_size=50).map(np.array)


@given(scores, scores)
def test_it_is_never_negative_and_0_without_a_shift(reference: Scores, observed: Scores) -> None:
    """And it is symmetric."""
    one_way, other_way = drift(reference, observed), drift(observed, reference)
    assert one_way is not None
    assert other_way is not None
    assert one_way.psi >= 0
    assert np.isclose(one_way.psi, other_way.psi)
    same = drift(reference, reference)
    assert same is not None
    assert same.psi == 0


def test_it_matches_a_hand_computation() -> None:
    """(q - p) ln(q / p) over two bins, half and half against one in ten; half an image is added to each of ten bins."""
    found = drift(np.array([0.05, 0.95] * 50), np.array([0.05] * 10 + [0.95] * 90))
    assert found is not None
    assert np.isclose(found.psi, 40 / 105 * (np.log(50.5 / 10.5) + np.log(90.5 / 50.5)))
    assert found.verdict == "a large shift"


def test_chance_is_not_reported_as_a_shift() -> None:
    """Two small samples of one distribution differ, and in 95 of 100 cases that is not called a shift."""
    random = np.random.default_rng(7)
    found = [drift(random.beta(0.5, 0.5, 70), random.beta(0.5, 0.5, 400)) for _ in range(300)]
    assert sum(one is not None and one.psi <= one.chance for one in found) >= 0.92 * 300
    assert all(one is not None and (one.verdict == "no notable shift") >= (one.psi <= one.chance) for one in found)


def test_without_scores_there_is_no_index() -> None:
    """If the model has no test scores, or no image of the job has a score."""
    assert drift(np.array([]), np.array([0.5])) is None
    assert drift(np.array([0.5]), np.array([])) is None
