"""The band of scores whose answers are unsure, as people type and read it: ``0.3:0.7``."""

from typing import Final

Band = tuple[float, float]

#: What a message shows of the form.
EXAMPLE: Final = "0.3:0.7"


def parse_band(text: str) -> Band:
    """Returns the two ends of a band. Raises ValueError, with the form, for any other text."""
    low, separator, high = text.partition(":")
    try:
        band = (float(low), float(high))
    except ValueError:
        separator = ""
        band = (0.0, 0.0)
    if not separator or not 0.0 <= band[0] <= band[1] <= 1.0:  # false for NaN, too
        raise ValueError(f"must be two scores from 0 to 1, the lower one first, such as {EXAMPLE}, not {text!r}")
    return band[0] + 0.0, band[1] + 0.0  # which turns -0.0 into 0.0


def as_typed(band: Band) -> str:
    """Returns ``0.3:0.7``, with as many digits as it takes to read the same band again."""
    return f"{band[0]!r}:{band[1]!r}"


def described(band: Band) -> str:
    """Returns ``scores from 0.3 to below 0.7``, as part of a sentence."""
    low, high = (f"{end:.4g}" for end in band)
    return "no score" if band[0] == band[1] else f"scores from {low} to below {high}"
