"""The evaluation: the exported model on the test images, scored by the worker's own code, and its figures."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import keras
import numpy as np

from jobs.config import TrainConfig
from jobs.data.cache import ArrayCache
from jobs.data.dataset import Dataset, LabelledImage, Quarantined, by_code
from jobs.data.loader import ImageLoader
from jobs.metrics import classification, scored_images
from jobs.metrics.arrays import Classes, Scores
from jobs.metrics.scored_images import ScoredImage
from jobs.metrics.unsure_rule import BandFigures
from jobs.progress import Advance
from jobs.training.head import Decision
from jobs.user_error import UserError
from worker.predictions import Rule
from worker.scoring.decoder import Pixels
from worker.scoring.litert import Scorer
from worker.settings import available_cores

#: Largest difference between a score of model.keras and of model.tflite. More is not rounding but a broken export.
PARITY: Final = 1e-3


@dataclass(frozen=True)
class ScoredTestSet:
    """The test images that could be decoded, with their scores."""

    images: list[LabelledImage]
    rows: list[ScoredImage]
    labels: tuple[str, str]

    @cached_property
    def truth(self) -> Classes:
        """``(N,)`` classes."""
        return scored_images.truth(self.rows, self.labels)

    @cached_property
    def scores(self) -> Scores:
        """``(N,)`` P(class 1), rounded as in test_predictions.csv."""
        return scored_images.scores(self.rows)


def score(
    scorer: Scorer, dataset: Dataset, loader: ImageLoader, *, rule: Rule, cache: ArrayCache, advance: Advance
) -> ScoredTestSet:
    """Scores the test images. Raises UserError unless images of both classes can be decoded."""
    scorer.check(image_size=loader.size_px)
    threads = available_cores()
    scored = loader.compute(
        dataset.test, lambda pixels, _: scorer.score_all(pixels, threads=threads), cache=cache, advance=advance
    )
    check_two_classes(scored.images, dataset.test)
    rows = [
        ScoredImage.of(
            rule.scored(number, image.ref, float(scored.values[number])),
            true_label=dataset.labels[image.label],
            sha256=image.sha256,
        )
        for number, image in enumerate(scored.images)
    ]
    return ScoredTestSet(scored.images, rows, dataset.labels)


def measure_parity(model: keras.Model, scorer: Scorer, pixels: Pixels) -> float:
    """Returns the largest difference in a score between the two formats. ``model`` is one ``with_feature_maps``.

    Raises UserError if it is more than rounding.
    """
    _, by_keras = model.predict(pixels, batch_size=8, verbose=0)  # a batch of 32 takes 0.17 GB more
    difference = float(np.abs(by_keras[:, 0] - scorer.score_all(pixels, threads=available_cores())).max())
    if not difference <= PARITY:  # true for NaN, too
        raise UserError(f"The export is not faithful: model.tflite and model.keras differ by {difference} in a score.")
    return difference


def evaluate(
    test: ScoredTestSet, decision: Decision, config: TrainConfig, dataset: Dataset, quarantined: list[Quarantined]
) -> dict[str, Any]:
    """Returns the figures of ``evaluation.json``, and what was decided on the validation images."""
    given = (test.scores >= decision.threshold).astype(np.int64)
    band = decision.unsure and BandFigures.of(
        test.truth, test.scores, threshold=decision.threshold, band=decision.unsure, rule=config.unsure
    )
    return classification.evaluate(test.truth, test.scores, threshold=decision.threshold) | {
        "per_class": classification.per_class(test.truth, given, dataset.labels),
        "threshold_rule": config.threshold,
        "temperature": decision.temperature,
        "validation": classification.headline(decision.validation),
        "quarantined": by_code(quarantined),
        **({"unsure": band.as_json(dataset.labels)} if band else {}),
    }


def check_two_classes(kept: list[LabelledImage], images: list[LabelledImage]) -> None:
    """Raises UserError unless the images that could be decoded are of both classes."""
    if {image.label for image in kept} != {0, 1}:
        raise UserError(
            f"Only {len(kept)} of {len(images)} images can be decoded, and they are not of both classes. "
            "Look for damaged files in one of the two folders."
        )
