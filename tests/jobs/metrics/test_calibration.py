"""The temperature and the threshold rules."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, log_loss, precision_score, recall_score

from jobs.config import check_rule
from jobs.metrics.calibration import at_temperature, choose_threshold, fit_temperature
from jobs.user_error import UserError


def _overconfident(temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """20,000 images with known probabilities, and scores that are overconfident by ``temperature``."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 1.5, 20_000)
    truth = (random.random(20_000) < 1 / (1 + np.exp(-logits))).astype(np.int64)
    return truth, 1 / (1 + np.exp(-logits * temperature))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_known_temperature_is_found(temperature: float) -> None:
    """For overconfident and underconfident scores; and it improves the log loss."""
    truth, scores = _overconfident(temperature)
    found = fit_temperature(truth, scores)
    assert found == pytest.approx(temperature, rel=0.05)
    assert log_loss(truth, at_temperature(scores, found)) <= log_loss(truth, scores) + 1e-9


def test_a_few_perfectly_separated_images_do_not_lead_to_certainty() -> None:
    """Thirty of thirty correct do not justify a score of 1.0000 (Platt's targets)."""
    truth = np.array([0, 1] * 15)
    scores = np.where(truth == 1, 0.9, 0.1)
    scaled = at_temperature(scores, fit_temperature(truth, scores))
    assert scaled.max() == pytest.approx(16 / 17, abs=1e-3)


def test_perfect_scores_have_a_temperature_within_the_bounds() -> None:
    """Perfectly separated images would lead to T = 0, which no model can have."""
    temperature = fit_temperature(np.array([0, 0, 1, 1]), np.array([0.0, 0.1, 0.9, 1.0]))
    assert 0.1 <= temperature <= 10.0


def test_a_temperature_moves_no_score_across_a_half() -> None:
    """And it preserves the order."""
    scores = np.array([0.01, 0.2, 0.499, 0.5, 0.6, 0.99])
    scaled = at_temperature(scores, 2.0)
    assert ((scaled >= 0.5) == (scores >= 0.5)).all()
    assert (np.diff(scaled) > 0).all()


PAIRS = st.lists(st.tuples(st.integers(0, 1), st.floats(0.01, 0.99)), min_size=1, max_size=30)


def _arrays(pairs: list[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([0, 1] + [p[0] for p in pairs]), np.array([0.3, 0.6] + [p[1] for p in pairs])


def _at_every_threshold(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True positives and all predicted as class 1, with each score as the threshold, ascending."""
    predicted = scores >= np.unique(scores)[:, None]
    return (predicted & (truth == 1)).sum(axis=1), predicted.sum(axis=1)


@given(PAIRS)
def test_no_other_threshold_beats_max_f1(pairs: list[tuple[int, float]]) -> None:
    """Whatever the scores are."""
    truth, scores = _arrays(pairs)
    chosen = f1_score(truth, scores >= choose_threshold("max-f1", truth, scores))
    hits, predicted = _at_every_threshold(truth, scores)
    assert chosen >= (2 * hits / (predicted + truth.sum())).max() - 1e-12


@given(PAIRS, st.sampled_from([0.5, 0.9, 1.0]))
def test_a_recall_is_reached_with_as_few_false_alarms_as_possible(pairs: list[tuple[int, float]], least: float) -> None:
    """Any higher threshold would miss it."""
    truth, scores = _arrays(pairs)
    threshold = choose_threshold(f"recall>={least}", truth, scores)
    assert recall_score(truth, scores >= threshold) >= least
    above = scores[scores >= threshold]
    assert recall_score(truth, scores > above.min()) < least


@given(PAIRS, st.sampled_from([0.3, 0.5, 0.9]))
def test_a_precision_is_reached_or_reported_as_unreachable(pairs: list[tuple[int, float]], least: float) -> None:
    """It is never missed silently."""
    truth, scores = _arrays(pairs)
    hits, found = _at_every_threshold(truth, scores)
    enough = np.flatnonzero(hits / found >= least)
    if not len(enough):
        with pytest.raises(UserError, match="the highest value is"):
            choose_threshold(f"precision>={least}", truth, scores)
        return
    predicted = scores >= choose_threshold(f"precision>={least}", truth, scores)
    assert precision_score(truth, predicted) >= least
    assert predicted.sum() == found[enough[0]]


@pytest.mark.parametrize("rule", ["0.5", "0", "1", "0.123", "max-f1", "precision>=0.95", "recall>=.99", "recall>=1"])
def test_the_rules_of_the_help_text_are_accepted(rule: str) -> None:
    """Unchanged."""
    assert check_rule(rule) == rule


@pytest.mark.parametrize("rule", ["", "1.5", "-0.1", "nan", "max-f2", "precision>0.9", "recall>=2", "accuracy>=0.9"])
def test_an_invalid_rule_is_rejected_with_a_list_of_the_valid_ones(rule: str) -> None:
    """Before anything is trained."""
    with pytest.raises(ValueError, match="max-f1"):
        check_rule(rule)
