"""The gate that decides whether a challenger may replace the champion.

Both are judged on the challenger's test images.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from jobs.metrics import scored_images
from jobs.metrics.arrays import Classes, Scores
from jobs.metrics.scored_images import ScoredImage
from jobs.models.bundle import Bundle, ImagePlaces
from jobs.models.verification import score_again
from jobs.progress import Reporter
from jobs.user_error import UserError
from jobs.wording import counted, program
from worker.contract import ModelManifest
from worker.errors import Reject
from worker.scoring.models import MANIFEST_FILE, MODEL_FILE

if TYPE_CHECKING:
    from jobs.metrics.comparison import Comparison


class PromotionRefused(UserError):
    """The champion stays. ``comparison`` holds the figures if they are the reason."""

    def __init__(self, message: str, comparison: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.comparison = comparison


@dataclass(frozen=True)
class Judgement:
    """The comparison that goes on record, and the objection to the challenger, if any."""

    comparison: dict[str, Any] | None
    objection: str | None


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The conditions that a challenger must meet."""

    margin: float  #: how much accuracy it may lose against the champion
    force: bool = False  #: whether objections are overruled
    data: ImagePlaces | None = None  #: with its test images
    reporter: Reporter

    @property
    def needs(self) -> frozenset[str]:
        """The champion's files that judging reads; its graph only if it may have to be scored again."""
        return frozenset({MANIFEST_FILE, scored_images.FILE, *({MODEL_FILE} if self.data else ())})

    def judge(self, challenger: Bundle, champion: Bundle) -> Judgement:
        """Compares the two. Raises PromotionRefused if they have different classes, which ``force`` cannot overrule."""
        from jobs.metrics.comparison import compare  # noqa: PLC0415 - needs SciPy, and a rollback judges nothing

        _check_labels(challenger, champion)
        try:
            images = challenger.images()
            scores, source = self._champion_scores(challenger, champion, images)
        except Reject as error:
            return Judgement(None, f"{error.message}. {without_comparison(challenger)}")
        except PromotionRefused as error:
            return Judgement(None, f"{error} {without_comparison(challenger)}")
        truth, own = scored_images.truth(images, challenger.manifest.labels), scored_images.scores(images)
        thresholds = (challenger.manifest.threshold, champion.manifest.threshold)
        outcome = compare(truth, own, scores, thresholds=thresholds)
        recorded = outcome.model_dump(mode="json") | {"champion_scores": source, "margin": self.margin}
        if not outcome.is_worse(self.margin):
            return Judgement(recorded, None)
        asked = _asked(challenger.manifest, champion.manifest, truth, (own, scores))
        return Judgement(recorded, f"{_objection(outcome, self.margin)}{asked} {_anyway(challenger)}")

    def _champion_scores(
        self, challenger: Bundle, champion: Bundle, images: Sequence[ScoredImage]
    ) -> tuple[Scores, Literal["recorded", "scored again"]]:
        """Returns the champion's scores of the challenger's test images, in their order."""
        try:
            recorded = champion.images()
            unusable = "the two were not tested on the same images"
        except Reject as error:  # damaged, or without true labels: the champion can still be scored again
            recorded, unusable = [], error.message
        _check_truth(images, recorded)
        if {image.sha256 for image in recorded} == {image.sha256 for image in images}:
            by_digest = {image.sha256: image.score for image in recorded}
            return np.array([by_digest[image.sha256] for image in images], np.float64), "recorded"
        if self.data is None:
            raise PromotionRefused(
                f"{unusable}. Add --data FOLDER with the test images of "
                f"{challenger.manifest.version}, and the champion is scored on them."
            )
        again = score_again(champion.open(), images, self.data, search=True, reporter=self.reporter)
        missing = [image.source_ref for image in images if not np.isfinite(again.get(image.sha256, np.nan))]
        if missing:
            raise PromotionRefused(
                f"{len(missing):,} of the {len(images):,} test images are not in {self.data.where}, such as "
                f"{missing[0]}. Set --data to what the challenger was trained from."
            )
        return np.array([again[image.sha256] for image in images], np.float64), "scored again"


def _check_labels(challenger: Bundle, champion: Bundle) -> None:
    ours, theirs = challenger.manifest.labels, champion.manifest.labels
    if ours != theirs:
        raise PromotionRefused(
            f"The classes of {challenger.manifest.version} are {ours[0]} (0) and {ours[1]} (1), those of the champion "
            f"{theirs[0]} (0) and {theirs[1]} (1), so the same score would mean something else. "
            "Train a model with other classes under another --name."
        )


def _check_truth(images: Sequence[ScoredImage], recorded: Sequence[ScoredImage]) -> None:
    labels = {(image.sha256, image.true_label) for image in (*images, *recorded)}
    count = Counter(sha256 for sha256, _ in labels)
    contested = next((image.source_ref for image in images if count[image.sha256] > 1), None)
    if contested is not None:
        raise PromotionRefused(
            f"{contested} has both classes: the two test sets disagree on it, or one of them holds it twice."
        )


def _objection(outcome: "Comparison", margin: float) -> str:
    low, high = outcome.accuracy_difference.interval_95
    return (
        f"on the same {outcome.n:,} test images its accuracy is {outcome.challenger_accuracy:.4f} against "
        f"{outcome.champion_accuracy:.4f}, a difference of {outcome.accuracy_difference.value:+.4f} "
        f"({low:+.4f} to {high:+.4f}), and at most {margin:g} may be lost. Only one of the two is right on "
        f"{counted(outcome.only_challenger_right + outcome.only_champion_right, 'image')}: "
        f"McNemar's p = {outcome.mcnemar_p:.3g}."
    )


def _asked(challenger: ModelManifest, champion: ModelManifest, truth: Classes, scores: tuple[Scores, Scores]) -> str:
    """Says which figure the challenger was asked for, if not the champion: that costs accuracy by design."""
    rules = [str(model.training_config.get("threshold", "")) for model in (challenger, champion)]
    figure, least, _ = rules[0].partition(">=")
    if not least or rules[0] == rules[1]:
        return ""
    figures = [
        _rate(figure, truth, found >= model.threshold)
        for model, found in zip((challenger, champion), scores, strict=True)
    ]
    was = f"for {rules[1]}" if ">=" in rules[1] else "not"
    return (
        f" {challenger.version} was asked for {rules[0]}, the champion {was}: its accuracy is lower by design. "
        f"On these images its {figure} is {figures[0]:.4f} against {figures[1]:.4f}."
    )


def _rate(figure: str, truth: Classes, called: NDArray[np.bool_]) -> float:
    """Returns the precision or the recall of class 1; 0 where nothing is called that, as scikit-learn."""
    whole = called if figure == "precision" else truth == 1
    return float((called & (truth == 1)).sum() / max(1, whole.sum()))


def _anyway(challenger: Bundle) -> str:
    return f"--force promotes it anyway, and --margin allows more to be lost: {_command(challenger)}"


def without_comparison(challenger: Bundle) -> str:
    """Says how to promote a version that cannot be compared."""
    return f"--force promotes it without a comparison: {_command(challenger)}"


def _command(challenger: Bundle) -> str:
    return f"{program()} model promote {challenger.uri} --force"
