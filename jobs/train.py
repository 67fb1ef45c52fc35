"""The recipe: from images of two classes to a model bundle.

    twofold train run --data pets/ --output models/

This is transfer learning as in Keras's guide: MobileNetV2 without its top, frozen; global average pooling; one sigmoid
neuron, trained with binary cross-entropy. One thing is different. A frozen backbone gives the same features in every
epoch, so they are computed once, and the neuron is then fitted to them exactly (``jobs.training.neuron``).

``_Job.make_files`` is the recipe, one call per phase. Finished work is saved (``jobs.training.checkpoint``): after an
interruption, run the same command again. The job resumes, and ends with the same model.

https://keras.io/guides/transfer_learning/
"""

import json
from dataclasses import dataclass, replace
from typing import Any, Final

import keras

from jobs.config import TrainConfig
from jobs.data.dataset import Dataset, Quarantined, check_share, count_sources, quarantine_csv
from jobs.data.loader import ImageLoader
from jobs.metrics import classification, scored_images, unsure_rule
from jobs.metrics.learning_curve import Curve
from jobs.models import bundle
from jobs.progress import Reporter, hushed
from jobs.report import from_training, model_card
from jobs.report.gallery import Gallery
from jobs.store import open_store
from jobs.training import backbone, devices, evaluation, export, fine_tuning, network
from jobs.training.checkpoint import Checkpoint, libraries
from jobs.training.evaluation import ScoredTestSet
from jobs.training.features import Extractor, FeatureSet
from jobs.training.fine_tuning import FineTuning, FineTuningResult
from jobs.training.head import Decision, Head
from jobs.training.interruption import Interruption
from jobs.user_error import UserError
from jobs.wording import counted
from worker.contract import ModelManifest
from worker.predictions import Rule
from worker.scoring.decoder import fingerprint
from worker.scoring.litert import Scorer
from worker.scoring.models import MANIFEST_FILE, MODEL_FILE
from worker.scoring.probes import probes

#: Test images that are scored by both formats of the model, to compare them.
_PARITY_IMAGES: Final = 32


@dataclass(frozen=True)
class TrainedBundle:
    """The result of a training job."""

    uri: str
    manifest: ModelManifest
    evaluation: dict[str, Any]
    champion: bool  #: whether it became the champion, as the first version of its model does


def train(config: TrainConfig, dataset: Dataset, reporter: Reporter, interruption: Interruption) -> TrainedBundle:
    """Runs a training job, or the rest of an interrupted one. Raises UserError for what the user can fix."""
    return _Job(config, dataset, reporter, interruption).run()


class _Job:
    """One run of the recipe. The methods below ``make_files`` are its phases, in order."""

    def __init__(self, config: TrainConfig, dataset: Dataset, reporter: Reporter, interruption: Interruption) -> None:
        unsure_rule.check_labels(config.unsure, dataset.labels)
        self._config = config
        self._dataset = dataset
        self._reporter = reporter
        self._interruption = interruption
        self._loader = ImageLoader(config.image_size)
        self._output = open_store(config.output)
        self._checkpoint = Checkpoint.open(config, dataset)

    def run(self) -> TrainedBundle:
        """Makes the files of the bundle and writes them, or only writes them if an earlier run has made them."""
        files = self._checkpoint.files()
        if files is None:
            bundle.check_free(self._output, name=self._config.name, version=self._checkpoint.version)
            files = self.make_files()
            self._checkpoint.save_files(files)
        with self._reporter.step("Writing the bundle"):
            manifest = ModelManifest.model_validate_json(files[MANIFEST_FILE])
            prefix = bundle.write_bundle(self._output, files, manifest)
            champion = bundle.point_champion(self._output, manifest)
        self._checkpoint.clear()
        figures = json.loads(files["evaluation.json"])
        return TrainedBundle(f"{self._config.output.rstrip('/')}/{prefix}", manifest, figures, champion)

    def make_files(self) -> dict[str, bytes]:
        """Trains, exports and evaluates the model. Shapes are for N images of 160 by 160 pixels."""
        # The images: two classes, each split into train, validation and test. (N, 160, 160, 3) uint8 RGB
        self._show_images()
        with devices.distribute_over(devices.gpus()):
            # The backbone: MobileNetV2 with ImageNet's weights, without its top, frozen.
            # (N, 160, 160, 3) pixels, scaled to [-1, 1] -> (N, 5, 5, 1280) feature maps
            base_model, weights_source = self._load_backbone()
            # The features: global average pooling. Frozen layers give the same in every epoch, so this is done once.
            # (N, 5, 5, 1280) feature maps -> (N, 1280) features
            features = self._compute_features(base_model)
            # The head: one sigmoid neuron of 1,280 weights and a bias. These 1,281 numbers are all that is trained.
            # (N, 1280) features -> (N,) P(class 1)
            head = self._fit_head(features)
            # Fine-tuning, with --fine-tune: the top layers are trained too, and kept if the validation loss improves.
            head, tuning = self._fine_tune(base_model, head)
        # The model: backbone, pooling and head in one, with the scaling as its first layer.
        # (N, 160, 160, 3) uint8 RGB -> (N, 1) P(class 1)
        model = self._assemble(base_model, head)
        # The export: the same model in two formats, for Keras and for LiteRT, which the worker runs.
        keras_file, litert_file = self._export(model)
        # The evaluation: the exported model on the test images, scored by the worker's own code.
        model_with_maps = network.with_feature_maps(model)
        test, parity = self._score_test_images(model_with_maps, litert_file, head.decision)
        facts = {"fine_tuning": tuning and tuning.as_json(), "weights": weights_source, "parity_max_difference": parity}
        figures = self._evaluate(test, head.decision, features, facts)
        # The report: the figures, a gallery of mistakes that shows what the model looked at, and a learning curve.
        gallery, curve = self._illustrate(model_with_maps, test, head.decision, features)
        # The bundle: all of it as files. model.json comes last, with the digests of the others.
        models = {"model.keras": keras_file, MODEL_FILE: litert_file}
        return self._describe_bundle(models, figures, test, gallery, curve)

    def _show_images(self) -> None:
        found = self._dataset
        self._reporter.say(
            f"  class 0 {found.labels[0]}, class 1 {found.labels[1]}: "
            f"{counted(len(found.train), 'image')} to train on, "
            f"{len(found.validation):,} to validate, {len(found.test):,} to test"
        )
        if self._checkpoint.resumed:
            self._reporter.say(f"  resuming version {self._checkpoint.version}, which an earlier run began")

    def _load_backbone(self) -> tuple[keras.Model, str]:
        with self._reporter.step("Loading the backbone"), network.precision(devices.precision(self._config)):
            base_model, weights_source = backbone.load(self._config.weights, image_size=self._config.image_size)
        self._reporter.say(f"  {weights_source}")
        return base_model, weights_source

    def _compute_features(self, base_model: keras.Model) -> FeatureSet:
        extractor = network.build_extractor(base_model, image_size=self._config.image_size)
        return self._extract(extractor, title="Reading images, computing features")

    def _fit_head(self, features: FeatureSet) -> Head:
        with self._reporter.step("Training the head"):
            return Head.fit(features, self._config)

    def _fine_tune(self, base_model: keras.Model, head: Head) -> tuple[Head, FineTuningResult | None]:
        """Returns the fine-tuned head if it does better on the validation split, or else the head as it was."""
        if not self._config.fine_tune:
            return head, None
        cut = fine_tuning.find_cut(base_model, self._config.fine_tune)
        lower = network.build_lower(base_model, cut, image_size=self._config.image_size)
        activations = self._extract(lower, title="Computing activations")
        validation = activations.split("validation")
        tuning = FineTuning(base_model, network.as_layer(head.trial, self._config), cut, self._config)
        title = f"Fine-tuning the {counted(tuning.layers, 'layer')} above {cut}"
        with self._reporter.step(title, total=self._config.fine_tune_epochs) as advance:
            result = tuning.run(
                activations.split("train"),
                validation,
                cache=self._checkpoint.job,
                interruption=self._interruption,
                advance=advance,
            )
        self._reporter.say(f"  {result}")
        if not result.kept:
            return head, result
        decision = Decision.of(validation.classes, tuning.scores(validation), self._config)
        return replace(head, final=tuning.neuron(), decision=decision), result

    def _assemble(self, base_model: keras.Model, head: Head) -> keras.Model:
        """Joins backbone and head, with the temperature in the weights of the head.

        The result has 32-bit floats and is on one device, whatever precision and devices were used for training.
        """
        plain = base_model
        if devices.precision(self._config) != "float32" or devices.gpus():
            plain, _ = backbone.load(self._config.weights, image_size=self._config.image_size)
            plain.set_weights(base_model.get_weights())
        neuron = head.final.with_temperature(head.decision.temperature)
        extractor = network.build_extractor(plain, image_size=self._config.image_size)
        return network.join(extractor, network.as_layer(neuron, self._config))

    def _export(self, model: keras.Model) -> tuple[bytes, bytes]:
        with self._reporter.step("Exporting"), hushed():
            return export.to_keras_bytes(model), export.to_litert_bytes(model)

    def _score_test_images(
        self, model_with_maps: keras.Model, litert_file: bytes, decision: Decision
    ) -> tuple[ScoredTestSet, float]:
        """Returns the scored images, and the largest difference in a score between the two formats."""
        scorer, images = Scorer(litert_file), self._dataset.test
        with hushed():  # LiteRT prints a line when it is first used
            scorer.check(image_size=self._config.image_size)
        rule = Rule(
            labels=self._dataset.labels,
            threshold=decision.threshold,
            model_version=self._checkpoint.version,
            unsure=decision.unsure,
        )
        with self._reporter.step("Evaluating on the test images", total=len(images)) as advance:
            cache = self._checkpoint.job.at(f"scores-{network.digest(model_with_maps)[:16]}")
            test = evaluation.score(scorer, self._dataset, self._loader, rule=rule, cache=cache, advance=advance)
            check_share(self._dataset, self._quarantined(), self._config.max_quarantined)
            step = max(1, len(test.images) // _PARITY_IMAGES)
            sample = self._loader.load(test.images[::step][:_PARITY_IMAGES])
            return test, evaluation.measure_parity(model_with_maps, scorer, sample.pixels)

    def _evaluate(
        self, test: ScoredTestSet, decision: Decision, features: FeatureSet, facts: dict[str, Any]
    ) -> dict[str, Any]:
        quarantined = self._quarantined()
        counts = {split: len(features.split(split).images) for split in ("train", "validation")}
        sources = count_sources(self._dataset, [*features.images, *test.images])
        return {
            **evaluation.evaluate(test, decision, self._config, self._dataset, quarantined),
            "images": counts | {"test": len(test.images), "quarantined": len(quarantined)},
            **({"sources": sources} if sources else {}),
            **facts,
            "hardware": devices.describe(),
            "resumed": self._checkpoint.resumed,
        }

    def _illustrate(
        self, model_with_maps: keras.Model, test: ScoredTestSet, decision: Decision, features: FeatureSet
    ) -> tuple[Gallery, Curve | None]:
        with self._reporter.step("Drawing the report"):
            gallery = from_training.build_gallery(model_with_maps, test, decision.threshold, self._loader)
            return gallery, from_training.measure_curve(features, self._config)

    def _describe_bundle(
        self,
        models: dict[str, bytes],
        figures: dict[str, Any],
        test: ScoredTestSet,
        gallery: Gallery,
        curve: Curve | None,
    ) -> dict[str, bytes]:
        quarantined = self._quarantined()
        scorer = Scorer(models[MODEL_FILE])
        probe_scores = tuple(scorer.score(pixels) for pixels in probes(self._config.image_size))
        manifest = self._manifest(figures, probe_scores)
        # No digest covers model.json itself, so evaluation.json, which one covers, repeats its fields.
        repeated = manifest.model_dump(mode="json", exclude={"files"})
        seconds = {title: round(seconds, 2) for title, seconds in self._reporter.seconds.items()}
        figures = figures | {"seconds": seconds, "model": repeated}
        files = models | {
            "evaluation.json": json.dumps(figures, indent=2).encode(),
            "report.html": from_training.render_report(
                manifest, figures, test, self._config, gallery=gallery, curve=curve, left_out=quarantined
            ),
            "README.md": model_card.render(manifest, figures),
            scored_images.FILE: scored_images.to_csv(test.rows),
            "quarantine.csv": quarantine_csv(self._dataset.labels, quarantined),
        }
        manifest = manifest.model_copy(update={"files": bundle.describe(files)})
        return files | {MANIFEST_FILE: manifest.model_dump_json(indent=2).encode()}

    def _manifest(self, figures: dict[str, Any], probe_scores: tuple[float, ...]) -> ModelManifest:
        band = figures.get("unsure")
        return ModelManifest(
            name=self._config.name,
            version=self._checkpoint.version,
            created_at=self._checkpoint.created_at,
            labels=self._dataset.labels,
            image_size=self._config.image_size,
            decoder_fingerprint=fingerprint(),
            threshold=figures["threshold"],
            unsure=tuple(band["band"]) if band else None,
            files={},
            training_config=self._config.model_dump(mode="json"),
            dataset_digest=self._dataset.digest,
            libraries=libraries(),
            metrics=classification.headline(figures),
            probe_scores=probe_scores,
        )

    def _extract(self, model: keras.Model, *, title: str) -> FeatureSet:
        """Passes every variant of the training and validation images through ``model``."""
        images, variants = [*self._dataset.train, *self._dataset.validation], self._config.augment
        extractor = Extractor.of(
            model,
            image_size=self._config.image_size,
            precision=devices.precision(self._config),
            on_gpu=bool(devices.gpus()),
        )
        title += f" of {variants} variants" * (variants > 1)
        with self._reporter.step(title, total=len(images) * variants) as advance:
            features = extractor.extract(
                images, self._loader, variants=variants, cache=self._checkpoint.features, advance=advance
            )
        for split in ("train", "validation"):
            evaluation.check_two_classes(features.split(split).images, images)
        self._check_share()
        return features

    def _check_share(self) -> None:
        """Stops the job if too many files of a class are left out, with the count of all of its files.

        The test images are otherwise read at the end. Without them, the share that the message names would not do.
        """
        try:
            check_share(self._dataset, self._quarantined(), self._config.max_quarantined)
        except UserError:
            with self._reporter.step("Reading the test images, too", total=len(self._dataset.test)) as advance:
                self._loader.check(self._dataset.test, advance=advance)
            check_share(self._dataset, self._quarantined(), self._config.max_quarantined)
            raise

    def _quarantined(self) -> list[Quarantined]:
        """Returns the images left out so far, before decoding and by it."""
        return self._dataset.quarantined + self._loader.quarantined
