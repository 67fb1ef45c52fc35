"""The comparison of a challenger with the champion, image by image, on the same test images."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.special import bdtr

from jobs.metrics.arrays import Classes, Scores
from jobs.metrics.classification import losses, resamples

#: Far below one image in any test set; above the rounding of ``margin * n``.
_ROUNDING: Final = 1e-9


class Difference(BaseModel):
    """Challenger minus champion."""

    model_config = ConfigDict(frozen=True)

    value: float
    interval_95: tuple[float, float]


class Comparison(BaseModel):
    """Two models on the same ``n`` test images, each with its own threshold."""

    model_config = ConfigDict(frozen=True)

    n: int
    challenger_accuracy: float
    champion_accuracy: float
    accuracy_difference: Difference
    challenger_log_loss: float
    champion_log_loss: float
    log_loss_difference: Difference  #: below 0, the challenger has the better scores
    only_challenger_right: int
    only_champion_right: int
    mcnemar_p: float  #: how likely a difference at least this large is if both models are equally good

    def is_worse(self, margin: float) -> bool:
        """Returns whether the challenger's accuracy is lower by more than ``margin``. A tie is not worse."""
        lost = self.only_champion_right - self.only_challenger_right
        return not lost <= margin * self.n + _ROUNDING  # NaN as a margin rejects everything


def compare(
    truth: Classes, challenger: Scores, champion: Scores, *, thresholds: tuple[float, float], seed: int = 0
) -> Comparison:
    """Compares two models by their ``(N,)`` scores of the same images; ``thresholds``: challenger's, champion's.

    The intervals come from a paired bootstrap: each resampled image brings the scores of both models (Efron and
    Tibshirani 1993, chapter 13). So images that are hard for both do not widen the interval.
    """
    right = (challenger >= thresholds[0]) == (truth == 1)
    champion_right = (champion >= thresholds[1]) == (truth == 1)
    loss, champion_loss = losses(truth, challenger), losses(truth, champion)
    better, worse = int((right & ~champion_right).sum()), int((champion_right & ~right).sum())
    gains = np.stack([right.astype(np.float64) - champion_right, loss - champion_loss])
    low, high = np.percentile(_resample(gains, np.random.default_rng(seed)), [2.5, 97.5], axis=0)
    return Comparison(
        n=len(truth),
        challenger_accuracy=float(right.mean()),
        champion_accuracy=float(champion_right.mean()),
        accuracy_difference=Difference(value=(better - worse) / len(truth), interval_95=(low[0], high[0])),
        challenger_log_loss=float(loss.mean()),
        champion_log_loss=float(champion_loss.mean()),
        log_loss_difference=Difference(value=float(gains[1].mean()), interval_95=(low[1], high[1])),
        only_challenger_right=better,
        only_champion_right=worse,
        mcnemar_p=mcnemar(better, worse),
    )


def mcnemar(better: int, worse: int) -> float:
    """Returns the two-sided p of the exact test on the images that only one of the models classifies correctly.

    The null hypothesis is that both models are equally likely to be that one. Twice the binomial tail: McNemar 1947,
    the "exact conditional" test of Fagerland et al. 2013, https://doi.org/10.1186/1471-2288-13-91, and statsmodels'
    ``mcnemar(exact=True)``. 1 if the models never differ.
    """
    return min(1.0, 2 * float(bdtr(min(better, worse), better + worse, 0.5)))


def _resample(gains: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Returns ``(resamples, 2)`` means of the ``(2, N)`` differences, one row per resample of the images."""
    count = gains.shape[1]
    draws = (np.bincount(random.integers(0, count, count), minlength=count) for _ in range(resamples(count)))
    means: NDArray[np.float64] = np.stack([gains @ weights for weights in draws]) / count
    return means
