"""What a job runs on, and how Keras is told to use all of it."""

import contextlib
import platform
from typing import Any

import keras

from jobs.config import TrainConfig
from worker.settings import available_cores


def gpus() -> int:
    """How many GPUs Keras's backend sees."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf  # noqa: PLC0415 - of this backend alone

        return len(tf.config.list_physical_devices("GPU"))
    return len([device for device in keras.distribution.list_devices() if device.startswith(("gpu", "cuda"))])


def describe() -> str:
    """The hardware, for the report."""
    cores = f"{platform.machine()}, {available_cores()} cores"
    return f"{cores}, {gpus()} GPU" if gpus() else cores


def precision(config: TrainConfig) -> str:
    """The dtype policy of everything but the head: ``auto`` is mixed_float16 on a GPU, float32 elsewhere."""
    if config.precision == "auto":
        return "mixed_float16" if gpus() else "float32"
    return config.precision


def on_all() -> contextlib.AbstractContextManager[Any]:
    """Models made within are spread over the GPUs, a share of each batch to each, where there are several."""
    if gpus() < 2:  # noqa: PLR2004 - nothing to spread
        return contextlib.nullcontext()
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf  # noqa: PLC0415 - of this backend alone

        scope: contextlib.AbstractContextManager[Any] = tf.distribute.MirroredStrategy().scope()
        return scope
    parallel: contextlib.AbstractContextManager[Any] = keras.distribution.DataParallel().scope()
    return parallel
