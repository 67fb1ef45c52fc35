"""The metrics of a classifier, each with its 95 % confidence interval. NumPy and scikit-learn only.

The names are those of SageMaker Model Monitor (``binary_classification_metrics``). Class 1 is the positive class, and
score >= threshold is class 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

from jobs.metrics.arrays import Classes, Scores
from jobs.metrics.wilson import wilson

#: ``(N,)``: how often each image is in a resample.
Weights = NDArray[np.float64]

#: Bootstrap resamples: 25 of them are beyond each end of a 95 % interval.
RESAMPLES: Final = 1000
#: The most images x resamples. Large test sets, whose intervals are narrow, get fewer resamples, down to 200.
_DRAWN_IMAGES: Final = 20_000_000
#: Bins of the reliability diagram and the calibration error: Guo et al. 2017, https://arxiv.org/abs/1706.04599
BINS: Final = 15
#: Scores of exactly 0 or 1 would have an infinite loss. scikit-learn clips float64 at the same value.
_EPSILON: Final = float(np.finfo(np.float64).eps)


def evaluate(truth: Classes, scores: Scores, *, threshold: float, seed: int = 0) -> dict[str, Any]:
    """Computes the metrics from ``(N,)`` true classes, both of which must occur, and ``(N,)`` scores.

    AUC, log loss, Brier score and calibration error use the scores, not the predicted classes. An interval is the
    2.5th to the 97.5th percentile over bootstrap resamples of the images (Efron and Tibshirani 1993, chapter 13).
    A bootstrap has nothing to draw from where accuracy, precision or recall is 0 or 1: that interval is Wilson's.
    """
    sample = _Sample.of(truth, scores, threshold)
    matrix = metrics.confusion_matrix(truth, sample.predicted, labels=[0, 1])
    figures: dict[str, Any] = {
        #: confusion_matrix[true class][predicted class]
        "confusion_matrix": {str(t): {str(g): int(matrix[t, g]) for g in (0, 1)} for t in (0, 1)}
    }
    values = _reference(truth, scores, sample.predicted)
    #: how many images each of these is a share of
    counts = {"accuracy": len(truth), "precision": int(sample.predicted.sum()), "recall": int(truth.sum())}
    draws = _resample(sample, np.random.default_rng(seed))
    for name, figure in _FIGURES.items():
        value = float(values[name]) if name in values else figure(sample, np.ones(len(truth)))
        low, high = np.nanpercentile(draws[name], [2.5, 97.5])
        if name in counts and value in (0.0, 1.0):
            low, high = wilson(value, counts[name])
        figures[name] = {
            "value": value,
            "standard_deviation": float(np.nanstd(draws[name])),
            "interval_95": [float(low), float(high)],
        }
    return {"n": len(truth), "threshold": threshold, "binary_classification_metrics": figures}


def headline(evaluation: dict[str, Any]) -> dict[str, float]:
    """Returns the values of an evaluation by name, without intervals."""
    figures = evaluation["binary_classification_metrics"]
    return {name: figure["value"] for name, figure in figures.items() if "value" in figure}


def losses(truth: Classes, scores: Scores) -> NDArray[np.float64]:
    """Returns the ``(N,)`` log losses, in nats, of ``(N,)`` true classes and scores."""
    safe = np.clip(scores, _EPSILON, 1 - _EPSILON)
    loss: NDArray[np.float64] = -np.where(truth == 1, np.log(safe), np.log1p(-safe))
    return loss


def resamples(images: int) -> int:
    """Returns how many bootstrap resamples to draw from this many images."""
    return int(np.clip(_DRAWN_IMAGES // images, RESAMPLES // 5, RESAMPLES))


def per_class(truth: Classes, predicted: Classes, labels: tuple[str, str]) -> dict[str, dict[str, float]]:
    """Returns precision, recall, F1 and number of images by label, from ``(N,)`` true and predicted classes."""
    columns = metrics.precision_recall_fscore_support(truth, predicted, labels=[0, 1], zero_division=0.0)
    names = ("precision", "recall", "f1", "images")
    return {
        label: {name: float(column[number]) for name, column in zip(names, columns, strict=True)}
        for number, label in enumerate(labels)
    }


def _reference(truth: Classes, scores: Scores, predicted: Classes) -> dict[str, float]:
    """Computes the metrics with scikit-learn. Those below also take weights, and are fast enough for a bootstrap."""
    return {
        "accuracy": metrics.accuracy_score(truth, predicted),
        "precision": metrics.precision_score(truth, predicted, zero_division=0.0),
        "recall": metrics.recall_score(truth, predicted, zero_division=0.0),
        "f1": metrics.f1_score(truth, predicted, zero_division=0.0),
        "auc": metrics.roc_auc_score(truth, scores),
        "log_loss": metrics.log_loss(truth, scores, labels=[0, 1]),
        "brier_score": metrics.brier_score_loss(truth, scores),
    }


@dataclass(frozen=True)
class _Sample:
    """What every metric needs, computed once. A resample is then a weight for each image."""

    truth: Classes
    scores: Scores
    predicted: Classes
    loss: NDArray[np.float64]  #: ``(N,)``, nats
    rank: NDArray[np.int64]  #: ``(N,)``: rank of the score among the distinct scores, from 0
    bin: NDArray[np.int64]  #: ``(N,)``: bin of the calibration error, from 0

    @classmethod
    def of(cls, truth: Classes, scores: Scores, threshold: float) -> "_Sample":
        return cls(
            truth=truth,
            scores=scores,
            predicted=(scores >= threshold).astype(np.int64),
            loss=losses(truth, scores),
            rank=np.unique(scores, return_inverse=True)[1],
            bin=np.minimum((scores * BINS).astype(np.int64), BINS - 1),
        )


def _resample(sample: _Sample, random: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Returns the values of each metric, one per resample; NaN for a resample that has images of one class only."""
    count = len(sample.truth)
    draws = {name: np.full(resamples(count), np.nan) for name in _FIGURES}
    for draw in range(resamples(count)):
        weights = np.bincount(random.integers(0, count, count), minlength=count).astype(np.float64)
        if 0 < weights @ sample.truth < count:
            for name, figure in _FIGURES.items():
                draws[name][draw] = figure(sample, weights)
    return draws


def _share(part: Any, whole: Any) -> float:  # noqa: ANN401 - numpy scalars, arrays to its stubs
    """Returns 0 for a share of nothing, like scikit-learn with ``zero_division=0``."""
    return float(part / whole) if whole else 0.0


def _accuracy(sample: _Sample, weights: Weights) -> float:
    return float(np.average(sample.predicted == sample.truth, weights=weights))


def _precision(sample: _Sample, weights: Weights) -> float:
    return _share(weights @ (sample.predicted * sample.truth), weights @ sample.predicted)


def _recall(sample: _Sample, weights: Weights) -> float:
    return _share(weights @ (sample.predicted * sample.truth), weights @ sample.truth)


def _f1(sample: _Sample, weights: Weights) -> float:
    return _share(2 * (weights @ (sample.predicted * sample.truth)), weights @ (sample.predicted + sample.truth))


def _auc(sample: _Sample, weights: Weights) -> float:
    """The share of (class 1, class 0) pairs in which the first image has the higher score; a tie counts half."""
    ones = np.bincount(sample.rank, weights * sample.truth)
    zeros = np.bincount(sample.rank, weights * (1 - sample.truth))
    below = np.cumsum(zeros) - zeros
    return _share(ones @ (below + zeros / 2), ones.sum() * zeros.sum())


def _log_loss(sample: _Sample, weights: Weights) -> float:
    return float(np.average(sample.loss, weights=weights))


def _brier(sample: _Sample, weights: Weights) -> float:
    """The mean squared difference between score and class (Brier 1950)."""
    return float(np.average((sample.scores - sample.truth) ** 2, weights=weights))


def _calibration_error(sample: _Sample, weights: Weights) -> float:
    """The expected calibration error: the mean over images of |mean score - share of class 1| in their bin."""
    expected = np.bincount(sample.bin, weights * sample.scores, minlength=BINS)
    observed = np.bincount(sample.bin, weights * sample.truth, minlength=BINS)
    return float(np.abs(expected - observed).sum() / weights.sum())


_FIGURES: Final[dict[str, Callable[[_Sample, Weights], float]]] = {
    "accuracy": _accuracy,
    "precision": _precision,
    "recall": _recall,
    "f1": _f1,
    "auc": _auc,
    "log_loss": _log_loss,
    "brier_score": _brier,
    "expected_calibration_error": _calibration_error,
}
