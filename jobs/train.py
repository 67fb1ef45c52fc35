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
from numpy.typing import NDArray

from jobs import activation, backbone, bundle, calibration, dataset, gallery, learning_curve, metrics, network, report
from jobs.config import TrainConfig
from jobs.dataset import LabelledImage, Reader
from jobs.errors import UserError
from jobs.gallery import Answers
from jobs.network import Classes, Features
from jobs.progress import Advance, Reporter
from jobs.store import open_store
from worker import predictions
from worker.contract import ModelManifest, PredictionRow
from worker.images import Pixels, fingerprint
from worker.model import MODEL_FILE
from worker.scorer import Scorer
from worker.settings import available_cores

#: The largest difference of scores between model.keras and model.tflite that is rounding, not a broken export.
_PARITY: Final = 1e-3
#: Of so many test images one is scored by both.
_PARITY_EVERY: Final = 16
_LIBRARIES: Final = ("twofold", "keras", "tensorflow", "numpy", "pillow", "scikit-learn", "ai-edge-litert")


@dataclass(frozen=True)
class Trained:
    """What a job came to."""

    uri: str  #: of the bundle
    manifest: ModelManifest
    evaluation: dict[str, Any]
    champion: bool  #: whether it became the champion, being the first


@dataclass(frozen=True)
class _Learned:
    """``(N, 1280)`` float32 features and ``(N,)`` classes of the images that could be decoded."""

    features: Features
    classes: Classes

    def __add__(self, other: "_Learned") -> "_Learned":
        return _Learned(np.concatenate([self.features, other.features]), np.concatenate([self.classes, other.classes]))


@dataclass(frozen=True)
class _Fit:
    """What the validation images, which the first fit did not see, were good for."""

    temperature: float
    threshold: float
    validation: dict[str, Any]


def train(config: TrainConfig, reporter: Reporter) -> Trained:
    """Runs a whole job. Raises UserError for what a person can mend."""
    return _Job(config, reporter).run()


class _Job:
    """One run of the recipe: ``run`` reads from top to bottom, a call a phase."""

    def __init__(self, config: TrainConfig, reporter: Reporter) -> None:
        self._started = time.monotonic()
        self._created_at = datetime.now(UTC)
        self._version = config.version or self._created_at.strftime("%Y%m%dT%H%M%SZ")
        self._config = config
        self._reporter = reporter
        self._reader = Reader(config.image_size)
        self._output = open_store(config.output)
        bundle.check_free(self._output, name=config.name, version=self._version)
        self._splits = dataset.find(config)
        keras.utils.set_random_seed(config.seed)

    def run(self) -> Trained:
        # The images: two classes; to train on, to validate with, to test on.
        self._announce()
        # The backbone: MobileNetV2, frozen. Its features of an image never change, so they are computed once.
        extractor, weights = self._load_backbone()
        learned, held_out = self._compute_features(extractor)
        # The head: one neuron, 1,281 numbers, all that learns. A first fit tells how it does on images it has not
        # seen; the second keeps nothing back.
        head, fit = self._train_head(learned, held_out)
        # The export: both formats, from one model.
        model = network.join(extractor, head)
        keras_file, litert_file = self._export(model)
        # The evaluation: of the exported graph, by the worker's own scorer. The report is about what is served.
        rows, truth, parity = self._score_test_images(Scorer(litert_file), model, fit.threshold)
        scores = np.array([row.score for row in rows])
        evaluation = metrics.evaluate(truth, scores, threshold=fit.threshold) | {
            "threshold_rule": self._config.threshold,
            "temperature": fit.temperature,
            "validation": metrics.headline(fit.validation),
            "images": self._counts(learned, held_out, truth),
            "weights": weights,
            "parity_max_difference": parity,
            "hardware": f"{platform.machine()}, {available_cores()} cores",
            "seconds": round(time.monotonic() - self._started, 1),
        }
        # The report: the same figures for people, with pictures and what the model sees in them.
        answers = Answers([row.source_ref for row in rows], truth, scores, fit.threshold)
        report_file = self._report(model, evaluation, answers, learned, held_out).encode()
        # The bundle: model.json last, with the digest of every other file.
        files = {
            "model.keras": keras_file,
            MODEL_FILE: litert_file,
            "evaluation.json": json.dumps(evaluation, indent=2).encode(),
            "test_predictions.csv": predictions.to_csv(rows),
            "quarantine.csv": dataset.quarantine_csv(self._reader.quarantined),
            "report.html": report_file,
        }
        return self._write(files, evaluation, fit.threshold)

    def _announce(self) -> None:
        splits = self._splits
        self._reporter.say(
            f"  class 0 {splits.labels[0]}, class 1 {splits.labels[1]}: {len(splits.train):,} images to train on, "
            f"{len(splits.validation):,} to validate, {len(splits.test):,} to test"
        )

    def _load_backbone(self) -> tuple[keras.Model, str]:
        with self._reporter.step("Loading the backbone"):
            frozen, weights = backbone.load(self._config.weights, image_size=self._config.image_size)
        self._reporter.say(f"  {weights}")
        return network.build_extractor(frozen, image_size=self._config.image_size), weights

    def _compute_features(self, extractor: keras.Model) -> tuple[_Learned, _Learned]:
        total = len(self._splits.train) + len(self._splits.validation)
        with self._reporter.step("Reading images, computing features", total=total) as advance:
            return (
                self._features(extractor, self._splits.train, advance),
                self._features(extractor, self._splits.validation, advance),
            )

    def _features(self, extractor: keras.Model, images: list[LabelledImage], advance: Advance) -> _Learned:
        features, classes = [], []
        for chunk in self._reader.chunks(images, advance):
            features.append(network.extract(extractor, chunk.pixels))
            classes += [image.label for image in chunk.images]
        _check_two_classes(classes, images)
        return _Learned(np.concatenate(features), np.array(classes))

    def _train_head(self, learned: _Learned, held_out: _Learned) -> tuple[keras.Model, _Fit]:
        """The head, and what a trial of it on the held-out images gave: these choose temperature and threshold."""
        with self._reporter.step("Training the head"):
            trial = network.fit_head(learned.features, learned.classes, self._config)
            raw = trial.predict(held_out.features, verbose=0)[:, 0].astype(np.float64)
            temperature = calibration.fit_temperature(held_out.classes, raw)
            scores = calibration.at_temperature(raw, temperature)
            threshold = calibration.choose_threshold(self._config.threshold, held_out.classes, scores)
            fit = _Fit(temperature, threshold, metrics.evaluate(held_out.classes, scores, threshold=threshold))
            both = learned + held_out
            head = network.fit_head(both.features, both.classes, self._config)
            network.divide_logit(head, temperature)
            return head, fit

    def _export(self, model: keras.Model) -> tuple[bytes, bytes]:
        with self._reporter.step("Exporting to LiteRT"):
            return network.to_keras_bytes(model), network.to_litert_bytes(model)

    def _score_test_images(
        self, scorer: Scorer, model: keras.Model, threshold: float
    ) -> tuple[list[PredictionRow], Classes, float]:
        """Rows and classes of the test images, and the largest difference of a score to Keras's own."""
        scorer.check(image_size=self._config.image_size)
        rule = predictions.Rule(labels=self._splits.labels, threshold=threshold, model_version=self._version)
        images = self._splits.test
        rows: list[PredictionRow] = []
        truth: list[int] = []
        parity = 0.0
        with self._reporter.step("Evaluating on the test images", total=len(images)) as advance:
            for chunk in self._reader.chunks(images, advance):
                scores = scorer.score_all(chunk.pixels)
                parity = max(parity, _parity(model, chunk.pixels[::_PARITY_EVERY], scores[::_PARITY_EVERY]))
                start = len(rows)
                rows += [rule.scored(start + i, img.ref, float(scores[i])) for i, img in enumerate(chunk.images)]
                truth += [image.label for image in chunk.images]
        _check_two_classes(truth, images)
        return rows, np.array(truth), parity

    def _report(
        self, model: keras.Model, evaluation: dict[str, Any], answers: Answers, learned: _Learned, held_out: _Learned
    ) -> str:
        with self._reporter.step("Writing the report"):
            curve = learning_curve.measure(
                *(learned.features, learned.classes, held_out.features, held_out.classes),
                fit=learning_curve.exact_fit(self._config.l2),
                seed=self._config.seed,
            )
            choice = gallery.choose(answers)
            images = {image.ref: image for image in self._splits.test}
            chosen = [images[answers.refs[place]] for place in choice.mistakes + choice.uncertain]
            pixels = np.concatenate([chunk.pixels for chunk in self._reader.chunks(chosen, lambda _: None)])
            maps, _ = activation.contributions(model, pixels)
            facts = report.Facts(
                name=self._config.name,
                version=self._version,
                created_at=self._created_at,
                labels=self._splits.labels,
                evaluation=evaluation,
                truth=answers.truth,
                scores=answers.scores,
                gallery=gallery.hang(choice, answers, pixels, maps),
                curve=curve,
                quarantined=[(q.image.ref, q.reason.code.value, q.reason.message) for q in self._reader.quarantined],
                dataset_digest=self._reader.dataset_digest(),
                libraries=_libraries(),
                configuration=self._config.model_dump(mode="json"),
                command=self._config.command(),
            )
            return report.render(facts)

    def _counts(self, learned: _Learned, held_out: _Learned, truth: Classes) -> dict[str, int]:
        return {
            "train": len(learned.classes),
            "validation": len(held_out.classes),
            "test": len(truth),
            "quarantined": len(self._reader.quarantined),
        }

    def _write(self, files: dict[str, bytes], evaluation: dict[str, Any], threshold: float) -> Trained:
        manifest = ModelManifest(
            name=self._config.name,
            version=self._version,
            created_at=self._created_at,
            labels=self._splits.labels,
            image_size=self._config.image_size,
            decoder_fingerprint=fingerprint(),
            threshold=threshold,
            files=bundle.describe(files),
            training_config=self._config.model_dump(mode="json"),
            dataset_digest=self._reader.dataset_digest(),
            libraries=_libraries(),
            metrics=metrics.headline(evaluation),
        )
        with self._reporter.step("Writing the bundle"):
            prefix = bundle.write_bundle(self._output, files, manifest)
            champion = bundle.point_champion(self._output, manifest)
        return Trained(f"{self._config.output.rstrip('/')}/{prefix}", manifest, evaluation, champion)


def _libraries() -> dict[str, str]:
    return {name: metadata.version(name) for name in _LIBRARIES} | {"python": platform.python_version()}


def _parity(model: keras.Model, pixels: Pixels, scores: NDArray[np.float64]) -> float:
    """The largest difference between ``scores`` and those of ``model``. Raises UserError where it is no rounding."""
    difference = float(np.abs(model.predict(pixels, verbose=0)[:, 0] - scores).max())
    if not difference <= _PARITY:  # NaN, too
        raise UserError(f"The export is not faithful: model.tflite and model.keras differ by {difference} in a score.")
    return difference


def _check_two_classes(classes: list[int], images: list[LabelledImage]) -> None:
    if set(classes) != {0, 1}:
        raise UserError(
            f"Of {len(images)} images {len(classes)} can be read, and they are not of both classes: "
            "look for damaged files in one of the two folders."
        )


if __name__ == "__main__":
    from jobs.cli import main

    sys.exit(main(["train", "run", *sys.argv[1:]]))
