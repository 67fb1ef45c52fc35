"""The comparison of two models, checked by hand, by brute force and with SciPy."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from jobs.metrics.comparison import compare, mcnemar

_SCORE = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
_IMAGES = st.lists(st.tuples(st.integers(0, 1), _SCORE, _SCORE), min_size=1, max_size=60)
_TIE = compare(np.ones(1, np.int64), np.ones(1), np.ones(1), thresholds=(0.5, 0.5))
_THRESHOLDS = st.tuples(st.sampled_from([0.2, 0.5, 0.8]), st.sampled_from([0.2, 0.5, 0.8]))


@settings(max_examples=25)
@given(_IMAGES, _THRESHOLDS)
def test_swapping_the_models_changes_only_the_signs(
    images: list[tuple[int, float, float]], thresholds: tuple[float, float]
) -> None:
    """Being the challenger makes neither model better."""
    truth, ours, theirs = (np.array(column) for column in zip(*images, strict=True))
    one = compare(truth, ours, theirs, thresholds=thresholds)
    other = compare(truth, theirs, ours, thresholds=(thresholds[1], thresholds[0]))
    for name in ("accuracy_difference", "log_loss_difference"):
        here, there = getattr(one, name), getattr(other, name)
        assert here.value == pytest.approx(-there.value)
        assert here.interval_95 == pytest.approx((-there.interval_95[1], -there.interval_95[0]))
        assert here.interval_95[0] <= here.interval_95[1]
    assert one.mcnemar_p == other.mcnemar_p
    assert (one.challenger_accuracy, one.champion_log_loss) == (other.champion_accuracy, other.challenger_log_loss)
    assert (one.only_challenger_right, one.only_champion_right) == (
        other.only_champion_right,
        other.only_challenger_right,
    )
    assert one.accuracy_difference.value == pytest.approx(one.challenger_accuracy - one.champion_accuracy)
    assert one.log_loss_difference.value == pytest.approx(one.challenger_log_loss - one.champion_log_loss)


@settings(max_examples=25)
@given(_IMAGES)
def test_a_model_is_as_good_as_itself(images: list[tuple[int, float, float]]) -> None:
    """The difference and its interval are 0, p is 1, and no margin is needed."""
    truth, scores, _ = (np.array(column) for column in zip(*images, strict=True))
    outcome = compare(truth, scores, scores, thresholds=(0.5, 0.5))
    for difference in (outcome.accuracy_difference, outcome.log_loss_difference):
        assert (difference.value, difference.interval_95) == (0.0, (0.0, 0.0))
    assert outcome.mcnemar_p == 1.0
    assert not outcome.is_worse(0.0)


def test_the_comparison_of_six_images_matches_a_hand_computation() -> None:
    """Each model uses its own threshold, and a score equal to it is class 1."""
    truth = np.array([0, 0, 0, 1, 1, 1])
    challenger = np.array([0.1, 0.2, 0.6, 0.5, 0.9, 0.4])  # correct: yes yes no yes yes no
    champion = np.array([0.1, 0.7, 0.2, 0.6, 0.7, 0.7])  # at 0.7: yes no yes no yes yes
    outcome = compare(truth, challenger, champion, thresholds=(0.5, 0.7))
    assert (outcome.n, outcome.challenger_accuracy, outcome.champion_accuracy) == (6, 4 / 6, 4 / 6)
    assert (outcome.only_challenger_right, outcome.only_champion_right) == (2, 2)
    assert outcome.challenger_log_loss == pytest.approx(-np.log([0.9, 0.8, 0.4, 0.5, 0.9, 0.4]).mean())


def test_the_interval_is_that_of_a_paired_difference() -> None:
    """40 better and 20 worse of 1,000: 0.02 ± 1.96 · sqrt(60 - 20² / 1000) / 1000, far narrower than unpaired."""
    truth = np.ones(1000, np.int64)
    challenger, champion = np.ones(1000), np.ones(1000)
    champion[:40] = 0
    challenger[40:60] = 0
    outcome = compare(truth, challenger, champion, thresholds=(0.5, 0.5))
    half = 1.96 * np.sqrt(60 - 20**2 / 1000) / 1000
    assert outcome.accuracy_difference.value == 0.02
    assert outcome.accuracy_difference.interval_95 == pytest.approx((0.02 - half, 0.02 + half), abs=0.0025)


def test_mcnemars_test_agrees_with_scipy() -> None:
    """For every split of up to 30 images."""
    for better, worse in product(range(16), range(16)):
        expected = binomtest(better, better + worse).pvalue if better + worse else 1.0
        assert mcnemar(better, worse) == pytest.approx(expected)


@pytest.mark.parametrize(("better", "worse"), [(0, 1), (1, 4), (3, 3), (2, 7), (9, 0)])
def test_mcnemars_test_agrees_with_counting(better: int, worse: int) -> None:
    """Its p is the share of all coin-toss sequences that split the images at least as unevenly."""
    n = better + worse
    uneven = [abs(2 * sum(tosses) - n) >= abs(better - worse) for tosses in product((0, 1), repeat=n)]
    assert mcnemar(better, worse) == pytest.approx(sum(uneven) / len(uneven))


def test_nan_as_a_margin_rejects_everything() -> None:
    """Even a tie."""
    assert _TIE.is_worse(float("nan"))


@settings(max_examples=50)
@given(n=st.integers(1, 5000), data=st.data())
def test_exactly_the_margin_is_accepted(n: int, data: st.DataObject) -> None:
    """And one more image is not, however the margin is rounded in floating point."""
    lost = data.draw(st.integers(0, n - 1))
    for wrong, worse in ((lost, False), (lost + 1, True)):
        assert _TIE.model_copy(update={"n": n, "only_champion_right": wrong}).is_worse(lost / n) is worse
