"""Fine-tuning: what may change changes, what may not does not, and it goes on as if nothing had happened."""

import os
import signal
from collections.abc import Iterator
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
Weights = dict[str, list[NDArray[Any]]]


def _config(**options: object) -> TrainConfig:
    given = {"fine_tune": 8, "fine_tune_epochs": 2, "fine_tune_rate": 1e-4, "batch_size": 8} | options
    return TrainConfig.model_validate({"data": "x", "output": "y", "image_size": SIZE} | given)


@pytest.fixture(scope="module")
def plain() -> Any:
    return backbone.load("package", image_size=SIZE)[0]


@pytest.fixture
def frozen(plain: Any) -> Iterator[Any]:
    """The backbone, with ImageNet's weights at the start of each test."""
    before = plain.get_weights()
    yield plain
    plain.set_weights(before)
    plain.trainable = False


@pytest.fixture(scope="module")
def pictures() -> NDArray[np.uint8]:
    """Class 1 is brighter."""
    random = np.random.default_rng(0)
    dark = random.integers(0, 200, (20, SIZE, SIZE, 3))
    return (dark + 30 * (np.arange(20) % 2)[:, None, None, None]).astype(np.uint8)


def _learned(model: Any, pictures: NDArray[np.uint8]) -> FeatureSet:
    images = [LabelledImage(Path("x"), str(number), number % 2, split="train") for number in range(len(pictures))]
    values = network.predict_in_batches(model)(pictures)
    return FeatureSet(images, np.stack([values, values[:, :, ::-1]]))


def _tuning(frozen: Any, pictures: NDArray[np.uint8], config: TrainConfig) -> tuple[FineTuning, FeatureSet]:
    cut = find_cut(frozen, config.fine_tune)
    learned = _learned(network.build_lower(frozen, cut, image_size=SIZE), pictures)
    head = network.as_layer(Neuron(np.random.default_rng(1).normal(0, 0.02, 1280), 0.0), config)
    return FineTuning(frozen, head, cut, config), learned


def _run(
    tuning: FineTuning, learned: FeatureSet, cache: ArrayCache, interruption: Interruption | None = None
) -> FineTuningResult:
    return tuning.run(
        learned, learned, cache=cache, interruption=interruption or Interruption(), advance=lambda _: None
    )


def _weights(model: Any) -> Weights:
    return {layer.name: layer.get_weights() for layer in model.layers}


def _changed(before: Weights, after: Weights) -> set[str]:
    return {name for name, found in before.items() if not all(map(np.array_equal, found, after[name]))}


@pytest.mark.parametrize(
    "layers", [14, *(pytest.param(layers, marks=pytest.mark.slow) for layers in (1, 2, 7, 8, 9, 20, 27, 30, 54, 100))]
)
def test_all_that_is_above_the_cut_is_reached_through_it(frozen: Any, pictures: NDArray[np.uint8], layers: int) -> None:
    """What is above the cut, given the activations there, comes to what the whole network comes to."""
    cut = find_cut(frozen, layers)
    head = network.as_layer(Neuron(np.random.default_rng(1).normal(0, 0.02, 1280), 0.1), _config())
    whole = network.join(network.build_extractor(frozen, image_size=SIZE), head)
    lower = network.build_lower(frozen, cut, image_size=SIZE)
    upper = network.build_upper(frozen, cut, head)
    scores = upper.predict(lower.predict(pictures[:4], verbose=0), verbose=0)
    assert np.abs(scores - whole.predict(pictures[:4], verbose=0)).max() < 1e-5
    names = [layer.name for layer in frozen.layers]
    assert len(names) - 1 - names.index(cut) >= layers


def test_cuts_with_the_same_weights_below_have_features_of_their_own(frozen: Any) -> None:
    """A layer and its ReLU: same weights, other activations. Size, precision and weights count, too."""

    def key(cut: str, size: int = SIZE, precision: str = "float32") -> str:
        model = network.build_lower(frozen, cut, image_size=SIZE)
        return Extractor.of(model, image_size=size, precision=precision, on_gpu=True).key  # where both use Keras

    keys = [key("block_16_expand_BN"), key("block_16_expand_relu"), key("block_16_expand_BN", size=64)]
    keys.append(key("block_16_expand_BN", precision="mixed_float16"))
    frozen.set_weights([weight * 2 for weight in frozen.get_weights()])
    keys.append(key("block_16_expand_BN"))
    assert len(set(keys)) == 5
    assert keys[-1] == key("block_16_expand_BN")


def test_another_decoder_has_features_of_its_own(frozen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it makes of a picture would be other features."""
    model = network.build_extractor(frozen, image_size=SIZE)
    here = Extractor.of(model, image_size=SIZE, precision="float32", on_gpu=False).key
    monkeypatch.setattr("jobs.training.features.fingerprint", lambda: "f" * 64)
    assert Extractor.of(model, image_size=SIZE, precision="float32", on_gpu=False).key != here


def test_only_what_may_learn_changes(frozen: Any, pictures: NDArray[np.uint8], tmp_path: Path) -> None:
    """The top layers do; BatchNormalization, statistics, gamma and beta, does not, nor does anything below."""
    before = _weights(frozen)
    tuning, learned = _tuning(frozen, pictures, _config())
    assert _run(tuning, learned, ArrayCache(FolderStore(tmp_path), "s")).kept
    changed = _changed(before, _weights(frozen))
    assert changed == {"block_16_depthwise", "block_16_project", "Conv_1"}
    assert tuning.layers == 5  # two of them have no weights
    assert not np.array_equal(tuning.neuron().weights, np.random.default_rng(1).normal(0, 0.02, 1280))


def test_what_does_no_good_is_thrown_away(frozen: Any, pictures: NDArray[np.uint8], tmp_path: Path) -> None:
    """At a rate of a half, every weight is as it was in the end, and patience is over soon."""
    before = _weights(frozen)
    tuning, learned = _tuning(frozen, pictures, _config(fine_tune_rate=0.5, fine_tune_epochs=10))
    random = np.random.default_rng(2)
    held = FeatureSet([*learned.images], random.permutation(learned.variants, axis=1))
    outcome = tuning.run(
        learned, held, cache=ArrayCache(FolderStore(tmp_path), "s"), interruption=Interruption(), advance=lambda _: None
    )
    assert not outcome.kept
    assert outcome.epochs < 10
    assert _changed(before, _weights(frozen)) == set()


@pytest.mark.parametrize("steps", [4, *(pytest.param(steps, marks=pytest.mark.slow) for steps in (1, 3))])
def test_a_job_interrupted_in_the_middle_of_an_epoch_goes_on_as_if_it_had_not_been(
    frozen: Any, pictures: NDArray[np.uint8], tmp_path: Path, steps: int
) -> None:
    """By a real SIGTERM after so many batches, three of which are an epoch; equal bit for bit in the end."""
    imagenet = frozen.get_weights()
    tuning, learned = _tuning(frozen, pictures, _config())
    undisturbed = _run(tuning, learned, ArrayCache(FolderStore(tmp_path / "1"), "s"))
    expected = tuning.upper.get_weights()

    frozen.set_weights(imagenet)
    tuning, _ = _tuning(frozen, pictures, _config())
    learn, taken = tuning.upper.train_on_batch, []

    def learn_and_be_interrupted(*batch: Any) -> Any:
        taken.append(1)
        if len(taken) == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return learn(*batch)

    tuning.upper.train_on_batch = learn_and_be_interrupted
    interruption = Interruption()
    cache = ArrayCache(FolderStore(tmp_path / "2"), "s")
    with interruption.listening(), pytest.raises(SystemExit) as leaving:
        _run(tuning, learned, cache, interruption)
    assert leaving.value.code == EXIT_STATUS
    assert len(taken) == steps

    frozen.set_weights(imagenet)  # another process would begin there
    tuning, _ = _tuning(frozen, pictures, _config())
    assert _run(tuning, learned, cache) == undisturbed
    assert all(map(np.array_equal, tuning.upper.get_weights(), expected))


@pytest.mark.parametrize(("trainable", "moves"), [(True, True), (False, False)])
def test_keras_overrules_training_false_while_it_learns(*, trainable: bool, moves: bool) -> None:
    """Why BatchNormalization is kept by ``trainable = False``: ``training=False``, given when a model was built, does
    not keep train_on_batch() and fit() from changing its statistics. Should this fail, Keras has mended it.
    """
    pixels = keras.Input((4,))
    normal = keras.layers.BatchNormalization()
    normal.trainable = trainable
    model = keras.Model(pixels, keras.layers.Dense(1)(normal(pixels, training=False)))
    model.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse")
    mean = normal.get_weights()[2]
    model.train_on_batch(np.full((8, 4), 5.0), np.zeros((8, 1)))
    assert np.array_equal(normal.get_weights()[2], mean) != moves
    again = normal.get_weights()[2]
    model.fit(np.full((8, 4), 9.0), np.zeros((8, 1)), verbose=0)
    assert np.array_equal(normal.get_weights()[2], again) != moves
