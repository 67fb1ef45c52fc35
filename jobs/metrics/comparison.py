"""Challenger against champion on the same test images, image by image. Numpy and scipy only; no files."""

from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy.special import bdtr

from jobs.metrics.arrays import Classes, Scores
from jobs.metrics.classification import losses, resamples

#: Far below one image in any test set; above the rounding of ``margin * n``.
_ROUNDING: Final = 1e-9


class Difference(BaseModel):
    """Challenger less champion."""

    model_config = ConfigDict(frozen=True)

    value: float
    interval_95: tuple[float, float]


class Comparison(BaseModel):
    """Two models on the same ``n`` test images, each deciding by its own threshold."""

    model_config = ConfigDict(frozen=True)

    n: int
    challenger_accuracy: float
    champion_accuracy: float
    accuracy_difference: Difference
    challenger_log_loss: float
    champion_log_loss: float
    log_loss_difference: Difference  #: below 0 the challenger's scores are the better ones
    only_challenger_right: int
    only_champion_right: int
    mcnemar_p: float  #: how often chance alone would divide these two as unevenly, were both models equally good

    def is_worse(self, margin: float) -> bool:
        """Whether the challenger's accuracy is lower by more than ``margin``. A tie is not worse."""
        lost = self.only_champion_right - self.only_challenger_right
        return not lost <= margin * self.n + _ROUNDING  # a margin of NaN allows nothing


def compare(
    truth: Classes, challenger: Scores, champion: Scores, *, thresholds: tuple[float, float], seed: int = 0
) -> Comparison:
    """``(N,)`` true classes and the two models' scores of the same images; ``thresholds``: challenger's, champion's.

    The intervals are of the paired bootstrap: images are resampled, and with each go both models' answers to it
    (Efron and Tibshirani 1993, chapter 13). So what is hard for both makes neither look uncertain.
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
    """Two-sided p of the exact test: among images that only one model has right, each is as likely to be the one.

    Twice the binomial tail, McNemar 1947 as in Fagerland et al. 2013, https://doi.org/10.1186/1471-2288-13-91 ("exact
    conditional"), and in statsmodels' ``mcnemar(exact=True)``. 1 where the models never differ.
    """
    return min(1.0, 2 * float(bdtr(min(better, worse), better + worse, 0.5)))


def _resample(gains: Scores, random: np.random.Generator) -> Scores:
    """``(resamples, 2)`` means of the ``(2, N)`` differences, one a resample of the images."""
    count = gains.shape[1]
    draws = (np.bincount(random.integers(0, count, count), minlength=count) for _ in range(resamples(count)))
    means: Scores = np.stack([gains @ weights for weights in draws]) / count
    return means
