"""The export: both formats of one model."""

import io
import json
import os
import subprocess
import sys
import time
import zipfile
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from jobs.config import TrainConfig
from jobs.training import backbone, export, network
from jobs.training.neuron import Neuron
from jobs.user_error import UserError
from tests.conftest import REPOSITORY
from worker.scoring.litert import Scorer

keras = pytest.importorskip("keras")


#: A job whose model takes for ever to be read.
_JOB = """
import os
from jobs.training import export

class Model:
    def save(self, path):
        os.mkfifo(path)

export._by_tensorflow(Model())
"""


def test_the_converter_ends_with_the_job_that_started_it(tmp_path: Path) -> None:
    """Even if the job is killed: on SIGTERM it leaves at once, and would leave a process that computes for nobody."""
    with subprocess.Popen(
        [sys.executable, "-c", _JOB], cwd=REPOSITORY, env=os.environ | {"TMPDIR": str(tmp_path)}
    ) as job:
        while not (found := psutil.Process(job.pid).children()) or "jobs.training.export" not in found[0].cmdline():
            time.sleep(0.01)
        job.kill()
    (converter,) = found
    try:
        converter.wait(timeout=60)  # it reads a pipe into which no one writes, and would never end by itself
    finally:
        if converter.is_running():
            converter.kill()


def _model() -> Any:
    """Builds a model as the first one of a process, since Keras numbers the names that it gives."""
    keras.utils.clear_session(free_memory=False)
    config = TrainConfig(data="x", output="y", image_size=32)
    base_model, _ = backbone.load("package", image_size=32)
    neuron = Neuron(np.random.default_rng(1).normal(0, 0.02, 1280), 0.1)
    return network.join(network.build_extractor(base_model, image_size=32), network.as_layer(neuron, config))


def test_the_same_model_gives_the_same_bytes_and_both_formats_give_the_same_scores(tmp_path: Path) -> None:
    """No time and no address is in model.keras. Keras can load it, and scores as LiteRT does."""
    model = _model()
    file, litert = export.to_keras_bytes(model), export.to_litert_bytes(model)
    assert export.to_keras_bytes(_model()) == file
    with zipfile.ZipFile(io.BytesIO(file)) as members:
        assert members.testzip() is None
        assert json.loads(members.read("metadata.json"))["date_saved"].startswith("1980")
    path = tmp_path / "model.keras"
    path.write_bytes(file)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    by_keras = np.asarray(keras.models.load_model(path)(pixels))[:, 0]
    assert np.abs(by_keras - Scorer(litert).score_all(pixels, threads=2)).max() < 1e-5


def test_a_tensorflow_without_a_converter_is_named_with_the_one_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """``tf.lite`` is announced to leave TensorFlow: its converter is to live in a package of LiteRT's."""
    tensorflow = pytest.importorskip("tensorflow")
    monkeypatch.delattr(tensorflow, "lite")
    with pytest.raises(UserError, match=r"TensorFlow 2\.\d+\.\d+ has no converter .* pip install 'tensorflow<2\.22'"):
        export.to_litert_bytes(_model())


def test_the_newest_tensorflow_that_may_be_installed_has_a_converter() -> None:
    """Where this fails, the next one was let in, and may have none. See the test below for what may replace it."""
    tested = Version(version("tensorflow"))
    following = f"{tested.major}.{tested.minor + 1}.0"
    allowed = [one for one in map(Requirement, requires("twofold") or ()) if one.name == "tensorflow"]
    bounds = [one.specifier for one in allowed if one.specifier]
    assert bounds, allowed
    assert [str(bound) for bound in bounds if bound.contains(following)] == [], f"TensorFlow {following} was not tried"


#: Asks LiteRT's converter in every way. In a process of its own: it cannot be imported where TensorFlow is loaded.
_ASK = """
import ai_edge_litert.tflite.converter.converter_flags_pb2, ai_edge_litert.tflite.converter.model_flags_pb2
from ai_edge_litert._pywrap_litert_converter import ConversionConfig, Converter

def ask(function, *arguments):
    try:
        print("answer:", type(function(*arguments)).__name__)
    except Exception as refusal:
        print(str(refusal).partition(".")[0])

for kind in ConversionConfig.ModelType.__members__.values():
    config = ConversionConfig()
    config.original_model_type = kind
    converter = Converter(config)
    for body in (b"abc", bytearray(b"abc"), list(b"abc"), "abc"):
        ask(converter.add_signature, "serving_default", ["pixels"], ["score"], body)
    converter.add_signature("serving_default", ["pixels"], ["score"], [])
    ask(converter.convert)
"""


def test_the_converter_in_litert_s_own_package_converts_nothing_yet() -> None:
    """It has the classes of a converter. It takes no model, whatever the type of its bytes, and convert() is empty.

    The day this fails, try it in ``jobs/training/export.py``, with ``tf.lite`` as the fallback.
    """
    done = subprocess.run([sys.executable, "-c", _ASK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    refused = "add_signature(): incompatible function arguments"
    now = f"ai-edge-litert {version('ai-edge-litert')} answers: try its converter in place of tf.lite\n{done.stdout}"
    assert done.stdout.splitlines() == 3 * [*4 * [refused], "UNIMPLEMENTED: Not implemented yet"], now
