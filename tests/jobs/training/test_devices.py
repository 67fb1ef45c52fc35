"""The same model from any number of devices and from any backend."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jobs.decoding import sandbox
from jobs.metrics.scored_images import from_csv, scores
from tests.conftest import REPOSITORY, Trainer
from worker.scoring.models import open_files

#: Two logical CPUs in place of two GPUs: Keras treats them alike. It runs in its own process, since TensorFlow must be
#: configured before it is used.
TWO_DEVICES = """
import json, pathlib, sys
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from jobs.training import backbone, devices, fine_tuning, network
from jobs.config import TrainConfig
from jobs.training.features import FeatureSet
from jobs.training.interruption import Interruption
from jobs.data.dataset import LabelledImage
from jobs.training.neuron import Neuron
from jobs.data.cache import ArrayCache
from jobs.store import FolderStore

config = TrainConfig(data="x", output="y", image_size=32, fine_tune=8, fine_tune_epochs=1, batch_size=8,
                     fine_tune_rate=1e-4)
pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
images = [LabelledImage(pathlib.Path("x"), str(n), n % 2, str(n), "train") for n in range(20)]
found = []
for names in ([], [device.name for device in tf.config.list_logical_devices("CPU")]):
    with devices.distribute_over(names):
        frozen, _ = backbone.load("package", image_size=32)
        features = network.predict_in_batches(network.build_extractor(frozen, image_size=32))(pixels)
        cut = fine_tuning.find_cut(frozen, 8)
        below = network.predict_in_batches(network.build_lower(frozen, cut, image_size=32))(pixels)
        head = network.as_layer(Neuron(np.zeros(1280), 0.0), config)
        tuning = fine_tuning.FineTuning(frozen, head, cut, config)
        learned = FeatureSet(images, below[None])
        cache = ArrayCache(FolderStore(pathlib.Path(sys.argv[1])), f"on-{len(names)}")
        tuning.run(learned, learned, cache=cache, interruption=Interruption(), advance=lambda _: None)
    plain, _ = backbone.load("package", image_size=32)
    plain.set_weights(frozen.get_weights())
    found.append((features, tuning.upper.get_weights(), network.digest(plain)))
(one, tuned_one, _), (two, tuned_two, _) = found
print(json.dumps([float(abs(one - two).max()), max(float(abs(a - b).max()) for a, b in zip(tuned_one, tuned_two))]))
"""


@pytest.mark.slow
def test_two_devices_give_the_same_result_as_one(tmp_path: Path) -> None:
    """Features and fine-tuned weights agree to 1e-4, with MirroredStrategy of tf.distribute over both devices."""
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES, str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    features, weights = json.loads(done.stdout.splitlines()[-1])
    assert features < 1e-4
    assert weights < 1e-4


def _train(trainer: Trainer, data: Path, output: Path, *options: str) -> Path:
    given = ("train", "run", f"--data={data}", f"--output={output}", f"--cache={output / 'cache'}")
    run = trainer.run(*given, "--image-size=32", "--version=v1", *options)
    assert run.returncode == 0, run.stderr
    return output / "model/v1"


@pytest.mark.slow
def test_a_model_trained_in_16_bits_is_exported_in_32(trainer: Trainer, few_digits: Path, tmp_path: Path) -> None:
    """Its scores are within 0.05 of those trained in 32 bits. Fine-tuning runs with a scaled loss."""
    given = ("--fine-tune=8", "--fine-tune-epochs=1")
    half = _train(trainer, few_digits, tmp_path / "16", "--precision=mixed_float16", *given)
    full = _train(trainer, few_digits, tmp_path / "32", *given)
    one, other = (from_csv((bundle / "test_predictions.csv").read_bytes()) for bundle in (half, full))
    assert np.abs(scores(one) - scores(other)).max() < 0.05
    config = half.joinpath("model.keras").read_bytes()
    assert b"mixed_float16" not in config


@pytest.mark.slow
@pytest.mark.parametrize("other", ["jax", "torch"])
def test_other_backends_train_the_same_head(trainer: Trainer, digit_images: Path, tmp_path: Path, other: str) -> None:
    """With ``KERAS_BACKEND=jax`` or torch, the weights agree with TensorFlow's to 1e-3, and the bundle opens."""
    if importlib.util.find_spec(other) is None:
        pytest.skip(f"{other} is not installed: uv pip install {other}")
    options = ["--image-size=96", "--version=v1", f"--data={digit_images}"]
    bundles = []
    for backend in ("tensorflow", other):
        output = tmp_path / backend
        done = subprocess.run(
            [sys.executable, "-m", "jobs.container", *options, f"--output={output}", f"--cache={output / 'cache'}"],
            env=os.environ | {"KERAS_BACKEND": backend},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        bundles.append(output / "model/v1")
    heads = [_head(bundle) for bundle in bundles]
    assert np.abs(heads[0] - heads[1]).max() < 1e-3
    opened = open_files(str(bundles[1]), lambda name, _: (bundles[1] / name).read_bytes(), sandbox=sandbox())
    assert opened.manifest.version == "v1"


def _head(bundle: Path) -> np.ndarray:
    import keras  # noqa: PLC0415 - takes seconds, which other tests need not wait for

    layer = keras.models.load_model(bundle / "model.keras").get_layer("probability")
    return np.concatenate([weights.ravel() for weights in layer.get_weights()])


@pytest.mark.slow
def test_every_odd_file_is_tested_trained_on_or_quarantined(
    trainer: Trainer, few_digits: Path, shared: Path, tmp_path: Path
) -> None:
    """Among the images are 28 test files of image libraries. They do not stop the job, and not one is lost."""
    data = tmp_path / "data"
    shutil.copytree(few_digits, data)
    odd = sorted((shared / "data/odd_images").iterdir())
    for number, path in enumerate(odd):
        shutil.copy(path, data / ("eight", "three")[number % 2] / path.name)
    bundle = _train(trainer, data, tmp_path / "out", "--max-quarantined=0.5")
    evaluation = json.loads((bundle / "evaluation.json").read_bytes())
    tested = {row.source_ref for row in from_csv((bundle / "test_predictions.csv").read_bytes())}
    left_out = {line.split(",")[0] for line in (bundle / "quarantine.csv").read_text().splitlines()[1:]}
    assert not tested & left_out
    images = evaluation["images"]
    assert (images["test"], images["quarantined"]) == (len(tested), len(left_out))
    assert images["train"] + images["validation"] + len(tested) + len(left_out) == 80 + len(odd)
    names = {name.rpartition("/")[2] for name in left_out}
    assert {"MADE_html_error_page.jpg", "broken.png", "decompression_bomb.gif", "truncated_jpeg.jpg"} <= names
