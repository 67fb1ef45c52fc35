"""Scores to what a chart shows of them: numbers alone, nothing of how they look. Numpy and scikit-learn only."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from jobs.metrics.arrays import Classes, Scores
from jobs.metrics.classification import BINS, wilson

Points = list[tuple[float, float]]

#: A chart has some 300 pixels a side; what differs by less than half of one is the same point.
_FINEST: Final = 600


@dataclass(frozen=True)
class Bin:
    """Images whose scores lie in [low, high), the last one in [low, high]."""

    low: float
    high: float
    images: int
    mean_score: float
    share: float  #: of class 1 among them
    interval_95: tuple[float, float]  #: of that share, Wilson's


@dataclass(frozen=True)
class Bars:
    """How many images of each class have a score in each of ``len(counts[0])`` equal bins from 0 to 1."""

    counts: tuple[list[int], list[int]]


def roc(truth: Classes, scores: Scores) -> Points:
    """(share of class 0 taken for class 1, share of class 1 found), for every threshold from the highest down."""
    false_alarms, found, _ = roc_curve(truth, scores)
    return _thinned(false_alarms, found)


def precision_recall(truth: Classes, scores: Scores) -> Points:
    """(recall, precision) for every threshold that gives class 1 to any image, from recall 0 on.

    Between two points the precision is that of the second, as in the average precision; it is no straight line.
    """
    precision, recall, _ = precision_recall_curve(truth, scores)
    # The last pair, (0, 1), is scikit-learn's own and belongs to no threshold.
    return [(0.0, float(precision[-2])), *_thinned(recall[-2::-1], precision[-2::-1])]


def reliability(truth: Classes, scores: Scores) -> list[Bin]:
    """The bins that hold any image, as ``metrics`` has them for the calibration error."""
    places = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    bins = []
    for place in np.unique(places):
        inside = places == place
        share, images = float(truth[inside].mean()), int(inside.sum())
        low, high = place / BINS, (place + 1) / BINS
        bins.append(Bin(low, high, images, float(scores[inside].mean()), share, wilson(share, images)))
    return bins


def histogram(truth: Classes, scores: Scores, *, bins: int = 2 * BINS) -> Bars:
    """Images by score, class 0 and class 1 apart."""
    zeros, ones = (np.histogram(scores[truth == label], bins=bins, range=(0.0, 1.0))[0].tolist() for label in (0, 1))
    return Bars((zeros, ones))


def _thinned(x: NDArray[np.float64], y: NDArray[np.float64]) -> Points:
    """Without points that nobody could tell from their neighbours: a million images make no larger page."""
    places = np.column_stack([np.round(x * _FINEST), np.round(y * _FINEST)])
    keep = np.ones(len(places), dtype=bool)
    keep[1:-1] = (places[1:-1] != places[:-2]).any(axis=1)
    return [(float(a), float(b)) for a, b in zip(x[keep], y[keep], strict=True)]
