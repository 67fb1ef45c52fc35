"""The data of a report's charts, computed from scores. How they look is up to ``jobs.report``."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from jobs.metrics.arrays import Classes, Scores
from jobs.metrics.classification import BINS
from jobs.metrics.wilson import wilson

Points = list[tuple[float, float]]

#: Steps per axis. A chart has about 300 pixels per side; points less than half a pixel apart are the same.
_FINEST: Final = 600


@dataclass(frozen=True)
class Bin:
    """The images with scores in [low, high); the last bin includes ``high``."""

    low: float
    high: float
    images: int
    mean_score: float
    share: float  #: of class 1
    interval_95: tuple[float, float]  #: of the share (Wilson)


@dataclass(frozen=True)
class Bars:
    """The number of images of each class in each of ``len(counts[0])`` equal bins of scores from 0 to 1."""

    counts: tuple[list[int], list[int]]


def roc(truth: Classes, scores: Scores) -> Points:
    """Returns (false positive rate, true positive rate) for every threshold, the highest first."""
    false_positives, true_positives, _ = roc_curve(truth, scores)
    return _thinned(false_positives, true_positives)


def precision_recall(truth: Classes, scores: Scores) -> Points:
    """Returns (recall, precision) for every threshold that predicts any image as class 1, starting at recall 0.

    Between two points the precision is that of the second, as in the average precision: do not interpolate linearly.
    """
    precision, recall, _ = precision_recall_curve(truth, scores)
    # scikit-learn adds a last pair, (0, 1), that belongs to no threshold.
    return [(0.0, float(precision[-2])), *_thinned(recall[-2::-1], precision[-2::-1])]


def reliability(truth: Classes, scores: Scores) -> list[Bin]:
    """Returns the bins that are not empty; the calibration error uses the same bins."""
    places = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    bins = []
    for place in np.unique(places):
        inside = places == place
        share, images = float(truth[inside].mean()), int(inside.sum())
        low, high = place / BINS, (place + 1) / BINS
        bins.append(Bin(low, high, images, float(scores[inside].mean()), share, wilson(share, images)))
    return bins


def histogram(truth: Classes, scores: Scores, *, bins: int = 2 * BINS) -> Bars:
    """Returns the number of images by score and class."""
    zeros, ones = (np.histogram(scores[truth == label], bins=bins, range=(0.0, 1.0))[0].tolist() for label in (0, 1))
    return Bars((zeros, ones))


def _thinned(x: NDArray[np.float64], y: NDArray[np.float64]) -> Points:
    """Leaves out points that look the same as the one before, so a million images make no larger page."""
    places = np.column_stack([np.round(x * _FINEST), np.round(y * _FINEST)])
    keep = np.ones(len(places), dtype=bool)
    keep[1:-1] = (places[1:-1] != places[:-2]).any(axis=1)
    return [(float(a), float(b)) for a, b in zip(x[keep], y[keep], strict=True)]
