"""Temperature scaling and the choice of a threshold. Both use the validation split."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from jobs.config import fixed_threshold
from jobs.metrics.arrays import Classes, Scores
from jobs.user_error import UserError

#: A temperature outside this range means that something else is wrong.
_LOWEST_TEMPERATURE: Final = 0.1
_HIGHEST_TEMPERATURE: Final = 10.0
_EPSILON: Final = 1e-12


def fit_temperature(truth: Classes, scores: Scores) -> float:
    """Returns the T, 0.1 to 10, that minimises the log loss of sigmoid(logit(score) / T).

    Above 1, the scores of the ``(N,)`` images were overconfident. Guo et al. 2017, section 4.2,
    https://arxiv.org/abs/1706.04599. No score moves across 0.5, and no ranking changes. The targets are slightly less
    than certain, (N1 + 1) / (N1 + 2) and 1 / (N0 + 2), as in Platt 1999: a few images that are all classified
    correctly would otherwise call for scores of 0 and 1.
    """
    safe = np.clip(scores, _EPSILON, 1 - _EPSILON)
    logits = np.log(safe) - np.log1p(-safe)
    ones = int(truth.sum())
    target = np.where(truth == 1, (ones + 1) / (ones + 2), 1 / (len(truth) - ones + 2))

    def log_loss(log_t: float) -> float:
        scaled = logits / np.exp(log_t)
        return float((np.logaddexp(0.0, scaled) - target * scaled).mean())

    bounds = (np.log(_LOWEST_TEMPERATURE), np.log(_HIGHEST_TEMPERATURE))
    return float(np.exp(minimize_scalar(log_loss, bounds=bounds, method="bounded").x))


def at_temperature(scores: Scores, temperature: float) -> Scores:
    """Returns the scores of the same model with its last weights divided by ``temperature``."""
    safe = np.clip(scores, _EPSILON, 1 - _EPSILON)
    scaled: Scores = 1 / (1 + np.exp(-(np.log(safe) - np.log1p(-safe)) / temperature))
    return scaled


def calibrated_loss(truth: Classes, scores: Scores) -> float:
    """Returns the log loss, in nats, of ``(N,)`` scores at their best temperature.

    It measures how well the scores separate the classes, however confident they are.
    """
    safe = np.clip(at_temperature(scores, fit_temperature(truth, scores)), _EPSILON, 1 - _EPSILON)
    return float(-np.where(truth == 1, np.log(safe), np.log1p(-safe)).mean())


def choose_threshold(rule: str, truth: Classes, scores: Scores) -> float:
    """Chooses the threshold by ``rule`` from ``(N,)`` true classes and scores; score >= threshold is class 1.

    A number           that number
    max-f1             the threshold with the highest F1
    precision>=0.95    the lowest threshold with this precision: it finds as many images of class 1 as possible
    recall>=0.99       the highest threshold with this recall: it causes as few false alarms as possible

    The threshold is midway between two scores, so it depends on neither. Raises UserError if no threshold satisfies
    the rule.
    """
    number = fixed_threshold(rule)
    if number is not None:
        return number
    candidates = _midways(scores)
    found, precision = _curves(truth, scores, candidates)
    if rule == "max-f1":
        f1 = 2 * precision * found / np.maximum(precision + found, _EPSILON)
        return float(candidates[np.argmax(f1)])
    name, _, least = rule.partition(">=")
    figure, pick = {"precision": (precision, np.min), "recall": (found, np.max)}[name]
    return _pick(candidates[figure >= float(least)], pick, rule, best=float(figure.max()))


def _midways(scores: Scores) -> Scores:
    """Returns all thresholds that classify differently, ascending: one below all scores, one between each two."""
    distinct = np.unique(scores)
    middles: Scores = np.concatenate([[distinct[0] / 2], (distinct[:-1] + distinct[1:]) / 2])
    return middles


def _curves(truth: Classes, scores: Scores, thresholds: Scores) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns recall and precision at each threshold."""
    ones = np.sort(scores[truth == 1])
    everything = np.sort(scores)
    hits = len(ones) - np.searchsorted(ones, thresholds)
    given = len(everything) - np.searchsorted(everything, thresholds)
    return hits / len(ones), hits / np.maximum(given, 1)


def _pick(candidates: Scores, pick: Callable[[Scores], float], rule: str, *, best: float) -> float:
    if not len(candidates):
        raise UserError(
            f"No threshold satisfies {rule} on the validation images: the highest value is {best:.3f}. Lower the bound."
        )
    return float(pick(candidates))
