"""Export of a Keras model to ``model.keras`` and, for LiteRT, ``model.tflite``.

python -m jobs.training.export model.keras model.tflite [PIPE]    # for a model of a backend other than TensorFlow

The process ends when the other end of ``PIPE``, a file descriptor, is closed: with the job that started it.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobs.user_error import UserError

if TYPE_CHECKING:  # takes seconds, in which a child process would not notice that its parent has ended
    import keras

#: The earliest time that a zip file can hold.
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_IDENTITY: Final = "shared_object_id"


def to_keras_bytes(model: "keras.Model") -> bytes:
    """Returns ``model.keras``. The same model gives the same bytes, without the date and the ids that Keras writes."""
    with tempfile.TemporaryDirectory(prefix="twofold-") as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        reproducible = io.BytesIO()
        with zipfile.ZipFile(path) as written, zipfile.ZipFile(reproducible, "w", zipfile.ZIP_STORED) as file:
            for name in sorted(written.namelist()):
                body = written.read(name)
                if name == "metadata.json":
                    body = json.dumps(json.loads(body) | {"date_saved": "1980-01-01@00:00:00"}).encode()
                elif name == "config.json":
                    body = json.dumps(_renumber(json.loads(body), {})).encode()
                file.writestr(zipfile.ZipInfo(name, _EPOCH), body)
        return reproducible.getvalue()


def _renumber(node: Any, numbers: dict[int, int]) -> Any:  # noqa: ANN401 - JSON
    """Numbers shared objects by their order of appearance. Keras numbers them by their address in memory."""
    if isinstance(node, list):
        return [_renumber(item, numbers) for item in node]
    if isinstance(node, dict):
        return {
            key: numbers.setdefault(value, len(numbers) + 1) if key == _IDENTITY else _renumber(value, numbers)
            for key, value in node.items()
        }
    return node


def to_litert_bytes(model: "keras.Model") -> bytes:
    """Returns ``model.tflite``, which maps ``(1, H, W, 3)`` uint8 RGB to ``(1, …)`` float32, in 32-bit floats.

    Raises UserError if the installed TensorFlow has no converter.
    """
    import keras  # noqa: PLC0415 - see above

    if keras.backend.backend() != "tensorflow":
        return _by_tensorflow(model)
    import tensorflow as tf  # noqa: PLC0415 - only the export needs it

    if not hasattr(tf, "lite"):
        raise UserError(
            f"TensorFlow {tf.__version__} has no converter to LiteRT any more. "
            "Install one that has: pip install 'tensorflow<2.22'"
        )
    # The converter makes constants only of the variables that it finds in the object it is given, and in a Keras 3
    # model it finds none. Those that stay variables are empty, and every score is NaN. Hence a module that has them.
    module = tf.Module()
    module.weights = [weight.value for weight in model.weights]
    signature = tf.TensorSpec((1, *model.input_shape[1:]), tf.uint8, name="pixels")
    module.call = tf.function(lambda pixels: model(pixels, training=False), input_signature=[signature])
    concrete = module.call.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)
    # Going through a SavedModel gives the same graph, and takes four times as long.
    converter.experimental_lower_to_saved_model = False
    return bytes(converter.convert())


def _by_tensorflow(model: "keras.Model") -> bytes:
    """Converts the model in a process with the TensorFlow backend, to which the converter belongs."""
    with tempfile.TemporaryDirectory(prefix="twofold-") as folder:
        source, target = Path(folder) / "model.keras", Path(folder) / "model.tflite"
        model.save(source)
        done = _run_with_us(str(source), str(target))
        if done.returncode:
            raise UserError(f"The export to LiteRT failed (is TensorFlow installed?):\n{done.stderr[-2000:]}")
        return target.read_bytes()


def _run_with_us(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs this file in a process that ends when this one does, however that happens.

    On SIGTERM a job leaves at once, without a word to its child processes.
    """
    read_end, write_end = os.pipe()  # the child does not inherit the write end: only this process holds it open
    try:
        return subprocess.run(
            [sys.executable, "-m", "jobs.training.export", *arguments, str(read_end)],
            env=os.environ | {"KERAS_BACKEND": "tensorflow"},
            pass_fds=(read_end,),
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        os.close(read_end)
        os.close(write_end)


def _end_with_parent(read_end: int) -> None:
    os.read(read_end, 1)  # returns when the write end is closed
    os._exit(1)


def _main(source: str, target: str, read_end: str | None = None) -> None:
    if read_end is not None:
        threading.Thread(target=_end_with_parent, args=(int(read_end),), daemon=True).start()
    import keras  # noqa: PLC0415 - see above

    Path(target).write_bytes(to_litert_bytes(keras.models.load_model(source)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
