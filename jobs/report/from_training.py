"""The training report of a run: its gallery, its learning curve and its page."""

from typing import TYPE_CHECKING, Any

from jobs.config import TrainConfig
from jobs.data.dataset import Quarantined
from jobs.data.loader import ImageLoader
from jobs.metrics import learning_curve
from jobs.metrics.learning_curve import Curve
from jobs.report import evaluation_page
from jobs.report.gallery import Answers, Gallery, activation_maps, choose
from jobs.training.evaluation import ScoredTestSet
from jobs.training.features import FeatureSet
from jobs.training.neuron import Neuron
from jobs.wording import program
from worker.contract import ModelManifest

if TYPE_CHECKING:
    import keras


def measure_curve(learned: FeatureSet, config: TrainConfig) -> Curve | None:
    """Measures the accuracy on the validation split by the number of training images, without augmentation."""
    train, held = learned.split("train"), learned.split("validation")
    return learning_curve.measure(
        *(train.variants[0], train.classes, held.variants[0], held.classes),
        fit=lambda features, classes: Neuron.fit(features, classes, l2=config.l2).scores,
        seed=config.seed,
    )


def build_gallery(model: "keras.Model", test: ScoredTestSet, threshold: float, loader: ImageLoader) -> Gallery:
    """Builds the gallery from the test images. ``model`` returns the last feature maps and the score."""
    answers = Answers([row.source_ref for row in test.rows], test.truth, test.scores, threshold)
    choice = choose(answers)
    chunk = loader.load([test.images[place] for place in choice.mistakes + choice.uncertain])
    return Gallery.of(choice, answers, chunk.pixels, activation_maps(model, chunk.pixels))


def render_report(  # noqa: PLR0913 - everything that the report shows
    manifest: ModelManifest,
    evaluation: dict[str, Any],
    test: ScoredTestSet,
    config: TrainConfig,
    *,
    gallery: Gallery,
    curve: Curve | None,
    left_out: list[Quarantined],
) -> bytes:
    """Renders ``report.html``."""
    facts = evaluation_page.TrainingFacts(
        name=manifest.name,
        version=manifest.version,
        created_at=manifest.created_at,
        labels=manifest.labels,
        evaluation=evaluation,
        truth=test.truth,
        scores=test.scores,
        gallery=gallery,
        curve=curve,
        quarantined=[(item.image.ref, item.reason.code.value, item.reason.message) for item in left_out],
        dataset_digest=manifest.dataset_digest,
        libraries=manifest.libraries,
        configuration=manifest.training_config,
        command=config.command().replace("twofold", program(), 1),
    )
    return evaluation_page.render(facts).encode()
