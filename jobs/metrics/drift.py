"""Whether the scores of a job look like those that the model was tested with."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from jobs.metrics.arrays import Scores

#: Added to each bin: a share of nothing has no logarithm, and a bin that is empty by chance says little.
_HALF: Final = 0.5
_BINS: Final = 10
#: The 95 % quantile of chi-squared with 9 degrees of freedom.
_CHI_SQUARED: Final = 16.919


@dataclass(frozen=True)
class Drift:
    """The population stability index, and what is usually made of it."""

    psi: float
    chance: float  #: without any shift it stays below this in 95 of 100 cases

    @property
    def verdict(self) -> str:
        """The rule of thumb of credit scoring: Siddiqi, Credit Risk Scorecards, 2006."""
        if self.psi < max(0.1, self.chance):
            return "no shift to speak of"
        return "some shift" if self.psi < 0.25 else "a large shift"  # noqa: PLR2004


def drift(tested: Scores, seen: Scores) -> Drift | None:
    """The index over tenths of the score; None where either has no scores.

    PSI = sum over bins of (q - p) * ln(q / p), with p and q the shares of ``tested`` and ``seen`` in a bin. Equal
    widths, since scores lie at the two ends: quantiles of them would be all ends. Without a shift it is distributed as
    (1/n + 1/m) times chi-squared with one degree of freedom less than bins (Yurdakul and Naranjo, 2020), so that it
    is large for a few images whatever they are.
    """
    if not len(tested) or not len(seen):
        return None
    p, q = ((_counts(scores, _BINS) + _HALF) / (len(scores) + _HALF * _BINS) for scores in (tested, seen))
    return Drift(float(np.sum((q - p) * np.log(q / p))), _CHI_SQUARED * (1 / len(tested) + 1 / len(seen)))


def shares(scores: Scores, bins: int) -> Scores:
    """``(bins,)`` shares of all scores, by equal widths from 0 to 1."""
    found: Scores = _counts(scores, bins) / max(len(scores), 1)
    return found


def _counts(scores: Scores, bins: int) -> Scores:
    return np.histogram(scores, bins, range=(0.0, 1.0))[0].astype(np.float64)
