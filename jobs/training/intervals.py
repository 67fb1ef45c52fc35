"""The interval of a share: how far a count out of so many can be trusted."""

from math import sqrt
from typing import Final

#: Standard normal, 97.5th percentile: two of them hold 95 %.
_Z: Final = 1.959964


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share seen in ``count`` independent images (Wilson 1927).

    Unlike a bootstrap, or mean ± 2 standard errors, it has a width where the share is 0 or 1. Nothing seen is [0, 1].
    """
    if count == 0:
        return 0.0, 1.0
    spread = _Z**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = _Z / (1 + spread) * sqrt(share * (1 - share) / count + spread / count / 4)
    # At the ends of the scale the bound is the end itself, which rounding would miss.
    return (0.0 if share == 0 else middle - half), (1.0 if share == 1 else middle + half)
