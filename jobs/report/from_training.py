"""What the report shows beside figures: pictures with their activation maps, and the learning curve."""

from typing import Any

import keras

from jobs.config import TrainConfig
from jobs.data.dataset import Quarantined
from jobs.data.loader import ImageLoader
from jobs.metrics import learning_curve
from jobs.metrics.learning_curve import Curve
from jobs.report import evaluation_page, gallery
from jobs.report.gallery import Answers, Gallery
from jobs.training.evaluation import ScoredTestSet
from jobs.training.features import FeatureSet
from jobs.training.neuron import Neuron
from worker.contract import ModelManifest


def measure_curve(learned: FeatureSet, config: TrainConfig) -> Curve | None:
    """Accuracy on the validation split, by the number of training images; the pictures themselves, no further views."""
    train, held = learned.split("train"), learned.split("validation")
    return learning_curve.measure(
        *(train.variants[0], train.classes, held.variants[0], held.classes),
        fit=lambda features, classes: Neuron.fit(features, classes, l2=config.l2).scores,
        seed=config.seed,
    )


def hang_gallery(seen_through: keras.Model, test: ScoredTestSet, threshold: float, reader: ImageLoader) -> Gallery:
    """The test images to look at, each with what its parts speak for."""
    answers = Answers([row.source_ref for row in test.rows], test.truth, test.scores, threshold)
    choice = gallery.choose(answers)
    chunk = reader.load([test.images[place] for place in choice.mistakes + choice.uncertain])
    maps, _ = gallery.contributions(seen_through, chunk.pixels)
    return gallery.hang(choice, answers, chunk.pixels, maps)


def page(  # noqa: PLR0913 - all that there is to tell
    manifest: ModelManifest,
    evaluation: dict[str, Any],
    test: ScoredTestSet,
    config: TrainConfig,
    *,
    shown: Gallery,
    curve: Curve | None,
    left_out: list[Quarantined],
) -> bytes:
    """``report.html``."""
    facts = evaluation_page.Facts(
        name=manifest.name,
        version=manifest.version,
        created_at=manifest.created_at,
        labels=manifest.labels,
        evaluation=evaluation,
        truth=test.truth,
        scores=test.scores,
        gallery=shown,
        curve=curve,
        quarantined=[(item.image.ref, item.reason.code.value, item.reason.message) for item in left_out],
        dataset_digest=manifest.dataset_digest,
        libraries=manifest.libraries,
        configuration=manifest.training_config,
        command=config.command(),
    )
    return evaluation_page.render(facts).encode()
