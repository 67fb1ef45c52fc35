"""The evaluation: the exported graph on the test images, by the worker's own scorer, and all that is told of it."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import keras
import numpy as np

from jobs.config import TrainConfig
from jobs.data.cache import Shelf
from jobs.data.dataset import Dataset, LabelledImage, Quarantined, by_code
from jobs.data.loader import Reader
from jobs.metrics import classification, scored_images
from jobs.metrics.arrays import Classes, Scores
from jobs.metrics.scored_images import ScoredImage
from jobs.progress import Advance
from jobs.training.head import Decision
from jobs.user_error import UserError
from worker.predictions import Rule
from worker.scoring.decoder import Pixels
from worker.scoring.litert import Scorer

#: The largest difference of scores between model.keras and model.tflite that is rounding, not a broken export.
PARITY: Final = 1e-3


@dataclass(frozen=True)
class Tested:
    """The test images that could be decoded, and what the graph says of each."""

    images: list[LabelledImage]
    rows: list[ScoredImage]
    labels: tuple[str, str]

    @cached_property
    def truth(self) -> Classes:
        """``(N,)`` classes."""
        return scored_images.truth(self.rows, self.labels)

    @cached_property
    def scores(self) -> Scores:
        """``(N,)`` P(class 1), as they stand in test_predictions.csv."""
        return scored_images.scores(self.rows)


def score(scorer: Scorer, dataset: Dataset, reader: Reader, *, rule: Rule, shelf: Shelf, advance: Advance) -> Tested:
    """Scores the test images. Raises UserError when they are not of both classes."""
    scorer.check(image_size=reader.size_px)
    seen = reader.compute(dataset.test, lambda pixels, _: scorer.score_all(pixels), shelf=shelf, advance=advance)
    check_two_classes(seen.images, dataset.test)
    rows = [
        ScoredImage.of(
            rule.scored(number, image.ref, float(seen.values[number])),
            true_label=dataset.labels[image.label],
            sha256=image.sha256,
        )
        for number, image in enumerate(seen.images)
    ]
    return Tested(seen.images, rows, dataset.labels)


def parity(seen_through: keras.Model, scorer: Scorer, pixels: Pixels) -> float:
    """The largest difference in a score of the two formats, of Keras's the model that ``network.see_through`` gives.

    Raises UserError where it is no rounding.
    """
    _, by_keras = seen_through.predict(pixels, batch_size=8, verbose=0)  # 32 at once take 0.17 GB more
    difference = float(np.abs(by_keras[:, 0] - scorer.score_all(pixels)).max())
    if not difference <= PARITY:  # NaN, too
        raise UserError(f"The export is not faithful: model.tflite and model.keras differ by {difference} in a score.")
    return difference


def tell(
    test: Tested, decision: Decision, config: TrainConfig, dataset: Dataset, left_out: list[Quarantined]
) -> dict[str, Any]:
    """The figures of ``evaluation.json``, and what they were decided by."""
    given = (test.scores >= decision.threshold).astype(np.int64)
    return classification.evaluate(test.truth, test.scores, threshold=decision.threshold) | {
        "per_class": classification.per_class(test.truth, given, dataset.labels),
        "threshold_rule": config.threshold,
        "temperature": decision.temperature,
        "validation": classification.headline(decision.validation),
        "quarantined": by_code(left_out),
    }


def check_two_classes(kept: list[LabelledImage], images: list[LabelledImage]) -> None:
    """Raises UserError unless there are images of both classes among those that could be decoded."""
    if {image.label for image in kept} != {0, 1}:
        raise UserError(
            f"Of {len(images)} images {len(kept)} can be read, and they are not of both classes: "
            "look for damaged files in one of the two folders."
        )
