"""The one neuron that learns: fitted to the features exactly.

What the seed descends towards with Adam, epoch by epoch, is the minimum of a convex loss: binary cross-entropy of one
sigmoid neuron, with a little weight decay. There is one such minimum, and L-BFGS is there in a fraction of a second:
the same from every start, on every backend, in every run.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from jobs.metrics.arrays import Classes, Features

#: Iterations; with a few thousand pictures it takes some fifty.
_MOST: Final = 1000
#: Of the gradient: the minimum to six digits, which is more than a score shows.
_TOLERANCE: Final = 1e-6


@dataclass(frozen=True)
class Neuron:
    """P(class 1) = sigmoid(features @ weights + bias)."""

    weights: NDArray[np.float64]  #: ``(D,)``
    bias: float

    @classmethod
    def fit(cls, features: Features, classes: Classes, *, l2: float) -> "Neuron":
        """Minimises mean cross-entropy + ``l2`` * sum of squared weights over ``(N, D)`` features, ``(N,)`` classes.

        scikit-learn weighs the other way round: C * sum of cross-entropies + squared weights / 2, hence
        C = 1 / (2 l2 N).
        """
        c = 1 / (2 * l2 * len(features)) if l2 else np.inf
        # One thread: for matrices this small the others cost ten times what they save.
        with threadpool_limits(1, "blas"):
            found = LogisticRegression(C=c, max_iter=_MOST, tol=_TOLERANCE).fit(features.astype(np.float64), classes)
        return cls(found.coef_[0].astype(np.float64), float(found.intercept_[0]))

    def scores(self, features: Features) -> NDArray[np.float64]:
        """``(N,)`` P(class 1)."""
        scores: NDArray[np.float64] = expit(features @ self.weights + self.bias)
        return scores

    def cooled(self, temperature: float) -> "Neuron":
        """With a temperature folded into the weights: the sum is divided by it, and a model needs to know no more."""
        return Neuron(self.weights / temperature, self.bias / temperature)
