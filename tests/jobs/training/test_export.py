"""The export: both formats of one model."""

import io
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest

from jobs.config import TrainConfig
from jobs.training import backbone, export, network
from jobs.training.neuron import Neuron
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
