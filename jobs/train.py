"""The recipe: pictures of two classes to a model bundle.

    twofold train run --data pets/ --output models/

It is the seed's: split 80/20 with seed 123, MobileNetV2 without its top, frozen, global average pooling, one sigmoid
neuron and binary cross-entropy. Because the backbone is frozen, an image's features never change: they are computed
once, and the head is fitted to those, to the minimum that the seed's Adam descends towards (``jobs.training.neuron``).

Whatever takes time is kept when it is done (``jobs.training.checkpoint``). A job that was ended, by a signal or by a
machine that went away, goes on from there when the same command is typed again, and comes to the same model.
"""

import json
from dataclasses import dataclass, replace
from typing import Any, Final

import keras

from jobs.config import TrainConfig
from jobs.data.dataset import Dataset, Quarantined, check_share, quarantine_csv
from jobs.data.loader import Reader
from jobs.metrics import classification, scored_images
from jobs.models import bundle
from jobs.progress import Reporter
from jobs.report import from_training
from jobs.store import open_store
from jobs.training import backbone, devices, evaluation, export, fine_tuning, network
from jobs.training.checkpoint import Checkpoint, libraries
from jobs.training.features import Extractor, Learned
from jobs.training.fine_tuning import FineTuning, Outcome
from jobs.training.head import Decision, Head
from jobs.training.interruption import Interruption
from worker.contract import ModelManifest
from worker.predictions import Rule
from worker.scoring.decoder import fingerprint
from worker.scoring.litert import Scorer
from worker.scoring.models import MANIFEST_FILE, MODEL_FILE

#: Test images that are scored by both formats.
_PARITY_IMAGES: Final = 32


@dataclass(frozen=True)
class TrainedBundle:
    """What a job came to."""

    uri: str  #: of the bundle
    manifest: ModelManifest
    evaluation: dict[str, Any]
    champion: bool  #: whether it became the champion, being the first


def train(config: TrainConfig, dataset: Dataset, reporter: Reporter, interruption: Interruption) -> TrainedBundle:
    """Runs a whole job, or what an earlier run of it left to do. Raises UserError for what a person can mend."""
    return _Job(config, dataset, reporter, interruption).run()


class _Job:
    """One run of the recipe: ``_make_files`` reads from top to bottom, a call a phase."""

    def __init__(self, config: TrainConfig, dataset: Dataset, reporter: Reporter, interruption: Interruption) -> None:
        self._config = config
        self._dataset = dataset
        self._reporter = reporter
        self._interruption = interruption
        self._reader = Reader(config.image_size)
        self._output = open_store(config.output)
        self._checkpoint = Checkpoint.open(config, dataset)

    def run(self) -> TrainedBundle:
        """What an earlier run had all but written needs no more than to be written."""
        files = self._checkpoint.files()
        if files is None:
            bundle.check_free(self._output, name=self._config.name, version=self._checkpoint.version)
            files = self._make_files()
            self._checkpoint.keep_files(files)
        with self._reporter.step("Writing the bundle"):
            manifest = ModelManifest.model_validate_json(files[MANIFEST_FILE])
            prefix = bundle.write_bundle(self._output, files, manifest)
            champion = bundle.point_champion(self._output, manifest)
        self._checkpoint.clear()
        told = json.loads(files["evaluation.json"])
        return TrainedBundle(f"{self._config.output.rstrip('/')}/{prefix}", manifest, told, champion)

    def _make_files(self) -> dict[str, bytes]:
        # The images: two classes; to train on, to validate with, to test on.
        self._announce()
        with devices.on_all(devices.gpus()):
            # The backbone: MobileNetV2, frozen. Its features of an image never change, so they are computed once.
            frozen, weights = self._load_backbone()
            extractor = network.build_extractor(frozen, image_size=self._config.image_size)
            learned = self._learn(extractor, what="Reading images, computing features")
            # The head: one neuron, 1,281 numbers, all that learns.
            head, tuned = self._train_head(learned), None
            # Fine-tuning, where it is asked for: the top of the backbone learns too, and keeps that if it helps.
            if self._config.fine_tune:
                head, tuned = self._fine_tune(frozen, head)
        # The export: both formats, from one model.
        model = self._finish(frozen, head)
        with self._reporter.step("Exporting"):
            keras_file, litert_file = export.to_keras_bytes(model), export.to_litert_bytes(model)
        # The evaluation: of the exported graph, by the worker's own scorer. The report is about what is served.
        seen_through = network.see_through(model)
        test, parity = self._test(Scorer(litert_file), seen_through, head.decision)
        told = evaluation.tell(test, head.decision, self._config, self._dataset, self._left_out()) | {
            "images": {split: len(learned.of(split).images) for split in ("train", "validation")}
            | {"test": len(test.images), "quarantined": len(self._left_out())},
            "fine_tuning": tuned and tuned.as_json(),
            "weights": weights,
            "parity_max_difference": parity,
            "hardware": devices.describe(),
            "resumed": self._checkpoint.resumed,
        }
        with self._reporter.step("Drawing the report"):
            shown = from_training.hang_gallery(seen_through, test, head.decision.threshold, self._reader)
            curve = from_training.measure_curve(learned, self._config)
        told["seconds"] = {title: round(seconds, 2) for title, seconds in self._reporter.seconds.items()}
        # The bundle: model.json last, with the digest of every other file. The evaluation, which has a digest,
        # repeats what model.json says, which has none.
        manifest = self._describe(head.decision.threshold, classification.headline(told))
        told["model"] = manifest.model_dump(mode="json", exclude={"files"})
        left_out = self._left_out()
        files = {
            "model.keras": keras_file,
            MODEL_FILE: litert_file,
            "evaluation.json": json.dumps(told, indent=2).encode(),
            "report.html": from_training.page(
                manifest, told, test, self._config, shown=shown, curve=curve, left_out=left_out
            ),
            scored_images.FILE: scored_images.to_csv(test.rows),
            "quarantine.csv": quarantine_csv(self._dataset.labels, left_out),
        }
        manifest = manifest.model_copy(update={"files": bundle.describe(files)})
        return files | {MANIFEST_FILE: manifest.model_dump_json(indent=2).encode()}

    def _announce(self) -> None:
        found = self._dataset
        self._reporter.say(
            f"  class 0 {found.labels[0]}, class 1 {found.labels[1]}: {len(found.train):,} images to train on, "
            f"{len(found.validation):,} to validate, {len(found.test):,} to test"
        )
        if self._checkpoint.resumed:
            self._reporter.say(f"  going on with version {self._checkpoint.version}, which was begun earlier")

    def _load_backbone(self) -> tuple[keras.Model, str]:
        with self._reporter.step("Loading the backbone"), network.precision(devices.precision(self._config)):
            frozen, weights = backbone.load(self._config.weights, image_size=self._config.image_size)
        self._reporter.say(f"  {weights}")
        return frozen, weights

    def _learn(self, model: keras.Model, *, what: str) -> Learned:
        """What ``model`` makes of every view of the training and validation images."""
        images = [*self._dataset.train, *self._dataset.validation]
        extractor = Extractor.of(
            model,
            image_size=self._config.image_size,
            precision=devices.precision(self._config),
            on_gpu=bool(devices.gpus()),
        )
        title = what + f" of {self._config.augment} views" * (self._config.augment > 1)
        with self._reporter.step(title, total=len(images) * self._config.augment) as advance:
            learned = extractor.learn(
                images, self._reader, views=self._config.augment, shelf=self._checkpoint.features, advance=advance
            )
        for split in ("train", "validation"):
            evaluation.check_two_classes(learned.of(split).images, images)
        check_share(self._dataset, self._left_out(), self._config.max_quarantined)
        return learned

    def _train_head(self, learned: Learned) -> Head:
        with self._reporter.step("Training the head"):
            return Head.fit(learned, self._config)

    def _fine_tune(self, frozen: keras.Model, head: Head) -> tuple[Head, Outcome]:
        """The head with the layers below it tuned, if that did better on the validation split; else as it was."""
        cut = fine_tuning.find_cut(frozen, self._config.fine_tune)
        lower = network.build_lower(frozen, cut, image_size=self._config.image_size)
        activations = self._learn(lower, what="Computing activations")
        tuning = FineTuning(frozen, network.as_layer(head.trial, self._config), cut, self._config)
        title = f"Fine-tuning the {tuning.layers} layers above {cut}"
        with self._reporter.step(title, total=self._config.fine_tune_epochs) as advance:
            held = activations.of("validation")
            outcome = tuning.run(
                activations.of("train"),
                held,
                shelf=self._checkpoint.job,
                interruption=self._interruption,
                advance=advance,
            )
        self._reporter.say(f"  {outcome}")
        if not outcome.kept:
            return head, outcome
        decision = Decision.of(held.classes, tuning.scores(held), self._config)
        return replace(head, final=tuning.neuron(), decision=decision), outcome

    def _finish(self, trained: keras.Model, head: Head) -> keras.Model:
        """The whole model, in 32-bit floats and on one device whatever it was trained in and on, with the temperature
        in its weights.
        """
        plain = trained
        if devices.precision(self._config) != "float32" or devices.gpus():
            plain, _ = backbone.load(self._config.weights, image_size=self._config.image_size)
            plain.set_weights(trained.get_weights())
        layer = network.as_layer(head.final.cooled(head.decision.temperature), self._config)
        return network.join(network.build_extractor(plain, image_size=self._config.image_size), layer)

    def _test(self, scorer: Scorer, seen_through: keras.Model, decision: Decision) -> tuple[evaluation.Tested, float]:
        rule = Rule(labels=self._dataset.labels, threshold=decision.threshold, model_version=self._checkpoint.version)
        images = self._dataset.test
        with self._reporter.step("Evaluating on the test images", total=len(images)) as advance:
            shelf = self._checkpoint.job.at(f"scores-{network.digest(seen_through)[:16]}")
            test = evaluation.score(scorer, self._dataset, self._reader, rule=rule, shelf=shelf, advance=advance)
            check_share(self._dataset, self._left_out(), self._config.max_quarantined)
            every = max(1, len(test.images) // _PARITY_IMAGES)
            sample = self._reader.read(test.images[::every][:_PARITY_IMAGES])
            return test, evaluation.parity(seen_through, scorer, sample.pixels)

    def _left_out(self) -> list[Quarantined]:
        return self._dataset.quarantined + self._reader.quarantined

    def _describe(self, threshold: float, figures: dict[str, float]) -> ModelManifest:
        return ModelManifest(
            name=self._config.name,
            version=self._checkpoint.version,
            created_at=self._checkpoint.created_at,
            labels=self._dataset.labels,
            image_size=self._config.image_size,
            decoder_fingerprint=fingerprint(),
            threshold=threshold,
            files={},
            training_config=self._config.model_dump(mode="json"),
            dataset_digest=self._dataset.digest,
            libraries=libraries(),
            metrics=figures,
        )
