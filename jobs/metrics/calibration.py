"""Scores that mean what they say, and the threshold that follows from a rule. Both come from the validation split."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from jobs.config import fixed_threshold
from jobs.metrics.arrays import Classes, Scores
from jobs.user_error import UserError

#: A temperature outside of these says that something else is wrong.
_COLDEST: Final = 0.1
_HOTTEST: Final = 10.0
_EPSILON: Final = 1e-12


def fit_temperature(truth: Classes, scores: Scores) -> float:
    """The T, 0.1 to 10, for which sigmoid(logit(score) / T) has the lowest log loss; above 1 the scores were too sure.

    Guo et al. 2017, section 4.2, https://arxiv.org/abs/1706.04599. ``(N,)`` true classes and scores. It moves no
    score across 0.5 and changes no ranking. The classes count as a little less than certain, (N1 + 1) / (N1 + 2) and
    1 / (N0 + 2), as Platt 1999 has it: a few images that are all told apart would otherwise ask for certainty.
    """
    safe = np.clip(scores, _EPSILON, 1 - _EPSILON)
    logits = np.log(safe) - np.log1p(-safe)
    ones = int(truth.sum())
    target = np.where(truth == 1, (ones + 1) / (ones + 2), 1 / (len(truth) - ones + 2))

    def log_loss(log_t: float) -> float:
        cooled = logits / np.exp(log_t)
        return float((np.logaddexp(0.0, cooled) - target * cooled).mean())

    return float(np.exp(minimize_scalar(log_loss, bounds=(np.log(_COLDEST), np.log(_HOTTEST)), method="bounded").x))


def at_temperature(scores: Scores, temperature: float) -> Scores:
    """The scores of a model whose last weights are divided by ``temperature``."""
    safe = np.clip(scores, _EPSILON, 1 - _EPSILON)
    cooled: Scores = 1 / (1 + np.exp(-(np.log(safe) - np.log1p(-safe)) / temperature))
    return cooled


def calibrated_loss(truth: Classes, scores: Scores) -> float:
    """Log loss in nats of ``(N,)`` scores at the temperature that suits them best: how well they tell the classes
    apart, however sure they are.
    """
    safe = np.clip(at_temperature(scores, fit_temperature(truth, scores)), _EPSILON, 1 - _EPSILON)
    return float(-np.where(truth == 1, np.log(safe), np.log1p(-safe)).mean())


def choose_threshold(rule: str, truth: Classes, scores: Scores) -> float:
    """The threshold that ``rule`` makes of ``(N,)`` true classes and scores; score >= threshold is class 1.

    A number           that number
    max-f1             where F1 is highest
    precision>=0.95    the lowest with such a precision: as much of class 1 found as it allows
    recall>=0.99       the highest with such a recall: as few false alarms as it allows

    It lies midway between two scores, so that it rests on neither. Raises UserError where no threshold will do.
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
    """Every threshold that makes a difference, ascending: one below all scores, and one between each two."""
    distinct = np.unique(scores)
    middles: Scores = np.concatenate([[distinct[0] / 2], (distinct[:-1] + distinct[1:]) / 2])
    return middles


def _curves(truth: Classes, scores: Scores, thresholds: Scores) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall and precision at each of the thresholds."""
    ones = np.sort(scores[truth == 1])
    everything = np.sort(scores)
    hits = len(ones) - np.searchsorted(ones, thresholds)
    given = len(everything) - np.searchsorted(everything, thresholds)
    return hits / len(ones), hits / np.maximum(given, 1)


def _pick(candidates: Scores, pick: Callable[[Scores], float], rule: str, *, best: float) -> float:
    if not len(candidates):
        raise UserError(f"No threshold gives {rule} on the validation images; the best there is {best:.3f}.")
    return float(pick(candidates))
