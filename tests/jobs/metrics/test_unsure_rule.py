"""The band of unsure scores: the narrowest that its rule allows, and what it does on other images."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobs.config import TrainConfig, check_unsure
from jobs.metrics.calibration import choose_band
from jobs.metrics.unsure_rule import BandFigures, check_labels, of_evaluation
from jobs.metrics.wilson import wilson
from jobs.unsure_band import as_typed, described, parse_band
from jobs.user_error import UserError

PAIRS = st.lists(st.tuples(st.integers(0, 1), st.floats(0.01, 0.99)), min_size=1, max_size=30)


def _arrays(pairs: list[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])


def _right(truth: np.ndarray, answers: np.ndarray, label: int) -> float | None:
    """The share of some answers that are right; None if there are none."""
    return float((truth[answers] == label).mean()) if answers.any() else None


@given(PAIRS, st.sampled_from([0.5, 0.8, 0.9, 1.0]), st.sampled_from([0.3, 0.5, 0.6]))
@example([(1, 0.5), (0, 0.5), (1, 0.9), (0, 0.1)], 0.9, 0.5)
@example([(1, 0.5), (0, 0.1)], 1.0, 0.5)
def test_the_band_is_the_narrowest_one_outside_of_which_both_classes_have_the_precision(
    pairs: list[tuple[int, float]], least: float, threshold: float
) -> None:
    """Compared with every band that begins and ends at a score. Where there is none, the message says so."""
    truth, scores = _arrays(pairs)
    rule = f"precision>={least} for both"
    highs = [
        end for end in {threshold, *scores[scores >= threshold]} if (_right(truth, scores >= end, 1) or 0) >= least
    ]
    lows = [end for end in {threshold, *scores} if end <= threshold]
    enough = [end for end in lows if (_right(truth, scores < end, 0) or 0) >= least]
    if not highs or not enough:
        with pytest.raises(UserError, match=f"No band of unsure scores satisfies {rule} on the validation images"):
            choose_band(rule, truth, scores, threshold=threshold)
        return
    low, high = choose_band(rule, truth, scores, threshold=threshold)
    assert low <= threshold <= high
    # The same images are outside as with the narrowest of all.
    assert set(scores[scores >= high]) == set(scores[scores >= min(highs)])
    assert set(scores[scores < low]) == set(scores[scores < max(enough)])


def test_a_class_without_enough_right_answers_is_named() -> None:
    """With what it reaches at most."""
    truth, scores = np.array([0, 0, 1, 1, 0, 1]), np.array([0.1, 0.2, 0.3, 0.6, 0.7, 0.9])
    assert choose_band("precision>=1 for both", truth, scores, threshold=0.5) == pytest.approx((0.25, 0.8))
    wrong = np.array([0, 0, 1, 1, 0, 0])
    with pytest.raises(UserError, match=r"class 1 reaches 0\.3333 at most\. Ask for less, or train with more images\."):
        choose_band("precision>=0.9 for both", wrong, scores, threshold=0.5)
    with pytest.raises(UserError, match="no validation image is classified as one of the two classes"):
        choose_band("precision>=0.5 for both", np.array([1, 1, 0]), np.array([0.6, 0.8, 0.9]), threshold=0.5)


def test_a_band_of_two_numbers_is_taken_as_it_is() -> None:
    """If the threshold, which a rule may have chosen, is in it."""
    truth, scores = np.array([0, 1]), np.array([0.2, 0.8])
    assert choose_band("0.3:0.7", truth, scores, threshold=0.5) == (0.3, 0.7)
    with pytest.raises(
        UserError, match=r"must hold the threshold: 0\.8 is not from 0\.3 to 0\.7\. Choose another --unsure"
    ):
        choose_band("0.3:0.7", truth, scores, threshold=0.8)


@pytest.mark.parametrize("rule", ["0.3:0.7", "0:1", "0.5:0.5", "precision>=0.99 for both", "precision>=1 for both"])
def test_the_rules_of_the_help_text_are_accepted(rule: str) -> None:
    """Unchanged."""
    assert check_unsure(rule) == rule


@pytest.mark.parametrize("rule", ["", "0.3", "0.7:0.3", "0.3:1.1", "nan:1", "precision>=0.99", "recall>=0.99 for both"])
def test_another_rule_is_refused_with_the_forms_that_exist(rule: str) -> None:
    """Before anything is trained; so is a band that does not hold a threshold that is a number."""
    with pytest.raises(ValueError, match=r"use 0\.3:0\.7, or 'precision>=0\.99 for both'"):
        check_unsure(rule)
    with pytest.raises(ValueError, match=r"'unsure' must hold the threshold: 0\.8 is not from 0\.3 to 0\.7"):
        TrainConfig(data="x", output="y", threshold="0.8", unsure="0.3:0.7")
    assert TrainConfig(data="x", output="y", threshold="max-f1", unsure="0.3:0.7").unsure == "0.3:0.7"


def test_a_class_that_is_called_unsure_is_refused_before_the_training() -> None:
    """In capitals or not; without a band it is a name like any other."""
    with pytest.raises(UserError, match=r"a class has that name.*Rename the folder, or leave out --unsure"):
        check_labels("0.3:0.7", ("Unsure", "cats"))
    check_labels(None, ("Unsure", "cats"))
    check_labels("0.3:0.7", ("dogs", "cats"))


@given(st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted))
def test_a_band_that_is_typed_again_is_the_same(ends: list[float]) -> None:
    """To the last digit."""
    band = (ends[0], ends[1])
    assert parse_band(as_typed(band)) == band


def test_the_figures_of_a_band_are_counted() -> None:
    """Of all images the share that is unsure; of the others the share that is right, in all and by class."""
    truth, scores = np.array([0, 0, 1, 0, 1, 1]), np.array([0.1, 0.3, 0.6, 0.7, 0.8, 0.2])
    figures = BandFigures.of(truth, scores, threshold=0.5, band=(0.3, 0.7), rule="precision>=0.9 for both")
    assert (figures.unsure.images, figures.unsure.of, figures.outside) == (2, 6, 4)
    assert (figures.right.value, figures.right.interval_95) == (0.5, wilson(0.5, 4))
    assert [(one.images, one.of) for one in figures.precision] == [(1, 2), (1, 2)]
    assert figures.unmet(("cats", "dogs")) == (
        "asked for precision>=0.9 for both; on the test images 0.500 (95 % interval 0.095 to 0.905) for cats and "
        "0.500 (95 % interval 0.095 to 0.905) for dogs"
    )
    assert of_evaluation({"unsure": figures.as_json(("cats", "dogs"))}) == figures
    assert of_evaluation({}) is None
    everything = BandFigures.of(truth, scores, threshold=0.5, band=(0.0, 1.0), rule="0:1")
    assert (everything.right.value, everything.outside, everything.unmet(("cats", "dogs"))) == (None, 0, None)
    assert of_evaluation({"unsure": everything.as_json(("cats", "dogs"))}) == everything
    assert (described((0.3, 0.7)), described((0.5, 0.5))) == ("scores from 0.3 to below 0.7", "no score")
