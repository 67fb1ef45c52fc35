"""The neuron of the head: fitted to the minimum of its loss, not merely near it."""

import numpy as np
from scipy.special import expit

from jobs.training.neuron import Neuron


def _examples() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    classes = (np.arange(200) % 4 == 0).astype(np.int64)
    features = random.normal(size=(200, 8)) + classes[:, None] * 0.7
    return features.astype(np.float32), classes


def test_the_fit_minimises_the_loss_of_the_head() -> None:
    """Mean cross-entropy plus l2 times the squared weights, as in Keras. Any step away makes it larger."""
    features, classes = _examples()
    neuron = Neuron.fit(features, classes, l2=0.05)

    def loss(weights: np.ndarray, bias: float) -> float:
        p = expit(features @ weights + bias)
        return float(-np.log(np.where(classes == 1, p, 1 - p)).mean() + 0.05 * (weights**2).sum())

    best = loss(neuron.weights, neuron.bias)
    random = np.random.default_rng(0)
    for _ in range(100):
        assert loss(neuron.weights + random.normal(0, 0.05, 8), neuron.bias + random.normal(0, 0.05)) > best


def test_scores_are_the_sigmoid_of_the_weighted_sum() -> None:
    """Even if the sum is so large that the score is 0 or 1."""
    neuron = Neuron(np.array([1.0, -2.0]), 0.5)
    assert np.allclose(neuron.scores(np.array([[1, 1], [0, 0]], np.float32)), expit([-0.5, 0.5]))
    assert neuron.scores(np.array([[0, 1000], [1000, 0]], np.float32)).tolist() == [0.0, 1.0]


def test_a_temperature_divides_the_logits() -> None:
    """No score crosses 0.5."""
    features, classes = _examples()
    neuron = Neuron.fit(features, classes, l2=0.01)
    before, after = neuron.scores(features), neuron.with_temperature(2.0).scores(features)
    assert np.allclose(np.log(after / (1 - after)), np.log(before / (1 - before)) / 2)
    assert np.array_equal(after >= 0.5, before >= 0.5)
