"""The neuron of the head, fitted to the features exactly.

The recipe trains it with Adam, epoch by epoch, towards the minimum of a convex loss: the binary cross-entropy of one
sigmoid neuron, with some weight decay. There is only one minimum, and L-BFGS finds it in a fraction of a second. The
result is the same from any start, on any backend, in every run.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from jobs.metrics.arrays import Classes, Features

#: At most. A few thousand images take about fifty iterations.
_MAX_ITERATIONS: Final = 1000
#: Tolerance of the gradient. It gives the minimum to six digits, more than a score shows.
_TOLERANCE: Final = 1e-6


@dataclass(frozen=True)
class Neuron:
    """P(class 1) = sigmoid(features @ weights + bias)."""

    weights: NDArray[np.float64]  #: ``(D,)``
    bias: float

    @classmethod
    def fit(cls, features: Features, classes: Classes, *, l2: float) -> "Neuron":
        """Minimises mean cross-entropy + ``l2`` * sum of squared weights over ``(N, D)`` features, ``(N,)`` classes.

        scikit-learn minimises C * sum of cross-entropies + squared weights / 2, hence C = 1 / (2 l2 N).
        """
        c = 1 / (2 * l2 * len(features)) if l2 else np.inf
        # One thread: for matrices this small, several are ten times slower.
        with threadpool_limits(1, "blas"):
            fit = LogisticRegression(C=c, max_iter=_MAX_ITERATIONS, tol=_TOLERANCE)
            fit.fit(features.astype(np.float64), classes)
        return cls(fit.coef_[0].astype(np.float64), float(fit.intercept_[0]))

    def scores(self, features: Features) -> NDArray[np.float64]:
        """Returns ``(N,)`` P(class 1) of ``(N, D)`` features."""
        scores: NDArray[np.float64] = expit(features @ self.weights + self.bias)
        return scores

    def with_temperature(self, temperature: float) -> "Neuron":
        """Returns a neuron whose logits are divided by ``temperature``: a model with it needs no calibration step."""
        return Neuron(self.weights / temperature, self.bias / temperature)
