"""The learning curve: the gain from doubling the images, on images that no fit has seen."""

from collections.abc import Callable

import numpy as np
import pytest

from jobs.metrics.arrays import Classes, Features, Scores
from jobs.metrics.learning_curve import measure
from jobs.training.neuron import Neuron


def _images(count: int, *, seed: int, noise: float = 1.0) -> tuple[Features, Classes]:
    """Eight features, of which only the first depends on the class, with some noise."""
    random = np.random.default_rng(seed)
    classes = np.arange(count) % 4 // 3  # one in four is class 1
    features = random.normal(0, noise, (count, 8))
    features[:, 0] += 2.0 * classes
    return features.astype(np.float32), classes


def _fit(features: Features, classes: Classes) -> Callable[[Features], Scores]:
    return Neuron.fit(features, classes, l2=0.01).scores


def test_the_points_are_a_sixteenth_to_all_of_the_images_stratified() -> None:
    """Five draws each, one of all images; a fit gets only its own images."""
    seen: list[tuple[int, float]] = []

    def fit(features: Features, classes: Classes) -> Callable[[Features], Scores]:
        seen.append((len(features), float(classes.mean())))
        return lambda others: np.zeros(len(others))

    curve = measure(*_images(320, seed=1), *_images(40, seed=2), fit=fit, seed=3)
    assert curve is not None
    assert [(point.images, point.draws) for point in curve.points] == [(20, 5), (40, 5), (80, 5), (160, 5), (320, 1)]
    assert [images for images, _ in seen] == [20] * 5 + [40] * 5 + [80] * 5 + [160] * 5 + [320]
    assert {share for _, share in seen} == {0.25}
    assert curve.held_images == 40
    assert [point.accuracy for point in curve.points] == [0.75] * 5


def test_more_images_improve_the_accuracy() -> None:
    """The curve rises, its gain is that of the last doubling, and the interval contains it."""
    curve = measure(*_images(640, seed=1), *_images(400, seed=2), fit=_fit, seed=3)
    assert curve is not None
    first, *_, half, last = curve.points
    assert first.accuracy < last.accuracy
    assert curve.gain == pytest.approx(last.accuracy - half.accuracy)
    assert curve.gain_interval_95[0] <= curve.gain <= curve.gain_interval_95[1]
    assert all(point.interval_95[0] <= point.accuracy <= point.interval_95[1] for point in curve.points)


def test_no_difference_among_few_images_is_not_certainty() -> None:
    """Ten held-out images that are all correct cannot rule out a gain or a loss."""
    curve = measure(*_images(64, seed=1, noise=0.01), *_images(10, seed=2, noise=0.01), fit=_fit, seed=3)
    assert curve is not None
    assert curve.gain == 0
    low, high = curve.gain_interval_95
    assert low == -high < -0.2


def test_the_same_seed_gives_the_same_curve() -> None:
    """And another seed gives another one."""
    images = (*_images(160, seed=1), *_images(80, seed=2))
    assert measure(*images, fit=_fit, seed=3) == measure(*images, fit=_fit, seed=3)
    assert measure(*images, fit=_fit, seed=3) != measure(*images, fit=_fit, seed=4)


def test_too_few_images_have_no_curve() -> None:
    """It takes two points with at least two images of each class."""
    assert measure(*_images(8, seed=1), *_images(8, seed=2), fit=_fit, seed=3) is None
