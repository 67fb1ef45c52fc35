"""What a threshold rule asked for, and what the test images show of it.

``precision>=0.99`` holds on the validation images, from which its threshold was chosen. Other images may say otherwise.
"""

from dataclasses import dataclass
from typing import Any, Final

_DIGITS: Final = 3
_MOST_DIGITS: Final = 6


@dataclass(frozen=True)
class RuleOutcome:
    """The figure that a rule bounds, as asked for and as found on the test images."""

    figure: str  #: ``precision`` or ``recall``, of class 1
    asked: float
    found: float
    interval_95: tuple[float, float]  #: of ``found``

    @property
    def borne_out(self) -> bool:
        """Whether the test images satisfy the rule."""
        return self.found >= self.asked

    @property
    def may_be_chance(self) -> bool:
        """Whether other test images of the same kind might well satisfy the rule."""
        return self.interval_95[1] >= self.asked

    @property
    def advice(self) -> str:
        """How much the test images say, and what to do if that is too little."""
        chance = "That may be chance." if self.may_be_chance else "Chance hardly explains that."
        more = f"ask for more ({self.figure}>={(1 + self.asked) / 2:.4g}), or " if self.asked < 1 else ""
        return f"{chance} To be safer, {more}keep more images for validation (--validation-split)."

    def __str__(self) -> str:
        """Asked for a precision of at least 0.99; on the test images 0.984, interval 0.972 to 0.994."""
        low, high = (f"{end:.{_DIGITS}f}" for end in self.interval_95)
        return (
            f"asked for a {self.figure} of at least {self.asked:g}; on the test images {self._found()}, "
            f"95 % interval {low} to {high}"
        )

    def _found(self) -> str:
        """Returns the figure with as many digits as it takes to see on which side of the bound it is."""
        for digits in range(_DIGITS, _MOST_DIGITS):
            text = f"{self.found:.{digits}f}"
            if (float(text) >= self.asked) is self.borne_out:
                return text
        return f"{self.found:.{_MOST_DIGITS}f}"


def outcome(evaluation: dict[str, Any]) -> RuleOutcome | None:
    """Returns what became of the rule in an ``evaluation.json``; None for a rule without a bound, or without a rule.

    The interval is that of the evaluation.
    """
    figure, _, least = str(evaluation.get("threshold_rule", "")).partition(">=")
    figures = evaluation.get("binary_classification_metrics", {})
    if not least or figure not in figures:
        return None
    low, high = figures[figure]["interval_95"]
    return RuleOutcome(figure, float(least), float(figures[figure]["value"]), (low, high))
