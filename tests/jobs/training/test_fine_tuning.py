"""Fine-tuning: only the intended weights change, and an interruption changes nothing."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.config import TrainConfig
from jobs.data.cache import ArrayCache
from jobs.data.dataset import LabelledImage
from jobs.store import FolderStore
from jobs.training import backbone, network
from jobs.training.features import Extractor, FeatureSet
from jobs.training.fine_tuning import FineTuning, FineTuningResult, find_cut
from jobs.training.interruption import EXIT_STATUS, Interruption
from jobs.training.neuron import Neuron

keras = pytest.importorskip("keras")

SIZE = 32
#: The neuron before fine-tuning.
HEAD = Neuron(np.random.default_rng(1).normal(0, 0.02, 1280), 0.0)

Weights = dict[str, list[NDArray[Any]]]


def _config(**options: object) -> TrainConfig:
    given = {"fine_tune": 8, "fine_tune_epochs": 2, "fine_tune_rate": 1e-4, "batch_size": 8} | options
    return TrainConfig.model_validate({"data": "x", "output": "y", "image_size": SIZE} | given)


@pytest.fixture(scope="module")
def base_model() -> Any:
    return backbone.load("package", image_size=SIZE)[0]


@pytest.fixture(scope="module")
def imagenet(base_model: Any) -> list[NDArray[Any]]:
    """The weights that the backbone begins with."""
    return list(base_model.get_weights())


@pytest.fixture
def frozen(base_model: Any, imagenet: list[NDArray[Any]]) -> Any:
    """The backbone with ImageNet's weights, whatever an earlier test did to it."""
    base_model.set_weights(imagenet)
    base_model.trainable = False
    return base_model


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    """Twenty images. Those of class 1 are brighter."""
    dark = np.random.default_rng(0).integers(0, 200, (20, SIZE, SIZE, 3))
    return (dark + 30 * (np.arange(20) % 2)[:, None, None, None]).astype(np.uint8)


@pytest.fixture(scope="module")
def activations(base_model: Any, imagenet: object, pixels: NDArray[np.uint8]) -> FeatureSet:
    """Of the twenty images and a second variant, at the cut. Training never changes them."""
    lower = network.build_lower(base_model, find_cut(base_model, _config().fine_tune), image_size=SIZE)
    images = [LabelledImage(Path("x"), str(number), number % 2, split="train") for number in range(len(pixels))]
    values = np.asarray(lower(pixels))
    return FeatureSet(images, np.stack([values, values[:, :, ::-1]]))


def _tuning(base_model: Any, config: TrainConfig) -> FineTuning:
    return FineTuning(base_model, network.as_layer(HEAD, config), find_cut(base_model, config.fine_tune), config)


def _run(
    tuning: FineTuning, activations: FeatureSet, cache: ArrayCache, interruption: Interruption | None = None
) -> FineTuningResult:
    return tuning.run(
        activations, activations, cache=cache, interruption=interruption or Interruption(), advance=lambda _: None
    )


@dataclass(frozen=True)
class Undisturbed:
    """A run without interruption, and the way back to its start, as another process would begin there."""

    tuning: FineTuning
    start: list[NDArray[Any]]
    base_before: Weights
    base_after: Weights
    result: FineTuningResult
    weights: list[NDArray[Any]]
    neuron: Neuron

    def rewind(self) -> FineTuning:
        """Sets every weight and the state of the optimizer to their first values."""
        for variable, value in zip(_variables(self.tuning), self.start, strict=True):
            variable.assign(value)
        return self.tuning


def _variables(tuning: FineTuning) -> list[Any]:
    return [*tuning.upper.weights, *tuning.upper.optimizer.variables]


def _weights(model: Any) -> Weights:
    return {layer.name: layer.get_weights() for layer in model.layers}


def _changed(before: Weights, after: Weights) -> set[str]:
    return {name for name, found in before.items() if not all(map(np.array_equal, found, after[name]))}


@pytest.fixture(scope="module")
def undisturbed(
    base_model: Any,
    imagenet: list[NDArray[Any]],
    activations: FeatureSet,
    tmp_path_factory: pytest.TempPathFactory,
) -> Undisturbed:
    """Shared by the tests below, since Keras takes seconds to trace a step of training."""
    base_model.set_weights(imagenet)
    before = _weights(base_model)
    tuning = _tuning(base_model, _config())
    start = [keras.ops.convert_to_numpy(variable).copy() for variable in _variables(tuning)]
    result = _run(tuning, activations, ArrayCache(FolderStore(tmp_path_factory.mktemp("undisturbed")), "s"))
    weights, neuron = tuning.upper.get_weights(), tuning.neuron()
    return Undisturbed(tuning, start, before, _weights(base_model), result, weights, neuron)


def test_only_the_top_layers_change(undisturbed: Undisturbed) -> None:
    """Neither the statistics, gamma and beta of BatchNormalization do, nor any layer below the cut."""
    assert undisturbed.result.kept
    changed = _changed(undisturbed.base_before, undisturbed.base_after)
    assert changed == {"block_16_depthwise", "block_16_project", "Conv_1"}
    assert undisturbed.result.layers == 5  # two of them have no weights
    assert not np.array_equal(undisturbed.neuron.weights, HEAD.weights)


@pytest.mark.parametrize("steps", [4, *(pytest.param(steps, marks=pytest.mark.slow) for steps in (1, 3))])
def test_a_run_interrupted_within_an_epoch_resumes_as_if_nothing_had_happened(
    undisturbed: Undisturbed, activations: FeatureSet, tmp_path: Path, steps: int
) -> None:
    """By a real SIGTERM after that many batches, of which an epoch has three. The end is equal bit for bit."""
    tuning, taken = undisturbed.rewind(), []
    train_on_batch = tuning.upper.train_on_batch

    def interrupted(*batch: Any) -> Any:
        taken.append(1)
        if len(taken) == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_on_batch(*batch)

    tuning.upper.train_on_batch = interrupted
    interruption = Interruption()
    cache = ArrayCache(FolderStore(tmp_path), "s")
    try:
        with interruption.listening(), pytest.raises(SystemExit) as leaving:
            _run(tuning, activations, cache, interruption)
    finally:
        tuning.upper.train_on_batch = train_on_batch
    assert leaving.value.code == EXIT_STATUS
    assert len(taken) == steps

    assert _run(undisturbed.rewind(), activations, cache) == undisturbed.result
    assert all(map(np.array_equal, tuning.upper.get_weights(), undisturbed.weights))


def test_fine_tuning_that_does_not_help_is_undone(frozen: Any, activations: FeatureSet, tmp_path: Path) -> None:
    """With a learning rate of 0.5 it stops early, and every weight is as before."""
    before = _weights(frozen)
    tuning = _tuning(frozen, _config(fine_tune_rate=0.5, fine_tune_epochs=10))
    shuffled = np.random.default_rng(2).permutation(activations.variants, axis=1)
    result = tuning.run(
        activations,
        FeatureSet(activations.images, shuffled),
        cache=ArrayCache(FolderStore(tmp_path), "s"),
        interruption=Interruption(),
        advance=lambda _: None,
    )
    assert not result.kept
    assert result.epochs < 10
    assert _changed(before, _weights(frozen)) == set()


@pytest.mark.parametrize(
    "layers", [14, *(pytest.param(layers, marks=pytest.mark.slow) for layers in (1, 2, 7, 8, 9, 20, 27, 30, 54, 100))]
)
def test_every_path_to_the_top_passes_through_the_cut(frozen: Any, pixels: NDArray[np.uint8], layers: int) -> None:
    """The part above the cut, given the activations there, computes what the complete network computes."""
    cut = find_cut(frozen, layers)
    head = network.as_layer(HEAD, _config())
    complete = network.join(network.build_extractor(frozen, image_size=SIZE), head)
    lower = network.build_lower(frozen, cut, image_size=SIZE)
    upper = network.build_upper(frozen, cut, head)
    assert np.abs(np.asarray(upper(lower(pixels[:4]))) - np.asarray(complete(pixels[:4]))).max() < 1e-5
    names = [layer.name for layer in frozen.layers]
    assert len(names) - 1 - names.index(cut) >= layers


def test_the_key_of_activations_depends_on_the_cut(frozen: Any) -> None:
    """A layer and its ReLU have the same weights below them. Size, precision and weights count too."""

    def key(cut: str, size: int = SIZE, precision: str = "float32") -> str:
        model = network.build_lower(frozen, cut, image_size=SIZE)
        return Extractor.of(model, image_size=size, precision=precision, on_gpu=True).key  # where both use Keras

    keys = [key("block_16_expand_BN"), key("block_16_expand_relu"), key("block_16_expand_BN", size=64)]
    keys.append(key("block_16_expand_BN", precision="mixed_float16"))
    frozen.set_weights([weight * 2 for weight in frozen.get_weights()])
    keys.append(key("block_16_expand_BN"))
    assert len(set(keys)) == 5
    assert keys[-1] == key("block_16_expand_BN")


def test_the_key_of_features_depends_on_the_decoder(frozen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another decoder gives other pixels, and so other features."""
    model = network.build_extractor(frozen, image_size=SIZE)
    before = Extractor.of(model, image_size=SIZE, precision="float32", on_gpu=False).key
    monkeypatch.setattr("jobs.training.features.fingerprint", lambda: "f" * 64)
    assert Extractor.of(model, image_size=SIZE, precision="float32", on_gpu=False).key != before


@pytest.mark.parametrize(("trainable", "changes"), [(True, True), (False, False)], ids=["trainable", "frozen"])
def test_keras_overrules_training_false_while_it_trains(*, trainable: bool, changes: bool) -> None:
    """Why fine-tuning sets ``trainable = False``: the ``training=False`` with which a model was built does not keep
    train_on_batch() and fit() from changing the statistics of BatchNormalization. If this fails, Keras has fixed it.
    """
    inputs = keras.Input((4,))
    normal = keras.layers.BatchNormalization()
    normal.trainable = trainable
    model = keras.Model(inputs, keras.layers.Dense(1)(normal(inputs, training=False)))
    model.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse")
    mean = normal.get_weights()[2]
    model.train_on_batch(np.full((8, 4), 5.0), np.zeros((8, 1)))
    assert np.array_equal(normal.get_weights()[2], mean) != changes
    again = normal.get_weights()[2]
    model.fit(np.full((8, 4), 9.0), np.zeros((8, 1)), verbose=0)
    assert np.array_equal(normal.get_weights()[2], again) != changes
