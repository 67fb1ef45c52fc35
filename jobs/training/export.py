"""A Keras model to files: ``model.keras``, and the same for LiteRT.

python -m jobs.training.export model.keras model.tflite        # for a model of another backend than TensorFlow
"""

import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any, Final

import keras

from jobs.user_error import UserError

#: The first moment that a zip file can tell.
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_IDENTITY: Final = "shared_object_id"


def to_keras_bytes(model: keras.Model) -> bytes:
    """``model.keras``. The same model gives the same bytes: Keras would tell the time, and addresses in memory."""
    with tempfile.TemporaryDirectory(prefix="twofold-") as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        timeless = io.BytesIO()
        with zipfile.ZipFile(path) as written, zipfile.ZipFile(timeless, "w", zipfile.ZIP_STORED) as file:
            for name in sorted(written.namelist()):
                body = written.read(name)
                if name == "metadata.json":
                    body = json.dumps(json.loads(body) | {"date_saved": "1980-01-01@00:00:00"}).encode()
                elif name == "config.json":
                    body = json.dumps(_renumber(json.loads(body), {})).encode()
                file.writestr(zipfile.ZipInfo(name, _EPOCH), body)
        return timeless.getvalue()


def _renumber(node: Any, numbers: dict[int, int]) -> Any:  # noqa: ANN401 - JSON
    """What Keras identifies by its address in memory, by the order of appearance instead."""
    if isinstance(node, list):
        return [_renumber(item, numbers) for item in node]
    if isinstance(node, dict):
        return {
            key: numbers.setdefault(value, len(numbers) + 1) if key == _IDENTITY else _renumber(value, numbers)
            for key, value in node.items()
        }
    return node


def to_litert_bytes(model: keras.Model) -> bytes:
    """``model.tflite``: ``(1, H, W, 3)`` uint8 RGB to ``(1, …)`` float32, in 32-bit floats."""
    if keras.backend.backend() != "tensorflow":
        return _by_tensorflow(model)
    import tensorflow as tf  # noqa: PLC0415 - only the export needs it

    # A module of its own: the converter turns into constants only the variables it finds in the object it is given,
    # and it finds none in a Keras 3 model; left as variables they stay empty, and every score is NaN.
    module = tf.Module()
    module.weights = [weight.value for weight in model.weights]
    signature = tf.TensorSpec((1, *model.input_shape[1:]), tf.uint8, name="pixels")
    module.call = tf.function(lambda pixels: model(pixels, training=False), input_signature=[signature])
    concrete = module.call.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)
    # The way round by a SavedModel comes to the same graph in four times the time.
    converter.experimental_lower_to_saved_model = False
    return bytes(converter.convert())


def _by_tensorflow(model: keras.Model) -> bytes:
    """The converter is TensorFlow's: a process of that backend reads the model and converts it."""
    with tempfile.TemporaryDirectory(prefix="twofold-") as folder:
        source, target = Path(folder) / "model.keras", Path(folder) / "model.tflite"
        model.save(source)
        done = subprocess.run(
            [sys.executable, "-m", "jobs.training.export", str(source), str(target)],
            env=os.environ | {"KERAS_BACKEND": "tensorflow"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise UserError(f"The export to LiteRT failed (is TensorFlow installed?):\n{done.stderr[-2000:]}")
        return target.read_bytes()


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(to_litert_bytes(keras.models.load_model(sys.argv[1])))
