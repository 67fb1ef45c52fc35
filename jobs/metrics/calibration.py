"""Temperature scaling, and the choice of a threshold and of a band of unsure scores, on the validation split."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from jobs.config import asked_of_both, fixed_band, fixed_threshold
from jobs.metrics.arrays import Classes, Scores
from jobs.unsure_band import Band
from jobs.user_error import UserError
from worker.contract import check_band

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


def choose_band(rule: str, truth: Classes, scores: Scores, *, threshold: float) -> Band:
    """Chooses the band of unsure scores by ``rule`` from ``(N,)`` true classes and scores.

    0.3:0.7                     that band
    precision>=0.99 for both    the narrowest band around the threshold outside of which the answers of each class have
                                this precision: the lower end is the highest score, up to the threshold, below which
                                enough answers are right; the upper end is the lowest one from which on enough are

    This is Chow's reject option (1970, https://doi.org/10.1109/TIT.1970.1054406), with an end for each class, since the
    same distance from the threshold need not be the same risk for both (Fumera, Roli and Giacinto 2000,
    https://doi.org/10.1016/S0031-3203(00)00059-5). An end is the threshold itself, or midway between two scores. Raises
    UserError if the threshold is outside of the band, or if no band satisfies the rule with at least one answer of each
    class outside of it.
    """
    band = fixed_band(rule)
    if band is not None:
        try:
            check_band(band, threshold)
        except ValueError as error:
            raise UserError(f"{error}. Choose another --unsure or --threshold.") from None
        return band
    least = asked_of_both(rule)
    # Class 0 is class 1 of the mirrored scores, but for an answer at the end itself, where no score is.
    high, best_of_one = _end(scores[scores >= threshold], truth[scores >= threshold] == 1, least, threshold)
    low, best_of_zero = _end(-scores[scores < threshold], truth[scores < threshold] == 0, least, -threshold)
    if low is None or high is None:
        raise _none_satisfies(rule, (best_of_zero if low is None else None, best_of_one if high is None else None))
    return -low, high


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


def _end(scores: Scores, right: NDArray[np.bool_], least: float, start: float) -> tuple[float | None, float | None]:
    """Returns the lowest end from ``start`` up from which on the share of right answers is at least ``least``.

    Or None, if there is no such end. Also returns the highest share that there is; None: there is no answer at all.
    """
    if not len(scores):
        return None, None
    order = np.argsort(scores, kind="stable")
    ascending, hits = scores[order], right[order]
    distinct, first = np.unique(ascending, return_index=True)
    # From each distinct score on: how many answers there are, and how many of them are right.
    answers = len(ascending) - first
    shares = (hits.sum() - np.concatenate([[0], np.cumsum(hits)])[first]) / answers
    ends = np.concatenate([[start], (distinct[:-1] + distinct[1:]) / 2])
    between = np.concatenate([[True], (distinct[:-1] < ends[1:]) & (ends[1:] < distinct[1:])])  # not rounded to one
    enough = np.flatnonzero((shares >= least) & between)
    return (float(ends[enough[0]]) if len(enough) else None), float(shares.max())


def _none_satisfies(rule: str, best: tuple[float | None, float | None]) -> UserError:
    """Returns the error, with the highest precision of each class that falls short; None: that class does not."""
    reached = [f"class {label} reaches {share:.4g} at most" for label, share in enumerate(best) if share is not None]
    why = "; ".join(reached) or "no validation image is classified as one of the two classes"
    return UserError(
        f"No band of unsure scores satisfies {rule} on the validation images: {why}. "
        "Ask for less, or train with more images."
    )
