"""The learning curve: accuracy by number of training images. Would more images help?

The features are already computed, so only the head is fitted, many times.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from jobs.metrics.arrays import Classes, Features, Scores
from jobs.metrics.classification import RESAMPLES
from jobs.metrics.wilson import wilson

#: Takes ``(N, D)`` features and ``(N,)`` classes. Returns a function from ``(M, D)`` features to ``(M,)`` scores.
Fit = Callable[[Features, Classes], Callable[[Features], Scores]]

#: Each is twice the one before, so that the last step shows the gain from doubling the images.
_SHARES: Final = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
#: Small samples vary a lot, so each point is the mean of several draws, except the one that uses all images.
_DRAWS: Final = 5
#: Images of each class, at least: a fit to fewer says nothing about the gain from more.
_LEAST: Final = 2


@dataclass(frozen=True)
class Point:
    """The mean accuracy on the held-out images over ``draws`` fits, each to its own ``images`` training images."""

    images: int
    draws: int
    accuracy: float
    interval_95: tuple[float, float]  #: over the held-out images (Wilson)


@dataclass(frozen=True)
class Curve:
    """The points by number of images, and the gain of the last doubling on the same held-out images."""

    points: list[Point]
    held_images: int
    gain: float  #: accuracy at the last point minus that at the one before
    gain_interval_95: tuple[float, float]  #: paired, over the held-out images


def measure(
    features: Features, classes: Classes, held_features: Features, held_classes: Classes, *, fit: Fit, seed: int
) -> Curve | None:
    """Fits to 1/16, 1/8, 1/4, 1/2 and all of the training images, stratified, and scores the held-out images.

    Returns None if there are too few images for two points. The same seed gives the same curve.
    """
    right: dict[int, list[NDArray[np.bool_]]] = {}
    for share in _SHARES:
        for draw in range(_DRAWS if share < 1 else 1):
            chosen = _draw(classes, share, np.random.default_rng([seed, draw]))
            if np.bincount(classes[chosen], minlength=2).min() >= _LEAST:
                scores = fit(features[chosen], classes[chosen])(held_features)
                right.setdefault(len(chosen), []).append((scores >= 0.5) == (held_classes == 1))  # noqa: PLR2004
    if len(right) < 2:  # noqa: PLR2004
        return None
    means = {images: np.mean(draws, axis=0) for images, draws in right.items()}
    points = [_point(images, len(right[images]), mean) for images, mean in means.items()]
    before, after = list(means.values())[-2:]
    return Curve(points, len(held_classes), float((after - before).mean()), _gain_interval(after - before, seed))


def _draw(classes: Classes, share: float, random: np.random.Generator) -> NDArray[np.int64]:
    """Draws the positions of ``share`` of each class, without replacement."""
    places = [np.flatnonzero(classes == label) for label in (0, 1)]
    return np.concatenate([random.permutation(of_class)[: round(len(of_class) * share)] for of_class in places])


def _point(images: int, draws: int, right: NDArray[np.float64]) -> Point:
    accuracy = float(right.mean())
    return Point(images, draws, accuracy, wilson(accuracy, len(right)))


def _gain_interval(differences: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """Returns the 95 % bootstrap interval of a mean; if no image differs, Wilson's, because no resample differs.

    There are few distinct values, so it is enough to draw how often each occurs.
    """
    count = len(differences)
    values, counts = np.unique(differences, return_counts=True)
    if not differences.any():
        _, most = wilson(0.0, count)
        return -most, most
    drawn = np.random.default_rng(seed).multinomial(count, counts / count, size=RESAMPLES)
    low, high = np.percentile(drawn @ values / count, [2.5, 97.5])
    return float(low), float(high)
