"""What a band of unsure scores does on images whose classes are known, and what its rule asked for.

``precision>=0.99 for both`` holds on the validation images, from which the band was chosen
(``jobs.metrics.calibration``). Other images may say otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobs.config import asked_of_both, fixed_band
from jobs.metrics.wilson import wilson
from jobs.unsure_band import Band
from jobs.user_error import UserError
from worker.contract import check_band

if TYPE_CHECKING:  # a command that only shows figures starts without NumPy
    from jobs.metrics.arrays import Classes, Scores

_DIGITS: Final = 3


def check_labels(rule: str | None, labels: tuple[str, str]) -> None:
    """Raises UserError if there is to be a band, and a class is called ``unsure``: call it before the training."""
    if rule is not None:
        try:
            check_band((0.0, 1.0), None, labels=labels)
        except ValueError as error:
            raise UserError(f"{error}. Rename the folder, or leave out --unsure.") from None


@dataclass(frozen=True)
class Proportion:
    """A share of some images."""

    images: int
    of: int

    @property
    def value(self) -> float | None:
        """The share; None of no images."""
        return self.images / self.of if self.of else None

    @property
    def interval_95(self) -> tuple[float, float]:
        """The 95 % interval, Wilson's; of no images it is [0, 1]."""
        return wilson(self.value or 0.0, self.of)

    def as_json(self) -> dict[str, Any]:
        """Returns it as it is in ``evaluation.json``."""
        return {"value": self.value, "images": self.images, "of": self.of, "interval_95": list(self.interval_95)}


@dataclass(frozen=True)
class BandFigures:
    """What a band does on images whose classes are known."""

    band: Band
    unsure: Proportion  #: of all images, those in the band
    right: Proportion  #: of the others, those that are classified correctly
    precision: tuple[Proportion, Proportion]  #: of the others that are classified as 0 and as 1, those that are
    rule: str | None = None  #: how the band was chosen

    @classmethod
    def of(
        cls, truth: "Classes", scores: "Scores", *, threshold: float, band: Band, rule: str | None = None
    ) -> "BandFigures":
        """Counts ``(N,)`` true classes and scores."""
        outside = ~((band[0] <= scores) & (scores < band[1]))
        given = scores >= threshold
        sure = [outside & (given == label) for label in (False, True)]
        right = [int((truth[answers] == label).sum()) for label, answers in enumerate(sure)]
        zero, one = (Proportion(hits, int(answers.sum())) for hits, answers in zip(right, sure, strict=True))
        return cls(
            band=band,
            unsure=Proportion(int((~outside).sum()), len(scores)),
            right=Proportion(sum(right), int(outside.sum())),
            precision=(zero, one),
            rule=rule,
        )

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "BandFigures":
        """Reads what ``as_json`` wrote. Raises KeyError, TypeError or ValueError for anything else."""

        def share(value: Mapping[str, Any]) -> Proportion:
            return Proportion(int(value["images"]), int(value["of"]))

        zero, one = map(share, found["precision"].values())
        low, high = found["band"]
        unsure, right = share(found["share"]), share(found["accuracy"])
        return cls((float(low), float(high)), unsure, right, (zero, one), found["rule"])

    def as_json(self, labels: tuple[str, str]) -> dict[str, Any]:
        """Returns the figures as they are in ``evaluation.json``."""
        return {
            "rule": self.rule,
            "band": list(self.band),
            "share": self.unsure.as_json(),
            "accuracy": self.right.as_json(),
            "precision": {label: one.as_json() for label, one in zip(labels, self.precision, strict=True)},
        }

    @property
    def missed(self) -> list[tuple[int, Proportion]]:
        """The classes whose precision is not what the rule asked for, each with its precision."""
        least = asked_of_both(self.rule) if self.rule and fixed_band(self.rule) is None else 0.0
        return [(label, one) for label, one in enumerate(self.precision) if (one.value or 0.0) < least and one.of]

    @property
    def outside(self) -> int:
        """The number of images outside of the band."""
        return self.right.of

    def unmet(self, labels: tuple[str, str]) -> str | None:
        """Returns what the test images say about the rule, if they do not bear it out."""
        least = asked_of_both(self.rule) if self.rule and self.missed else 0.0
        found = [f"{_shown(one, least)} for {labels[label]}" for label, one in self.missed]
        return f"asked for {self.rule}; on the test images {' and '.join(found)}" if found else None


def of_evaluation(evaluation: Mapping[str, Any]) -> BandFigures | None:
    """Returns the figures of the band in an ``evaluation.json``, or None where the model has no band."""
    found = evaluation.get("unsure")
    return None if found is None else BandFigures.from_json(found)


def _shown(share: Proportion, least: float) -> str:
    """Returns a precision with as many digits as it takes to see that it is below the bound, and its interval."""
    value, (low, high) = share.value or 0.0, share.interval_95
    digits = next((n for n in range(_DIGITS, 7) if float(f"{value:.{n}f}") < least), 6)
    return f"{value:.{digits}f} (95 % interval {low:.{_DIGITS}f} to {high:.{_DIGITS}f})"
