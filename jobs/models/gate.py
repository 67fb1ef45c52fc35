"""Whether a challenger may replace the champion: both judged on the challenger's test pictures."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jobs.metrics import scored_images
from jobs.metrics.arrays import Scores
from jobs.metrics.comparison import Comparison, compare
from jobs.metrics.scored_images import ScoredImage
from jobs.models.bundle import Bundle
from jobs.models.verification import score_again
from jobs.progress import Reporter
from jobs.user_error import UserError
from worker.errors import Reject
from worker.scoring.models import MANIFEST_FILE, MODEL_FILE


class Refused(UserError):
    """The champion stays; ``comparison`` says why, where it is about figures."""

    def __init__(self, message: str, comparison: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.comparison = comparison


@dataclass(frozen=True)
class Judgement:
    """The comparison as it goes on record, and what speaks against the challenger."""

    comparison: dict[str, Any] | None
    objection: str | None


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What a challenger is asked for."""

    margin: float  #: of accuracy that it may be worse
    force: bool = False  #: whether an objection is overruled
    data: Path | None = None  #: the folder with its test pictures
    reporter: Reporter

    @property
    def needs(self) -> frozenset[str]:
        """The files of a champion that judging takes: its graph only where it may be scored again."""
        return frozenset({MANIFEST_FILE, scored_images.FILE, *({MODEL_FILE} if self.data else ())})

    def judge(self, challenger: Bundle, champion: Bundle) -> Judgement:
        """Raises Refused where the two answer different questions, which no force overrules."""
        _check_labels(challenger, champion)
        try:
            images = challenger.images()
            scores, source = self._champion_scores(challenger, champion, images)
        except Reject as error:
            return Judgement(None, f"{error.message}. --force promotes without a comparison.")
        except Refused as error:
            return Judgement(None, f"{error} Or --force promotes without a comparison.")
        outcome = compare(
            scored_images.truth(images, challenger.manifest.labels),
            scored_images.scores(images),
            scores,
            thresholds=(challenger.manifest.threshold, champion.manifest.threshold),
        )
        told = outcome.model_dump(mode="json") | {"champion_scores": source, "margin": self.margin}
        return Judgement(told, _objection(outcome, self.margin) if outcome.is_worse(self.margin) else None)

    def _champion_scores(
        self, challenger: Bundle, champion: Bundle, images: Sequence[ScoredImage]
    ) -> tuple[Scores, Literal["recorded", "scored again"]]:
        """The champion's scores of the challenger's test images, in their order."""
        try:
            recorded = champion.images()
            unusable = "the two were not tested on the same pictures"
        except Reject as error:  # damaged, or of a version that did not tell the truth: it can still be scored again
            recorded, unusable = [], error.message
        _check_truth(images, recorded)
        if {image.sha256 for image in recorded} == {image.sha256 for image in images}:
            by_picture = {image.sha256: image.score for image in recorded}
            return np.array([by_picture[image.sha256] for image in images], np.float64), "recorded"
        if self.data is None:
            raise Refused(
                f"{unusable}. Add --data FOLDER with the test pictures of "
                f"{challenger.manifest.version}, and the champion is scored on them."
            )
        again = score_again(champion.open(), images, self.data, search=True, reporter=self.reporter)
        missing = [image.source_ref for image in images if not np.isfinite(again.get(image.sha256, np.nan))]
        if missing:
            raise Refused(
                f"{len(missing):,} of the {len(images):,} test pictures are not in {self.data}, such as {missing[0]}. "
                "Give --data the folder that it was trained with."
            )
        return np.array([again[image.sha256] for image in images], np.float64), "scored again"


def _check_labels(challenger: Bundle, champion: Bundle) -> None:
    ours, theirs = challenger.manifest.labels, champion.manifest.labels
    if ours != theirs:
        raise Refused(
            f"{challenger.manifest.version} tells {ours[0]} (0) from {ours[1]} (1), and the champion "
            f"{theirs[0]} (0) from {theirs[1]} (1): the same score would mean something else to whoever reads it. "
            "Another question is another model: train it under a --name of its own."
        )


def _check_truth(images: Sequence[ScoredImage], recorded: Sequence[ScoredImage]) -> None:
    labels = {(image.sha256, image.true_label) for image in (*images, *recorded)}
    count = Counter(sha256 for sha256, _ in labels)
    contested = next((image.source_ref for image in images if count[image.sha256] > 1), None)
    if contested is not None:
        raise Refused(f"{contested} is of both classes: the two test sets disagree on it, or one holds it twice.")


def _objection(outcome: Comparison, margin: float) -> str:
    low, high = outcome.accuracy_difference.interval_95
    return (
        f"on the same {outcome.n:,} test images its accuracy is {outcome.challenger_accuracy:.4f} against "
        f"{outcome.champion_accuracy:.4f}, a difference of {outcome.accuracy_difference.value:+.4f} "
        f"({low:+.4f} to {high:+.4f}); at most {margin:g} may be lost. "
        "--margin allows more, --force promotes it all the same."
    )
