"""The two formats of a model."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.config import TrainConfig
from jobs.training import backbone, export, network
from jobs.training.neuron import Neuron
from worker.scoring.litert import Scorer

keras = pytest.importorskip("keras")


def _model() -> Any:
    """As a process makes it that has made no model before: Keras numbers the names it gives."""
    keras.utils.clear_session(free_memory=False)
    config = TrainConfig(data="x", output="y", image_size=32)
    frozen, _ = backbone.load("package", image_size=32)
    neuron = Neuron(np.random.default_rng(1).normal(0, 0.02, 1280), 0.1)
    return network.join(network.build_extractor(frozen, image_size=32), network.as_layer(neuron, config))


def test_one_model_has_one_model_keras_and_both_formats_say_the_same(tmp_path: Path) -> None:
    """No time and no address is in model.keras; Keras reads it, and scores as LiteRT does."""
    model = _model()
    file, litert = export.to_keras_bytes(model), export.to_litert_bytes(model)
    assert export.to_keras_bytes(_model()) == file
    with zipfile.ZipFile(io.BytesIO(file)) as whole:
        assert whole.testzip() is None
        assert json.loads(whole.read("metadata.json"))["date_saved"].startswith("1980")
    path = tmp_path / "model.keras"
    path.write_bytes(file)
    pictures = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    said = keras.models.load_model(path).predict(pictures, verbose=0)[:, 0]
    assert np.abs(said - Scorer(litert).score_all(pictures)).max() < 1e-5
