"""Score drift: whether the scores of a job are distributed like those of the model's test images."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from jobs.metrics.arrays import Scores

#: Added to each count: an empty bin has no logarithm, and a bin that is empty by chance means little.
_HALF: Final = 0.5
_BINS: Final = 10
#: The 95 % quantile of the chi-squared distribution with 9 degrees of freedom.
_CHI_SQUARED: Final = 16.919


@dataclass(frozen=True)
class Drift:
    """The population stability index (PSI) and its interpretation."""

    psi: float
    chance: float  #: without any shift, the PSI stays below this in 95 of 100 cases

    @property
    def verdict(self) -> str:
        """The interpretation, by the rule of thumb of credit scoring (Siddiqi, Credit Risk Scorecards, 2006)."""
        if self.psi < max(0.1, self.chance):
            return "no notable shift"
        return "some shift" if self.psi < 0.25 else "a large shift"  # noqa: PLR2004


def drift(reference: Scores, observed: Scores) -> Drift | None:
    """Computes the PSI over ten bins of the score; None if either array is empty.

    PSI = sum over bins of (q - p) * ln(q / p), where p and q are the shares of ``reference`` and ``observed`` in a
    bin. The bins have equal widths: most scores are close to 0 or 1, so quantiles would all be there too. Without a
    shift, the PSI is distributed as (1/n + 1/m) times chi-squared with bins - 1 degrees of freedom (Yurdakul and
    Naranjo, 2020): for a few images it is large by chance.
    """
    if not len(reference) or not len(observed):
        return None
    p, q = ((_counts(scores, _BINS) + _HALF) / (len(scores) + _HALF * _BINS) for scores in (reference, observed))
    return Drift(float(np.sum((q - p) * np.log(q / p))), _CHI_SQUARED * (1 / len(reference) + 1 / len(observed)))


def shares(scores: Scores, bins: int) -> NDArray[np.float64]:
    """Returns the ``(bins,)`` shares of scores in bins of equal width from 0 to 1."""
    found: NDArray[np.float64] = _counts(scores, bins) / max(len(scores), 1)
    return found


def _counts(scores: Scores, bins: int) -> NDArray[np.float64]:
    return np.histogram(scores, bins, range=(0.0, 1.0))[0].astype(np.float64)
