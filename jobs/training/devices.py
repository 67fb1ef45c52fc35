"""The devices of a job, and how Keras uses all of them."""

import contextlib
import platform
from typing import Any

import keras

from jobs.config import TrainConfig
from worker.settings import available_cores


def gpus() -> list[str]:
    """Lists the GPUs of Keras's backend, by the backend's own names."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf  # noqa: PLC0415 - only with this backend

        return [device.name for device in tf.config.list_logical_devices("GPU")]
    if keras.backend.backend() == "torch":  # Keras has no distribution for it
        import torch  # noqa: PLC0415 - only with this backend

        return ["cuda:0"] if torch.cuda.is_available() else []
    return [device for device in keras.distribution.list_devices() if device.startswith(("gpu", "cuda"))]


def describe() -> str:
    """Describes the hardware, for the report."""
    cores = f"{platform.machine()}, {available_cores()} cores"
    return f"{cores}, {len(gpus())} GPU" if gpus() else cores


def precision(config: TrainConfig) -> str:
    """Returns the dtype policy of all layers but the head. ``auto`` is mixed_float16 on a GPU, float32 elsewhere."""
    if config.precision == "auto":
        return "mixed_float16" if gpus() else "float32"
    return config.precision


def distribute_over(devices: list[str]) -> contextlib.AbstractContextManager[Any]:
    """Puts the models built within the block on each of the devices. ``predict`` gives each device a share of a batch.

    ``train_on_batch`` gives each device the full batch: training has the same result on any number of devices, and is
    no faster. Do not export such a model. Copy its weights to one that was built outside the block.
    """
    if len(devices) < 2:  # noqa: PLR2004 - nothing to distribute
        return contextlib.nullcontext()
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf  # noqa: PLC0415 - only with this backend

        scope: contextlib.AbstractContextManager[Any] = tf.distribute.MirroredStrategy(devices).scope()
        return scope
    parallel: contextlib.AbstractContextManager[Any] = keras.distribution.DataParallel(devices=devices).scope()
    return parallel
