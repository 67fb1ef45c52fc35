"""Temperature and threshold rules."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, log_loss, precision_score, recall_score

from jobs.config import check_rule
from jobs.metrics.calibration import at_temperature, choose_threshold, fit_temperature
from jobs.user_error import UserError


def _overconfident(temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """20,000 images whose true chances are known, and scores that are surer than these by ``temperature``."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 1.5, 20_000)
    truth = (random.random(20_000) < 1 / (1 + np.exp(-logits))).astype(np.int64)
    return truth, 1 / (1 + np.exp(-logits * temperature))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(temperature: float) -> None:
    """Too sure or not sure enough; and the scores are better for it."""
    truth, scores = _overconfident(temperature)
    found = fit_temperature(truth, scores)
    assert found == pytest.approx(temperature, rel=0.05)
    assert log_loss(truth, at_temperature(scores, found)) <= log_loss(truth, scores) + 1e-9


def test_a_few_images_told_apart_ask_for_no_certainty() -> None:
    """Thirty right out of thirty are no reason to say 1.0000 (Platt's targets)."""
    truth = np.array([0, 1] * 15)
    scores = np.where(truth == 1, 0.9, 0.1)
    cooled = at_temperature(scores, fit_temperature(truth, scores))
    assert cooled.max() == pytest.approx(16 / 17, abs=1e-3)


def test_perfect_scores_have_a_temperature_within_the_bounds() -> None:
    """Separable images would ask for T = 0; the model must still be one."""
    temperature = fit_temperature(np.array([0, 0, 1, 1]), np.array([0.0, 0.1, 0.9, 1.0]))
    assert 0.1 <= temperature <= 10.0


def test_a_temperature_changes_no_label_at_a_half() -> None:
    """And no order."""
    scores = np.array([0.01, 0.2, 0.499, 0.5, 0.6, 0.99])
    cooled = at_temperature(scores, 2.0)
    assert ((cooled >= 0.5) == (scores >= 0.5)).all()
    assert (np.diff(cooled) > 0).all()


PAIRS = st.lists(st.tuples(st.integers(0, 1), st.floats(0.01, 0.99)), min_size=1, max_size=30)


def _arrays(pairs: list[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([0, 1] + [p[0] for p in pairs]), np.array([0.3, 0.6] + [p[1] for p in pairs])


@given(PAIRS)
def test_max_f1_is_beaten_by_no_other_threshold(pairs: list[tuple[int, float]]) -> None:
    """Whatever the scores."""
    truth, scores = _arrays(pairs)
    chosen = f1_score(truth, scores >= choose_threshold("max-f1", truth, scores))
    assert all(chosen >= f1_score(truth, scores >= other) - 1e-12 for other in np.unique(scores))


@given(PAIRS, st.sampled_from([0.5, 0.9, 1.0]))
def test_a_recall_is_kept_with_as_few_false_alarms_as_can_be(pairs: list[tuple[int, float]], least: float) -> None:
    """And any higher threshold would break it."""
    truth, scores = _arrays(pairs)
    threshold = choose_threshold(f"recall>={least}", truth, scores)
    assert recall_score(truth, scores >= threshold) >= least
    above = scores[scores >= threshold]
    assert recall_score(truth, scores > above.min()) < least


@given(PAIRS, st.sampled_from([0.3, 0.5, 0.9]))
def test_a_precision_is_kept_or_said_to_be_out_of_reach(pairs: list[tuple[int, float]], least: float) -> None:
    """Never silently missed."""
    truth, scores = _arrays(pairs)
    kept = [t for t in np.unique(scores) if precision_score(truth, scores >= t) >= least]
    if not kept:
        with pytest.raises(UserError, match="the best there is"):
            choose_threshold(f"precision>={least}", truth, scores)
        return
    given_ = scores >= choose_threshold(f"precision>={least}", truth, scores)
    assert precision_score(truth, given_) >= least
    assert given_.sum() == (scores >= min(kept)).sum()


@pytest.mark.parametrize("rule", ["0.5", "0", "1", "0.123", "max-f1", "precision>=0.95", "recall>=.99", "recall>=1"])
def test_a_rule_is_taken_as_it_is_written(rule: str) -> None:
    """The forms of the help text."""
    assert check_rule(rule) == rule


@pytest.mark.parametrize("rule", ["", "1.5", "-0.1", "nan", "max-f2", "precision>0.9", "recall>=2", "accuracy>=0.9"])
def test_what_is_no_rule_is_refused_with_the_forms_there_are(rule: str) -> None:
    """Before anything is trained."""
    with pytest.raises(ValueError, match="max-f1"):
        check_rule(rule)
