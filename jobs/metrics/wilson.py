"""The confidence interval of a share, which has a width even if the share is 0 or 1.

It needs no library, so that a command that only shows figures starts without scikit-learn.
"""

from math import sqrt
from typing import Final

#: The 97.5th percentile of the standard normal distribution.
_Z: Final = 1.959964


def wilson(share: float, count: int) -> tuple[float, float]:
    """Returns the 95 % confidence interval of a share observed in ``count`` independent images (Wilson 1927).

    Unlike a bootstrap or mean ± 2 standard errors, it has a width even if the share is 0 or 1. Without images it is
    [0, 1].
    """
    if count == 0:
        return 0.0, 1.0
    spread = _Z**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = _Z / (1 + spread) * sqrt(share * (1 - share) / count + spread / count / 4)
    # At the ends of the scale the bound is exactly 0 or 1; rounding would miss it.
    return (0.0 if share == 0 else middle - half), (1.0 if share == 1 else middle + half)
