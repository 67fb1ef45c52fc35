"""The network: MobileNetV2 frozen, global average pooling, one sigmoid neuron; and its export to LiteRT.

Keras alone up to ``export``, so that any Keras backend trains it.
"""

import math
import tempfile
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from jobs.config import TrainConfig
from worker.images import Pixels

Features = NDArray[np.float32]
Classes = NDArray[np.int64]


def build_extractor(backbone: keras.Model, *, image_size: int) -> keras.Model:
    """Pixels to features: ``(N, H, W, 3)`` uint8 RGB to ``(N, 1280)`` float32.

    The scaling to [-1, 1] that MobileNetV2 was trained with is a layer of the model: who serves it cannot forget it.
    (Fed 0-255, as in the seed, the recipe ends at 0.68 instead of 0.97.)
    """
    pixels = keras.Input((image_size, image_size, 3), dtype="uint8", name="pixels")
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(pixels)
    # training=False: BatchNormalization must go on using ImageNet's statistics, whatever the batch.
    maps = backbone(scaled, training=False)
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(maps)
    return keras.Model(pixels, pooled, name="extractor")


def fit_head(features: Features, classes: Classes, config: TrainConfig) -> keras.Model:
    """One sigmoid neuron, the only part that learns: ``(N, 1280)`` features to ``(N, 1)`` P(class 1)."""
    neuron = keras.layers.Dense(
        1, activation="sigmoid", kernel_regularizer=keras.regularizers.L2(config.l2), name="probability"
    )
    head = keras.Sequential([keras.Input((features.shape[1],)), neuron], name="head")
    steps = config.epochs * math.ceil(len(features) / config.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(config.learning_rate, steps)
    head.compile(optimizer=keras.optimizers.Adam(rate), loss="binary_crossentropy")
    head.fit(features, classes, epochs=config.epochs, batch_size=config.batch_size, verbose=0)
    return head


def divide_logit(head: keras.Model, temperature: float) -> None:
    """Folds a temperature into the weights: the neuron's sum is divided by it, and the model needs to know no more."""
    neuron = head.layers[-1]
    neuron.set_weights([tensor / temperature for tensor in neuron.get_weights()])


def join(extractor: keras.Model, head: keras.Model) -> keras.Model:
    """The whole model, pixels to P(class 1), with the layers of both: ``model.keras``."""
    return keras.Model(extractor.input, head.layers[-1](extractor.output), name="twofold")


def extract(extractor: keras.Model, pixels: Pixels) -> Features:
    """``(N, 1280)`` float32, computed without an optimizer's memory in batches that any machine holds."""
    features: Features = extractor.predict(pixels, batch_size=32, verbose=0)
    return features


def to_keras_bytes(model: keras.Model) -> bytes:
    """``model.keras``."""
    with tempfile.TemporaryDirectory(prefix="twofold-") as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return path.read_bytes()


def to_litert_bytes(model: keras.Model) -> bytes:
    """``model.tflite``: ``(1, H, W, 3)`` uint8 RGB to ``(1, 1)`` float32, in 32-bit floats."""
    import tensorflow as tf  # noqa: PLC0415 - only the export needs it

    # A module of its own: the converter turns into constants only the variables it finds in the object it is given,
    # and it finds none in a Keras 3 model; left as variables they stay empty, and every score is NaN.
    module = tf.Module()
    module.weights = [weight.value for weight in model.weights]
    signature = tf.TensorSpec((1, *model.input_shape[1:]), tf.uint8, name="pixels")
    module.call = tf.function(lambda pixels: model(pixels, training=False), input_signature=[signature])
    concrete = module.call.get_concrete_function()
    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete], module).convert())
