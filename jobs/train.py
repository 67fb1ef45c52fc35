"""The recipe: a folder of pictures to a model bundle.

    twofold train run --data pets/ --output models/
    python -m jobs.train --data pets/ --output s3://shelter/models

It is the seed's: split 80/20 with seed 123, MobileNetV2 without its top, frozen, global average pooling, one sigmoid
neuron, Adam and binary cross-entropy. Because the backbone is frozen, an image's features never change: they are
computed once, and the head learns from those.
"""

import json
import platform
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, Final

import keras
import numpy as np

from jobs import backbone, bundle, dataset, network, report
from jobs.config import TrainConfig
from jobs.dataset import LabelledImage, Reader, Splits
from jobs.errors import UserError
from jobs.network import Classes, Features
from jobs.progress import Advance, Reporter
from worker import predictions
from worker.contract import ModelManifest, PredictionRow
from worker.images import fingerprint
from worker.model import MODEL_FILE
from worker.scorer import Scorer
from worker.settings import available_cores

#: The largest difference of scores between model.keras and model.tflite that is rounding, not a broken export.
_PARITY: Final = 1e-3
#: How many test images that is checked on.
_PARITY_IMAGES: Final = 64
_LIBRARIES: Final = ("twofold", "keras", "tensorflow", "numpy", "pillow", "scikit-learn", "ai-edge-litert")


@dataclass(frozen=True)
class Trained:
    """What a job came to."""

    uri: str  #: of the bundle
    manifest: ModelManifest
    evaluation: dict[str, Any]
    champion: bool  #: whether it became the champion, being the first


@dataclass(frozen=True)
class _Test:
    """The exported graph's answers on the test images."""

    rows: list[PredictionRow]
    truth: Classes
    parity: float  #: largest difference to model.keras in a score


def train(config: TrainConfig, reporter: Reporter) -> Trained:
    """Runs the whole job. Raises UserError for what a person can mend."""
    started = time.monotonic()
    created_at = datetime.now(UTC)
    config = config.model_copy(update={"version": config.version or created_at.strftime("%Y%m%dT%H%M%SZ")})
    output = bundle.open_output(config.output)
    keras.utils.set_random_seed(config.seed)

    # Load: which images there are, and the frozen backbone.
    splits = dataset.find(config)
    reporter.say(_summary(splits))
    with reporter.step("Loading the backbone"):
        base, weights = backbone.load(config.weights, image_size=config.image_size)
    reporter.say(f"  {weights}")

    # Features: once an image, (N, H, W, 3) uint8 -> (N, 1280) float32.
    reader = Reader(config.image_size)
    extractor = network.build_extractor(base, image_size=config.image_size)
    with reporter.step("Reading images, computing features", total=len(splits.train + splits.validation)) as advance:
        learned = _features(extractor, reader, splits.train, advance)
        held_out = _features(extractor, reader, splits.validation, advance)

    # Head: 1,281 numbers to learn. A first fit tells how it does on images it has not seen; the second keeps nothing back.
    with reporter.step("Training the head"):
        trial = network.fit_head(*learned, config)
        validation = report.evaluate(held_out[1], trial.predict(held_out[0], verbose=0)[:, 0], threshold=config.threshold)
        head = network.fit_head(*map(np.concatenate, zip(learned, held_out, strict=True)), config)
    model = network.join(extractor, head)

    # Export, and evaluate what was exported with the worker's own scorer: the report is about what is served.
    with reporter.step("Exporting to LiteRT"):
        keras_file, litert_file = network.to_keras_bytes(model), network.to_litert_bytes(model)
    with reporter.step("Evaluating on the test images", total=len(splits.test)) as advance:
        test = _test(Scorer(litert_file), model, reader, splits, config, advance)
    scores = np.array([row.score for row in test.rows])
    evaluation = report.evaluate(test.truth, scores, threshold=config.threshold) | {
        "images": {"train": len(learned[1]), "validation": len(held_out[1]), "quarantined": len(reader.quarantined)},
        "weights": weights,
        "validation": report.headline(validation),
        "parity_max_difference": test.parity,
        "hardware": f"{platform.machine()}, {available_cores()} cores",
        "seconds": round(time.monotonic() - started, 1),
    }

    # Write: model.json last, with the digest of every other file.
    files = {
        "model.keras": keras_file,
        MODEL_FILE: litert_file,
        "evaluation.json": json.dumps(evaluation, indent=2).encode(),
        "test_predictions.csv": predictions.to_csv(test.rows),
        "quarantine.csv": dataset.quarantine_csv(reader.quarantined),
    }
    manifest = _manifest(config, splits, files, evaluation, reader, created_at)
    with reporter.step("Writing the bundle"):
        prefix = bundle.write_bundle(output, files, manifest)
        champion = bundle.point_champion(output, manifest)
    return Trained(f"{config.output.rstrip('/')}/{prefix}", manifest, evaluation, champion)


def _summary(splits: Splits) -> str:
    return (
        f"  class 0 {splits.labels[0]}, class 1 {splits.labels[1]}: {len(splits.train):,} images to train on, "
        f"{len(splits.validation):,} to validate, {len(splits.test):,} to test"
    )


def _features(
    extractor: keras.Model, reader: Reader, images: list[LabelledImage], advance: Advance
) -> tuple[Features, Classes]:
    """``(N, 1280)`` float32 features and ``(N,)`` classes of the images that can be decoded."""
    features, classes = [], []
    for chunk in reader.chunks(images):
        features.append(network.extract(extractor, chunk.pixels))
        classes += [image.label for image in chunk.images]
        advance(len(chunk.images))
    if len(set(classes)) != 2:  # noqa: PLR2004
        raise UserError(f"Of {len(images)} images {len(classes)} can be read, and they are not of two classes.")
    return np.concatenate(features), np.array(classes)


def _test(
    scorer: Scorer, model: keras.Model, reader: Reader, splits: Splits, config: TrainConfig, advance: Advance
) -> _Test:
    """Scores the test images with the exported graph, and some with Keras too: an export must not change a score."""
    scorer.check(image_size=config.image_size)
    rule = predictions.Rule(labels=splits.labels, threshold=config.threshold, model_version=str(config.version))
    rows: list[PredictionRow] = []
    truth: list[int] = []
    parity = 0.0
    for chunk in reader.chunks(splits.test):
        scores = scorer.score_all(chunk.pixels)
        if not rows:
            few = chunk.pixels[:_PARITY_IMAGES]
            parity = float(np.abs(model.predict(few, verbose=0)[:, 0] - scores[: len(few)]).max())
        rows += [rule.scored(len(rows) + i, image.ref, float(scores[i])) for i, image in enumerate(chunk.images)]
        truth += [image.label for image in chunk.images]
        advance(len(chunk.images))
    if parity > _PARITY:
        raise UserError(f"The export is not faithful: model.tflite and model.keras differ by {parity:.4f} in a score.")
    if len(set(truth)) != 2:  # noqa: PLR2004
        raise UserError(f"Of {len(splits.test)} test images {len(truth)} can be read, and they are not of two classes.")
    return _Test(rows, np.array(truth), parity)


def _manifest(
    config: TrainConfig,
    splits: Splits,
    files: dict[str, bytes],
    evaluation: dict[str, Any],
    reader: Reader,
    created_at: datetime,
) -> ModelManifest:
    return ModelManifest(
        name=config.name,
        version=str(config.version),
        created_at=created_at,
        labels=splits.labels,
        image_size=config.image_size,
        decoder_fingerprint=fingerprint(),
        threshold=config.threshold,
        files=bundle.describe(files),
        training_config=config.model_dump(mode="json"),
        dataset_digest=reader.dataset_digest(),
        libraries={name: metadata.version(name) for name in _LIBRARIES} | {"python": platform.python_version()},
        metrics=report.headline(evaluation),
    )


if __name__ == "__main__":
    from jobs.cli import main

    sys.exit(main(["train", "run", *sys.argv[1:]]))
