"""The population stability index."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jobs.metrics.arrays import Scores
from jobs.metrics.drift import drift

scores = st.lists(st.floats(0, 1), min_size=1, max_size=50).map(np.array)


@given(scores, scores)
def test_it_is_never_negative_and_no_shift_is_none(tested: Scores, seen: Scores) -> None:
    """And it is the same both ways."""
    there, back = drift(tested, seen), drift(seen, tested)
    assert there is not None
    assert back is not None
    assert there.psi >= 0
    assert np.isclose(there.psi, back.psi)
    same = drift(tested, tested)
    assert same is not None
    assert same.psi == 0


def test_it_is_the_sum_that_the_books_have() -> None:
    """Half and half against one in ten, (q - p) ln(q / p) of both bins; half an image more in each of the ten bins."""
    found = drift(np.array([0.05, 0.95] * 50), np.array([0.05] * 10 + [0.95] * 90))
    assert found is not None
    assert np.isclose(found.psi, 40 / 105 * (np.log(50.5 / 10.5) + np.log(90.5 / 50.5)))
    assert found.verdict == "a large shift"


def test_chance_is_no_shift() -> None:
    """Two small samples of one distribution differ, and nothing has shifted: so it says in 95 of 100 cases."""
    random = np.random.default_rng(7)
    said = [drift(random.beta(0.5, 0.5, 70), random.beta(0.5, 0.5, 400)) for _ in range(300)]
    assert sum(one is not None and one.psi <= one.chance for one in said) >= 0.92 * 300
    assert all(one is not None and (one.verdict == "no shift to speak of") >= (one.psi <= one.chance) for one in said)


def test_nothing_to_compare_with_is_none() -> None:
    """A model without test scores, or a job without a score."""
    assert drift(np.array([]), np.array([0.5])) is None
    assert drift(np.array([0.5]), np.array([])) is None
