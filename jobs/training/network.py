"""The network: MobileNetV2, global average pooling, one sigmoid neuron. Keras alone, so that any backend trains it."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from jobs.config import TrainConfig
from jobs.training.neuron import Neuron


@contextmanager
def precision(policy: str) -> Iterator[None]:
    """Layers made within compute in ``float32`` or ``mixed_float16``; their weights are float32 in both."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def build_extractor(backbone: keras.Model, *, image_size: int) -> keras.Model:
    """Pixels to features: ``(N, H, W, 3)`` uint8 RGB to ``(N, 1280)`` float32.

    The scaling to [-1, 1] that MobileNetV2 was trained with is a layer of the model: who serves it cannot forget it.
    (Fed 0-255, as in the seed, the recipe ends at 0.68 instead of 0.97.)
    """
    pixels, maps = _scaled(backbone, image_size)
    pooled = keras.layers.GlobalAveragePooling2D(name="pool", dtype="float32")(maps)
    return keras.Model(pixels, pooled, name="extractor")


def build_lower(backbone: keras.Model, cut: str, *, image_size: int) -> keras.Model:
    """Pixels to the activations of the backbone's layer ``cut``, which fine-tuning above it never changes."""
    below = keras.Model(backbone.input, backbone.get_layer(cut).output, name="lower")
    pixels, activations = _scaled(below, image_size)
    return keras.Model(pixels, activations, name=f"below-{cut}")


def build_upper(backbone: keras.Model, cut: str, head: keras.layers.Dense) -> keras.Model:
    """Activations of the layer ``cut`` to P(class 1), sharing the layers of ``backbone`` and ``head``."""
    activations = keras.Input(backbone.get_layer(cut).output.shape[1:], name="activations")
    maps = keras.Model(backbone.get_layer(cut).output, backbone.output, name="upper")(activations)
    pooled = keras.layers.GlobalAveragePooling2D(dtype="float32")(maps)
    return keras.Model(activations, head(pooled), name="above")


def _scaled(backbone: keras.Model, image_size: int) -> tuple[Any, Any]:
    pixels = keras.Input((image_size, image_size, 3), dtype="uint8", name="pixels")
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(pixels)
    # training=False: BatchNormalization must go on using ImageNet's statistics, whatever the batch.
    return pixels, backbone(scaled, training=False)


def as_layer(neuron: Neuron, config: TrainConfig) -> keras.layers.Dense:
    """The head: ``(N, D)`` features to ``(N, 1)`` P(class 1)."""
    layer = keras.layers.Dense(
        1,
        activation="sigmoid",
        kernel_regularizer=keras.regularizers.L2(config.l2),
        name="probability",
        dtype="float32",
    )
    layer.build((None, len(neuron.weights)))
    layer.set_weights([neuron.weights[:, None].astype(np.float32), np.array([neuron.bias], np.float32)])
    return layer


def join(extractor: keras.Model, head: keras.layers.Dense) -> keras.Model:
    """The whole model, pixels to P(class 1), with the layers of both: ``model.keras``."""
    return keras.Model(extractor.input, head(extractor.output), name="twofold")


def see_through(model: keras.Model) -> keras.Model:
    """The whole model with its last feature map: pixels to ``(N, h, w, D)`` and ``(N, 1)`` P(class 1).

    One model for whoever needs either: to trace it takes longer than the pictures that are then put through it.
    """
    return keras.Model(model.input, [model.get_layer("pool").input, model.output])


def predict_in_batches(model: keras.Model) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    """``(N, …)`` inputs to ``(N, …)`` float32, in batches that any machine holds, on all of its GPUs."""

    def run(inputs: NDArray[Any]) -> NDArray[np.float32]:
        answers: NDArray[np.float32] = model.predict(inputs, batch_size=32, verbose=0).astype(np.float32)
        return answers

    return run


def digest(model: keras.Model) -> str:
    """SHA-256 of a model's weights, in their order."""
    found = hashlib.sha256()
    for weight in model.get_weights():
        found.update(np.ascontiguousarray(weight).tobytes())
    return found.hexdigest()
