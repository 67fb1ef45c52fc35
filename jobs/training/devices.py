"""What a job runs on, and how Keras is told to use all of it."""

import contextlib
import platform
from typing import Any

import keras

from jobs.config import TrainConfig
from worker.settings import available_cores


def gpus() -> list[str]:
    """The GPUs that Keras's backend sees, by its names for them."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf  # noqa: PLC0415 - of this backend alone

        return [device.name for device in tf.config.list_logical_devices("GPU")]
    return [device for device in keras.distribution.list_devices() if device.startswith(("gpu", "cuda"))]


def describe() -> str:
    """The hardware, for the report."""
    cores = f"{platform.machine()}, {available_cores()} cores"
    return f"{cores}, {len(gpus())} GPU" if gpus() else cores


def precision(config: TrainConfig) -> str:
    """The dtype policy of everything but the head: ``auto`` is mixed_float16 on a GPU, float32 elsewhere."""
    if config.precision == "auto":
        return "mixed_float16" if gpus() else "float32"
    return config.precision


def on_all(devices: list[str]) -> contextlib.AbstractContextManager[Any]:
    """Models made within are on each of the devices, and ``predict`` gives each a share of a batch.

    ``train_on_batch`` gives each the whole batch: what is learned is the same on any number of devices, and no faster.
    Export no such model: copy its weights to one made elsewhere.
    """
    if len(devices) < 2:  # noqa: PLR2004 - nothing to share
        return contextlib.nullcontext()
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf  # noqa: PLC0415 - of this backend alone

        scope: contextlib.AbstractContextManager[Any] = tf.distribute.MirroredStrategy(devices).scope()
        return scope
    parallel: contextlib.AbstractContextManager[Any] = keras.distribution.DataParallel(devices=devices).scope()
    return parallel
