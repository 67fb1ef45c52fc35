"""The peer: the recipe that Twofold is based on, as you would write it from Keras's tutorials.

python -m tests.bench.peer_train DATA WEIGHTS

A frozen MobileNetV2 at 160 pixels is trained for five epochs with ``fit`` and evaluated on ``validation/``. It is a
fair opponent: images are prefetched, test images are read once, and the scaling to [-1, 1] is part of the model.
Without the scaling, which the recipe leaves out, it reaches 0.68 instead of 0.97. It does not write a model file.
"""

import time

started_s = time.monotonic()

import json
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorflow as tf
from sklearn.metrics import accuracy_score, classification_report, confusion_matrix

imported_s = time.monotonic()

IMAGE_SIZE: Final = (160, 160)
EPOCHS: Final = 5
SEED: Final = 123


def main(data: Path, weights: str) -> None:
    """Trains and evaluates. The last line printed is JSON with the accuracy and the seconds of each step."""
    seconds = {"imports": imported_s - started_s}
    clock = time.monotonic()

    def lap(step: str) -> None:
        nonlocal clock
        seconds[step], clock = time.monotonic() - clock, time.monotonic()

    train_ds = read(data / "train", validation_split=0.2, subset="training", seed=SEED)
    val_ds = read(data / "train", validation_split=0.2, subset="validation", seed=SEED)
    test_ds = read(data / "validation", shuffle=False)
    y_true = np.array([test_ds.class_names.index(Path(path).parent.name) for path in test_ds.file_paths])
    lap("data")
    model = build(weights)
    lap("model")
    model.fit(
        train_ds.prefetch(tf.data.AUTOTUNE), validation_data=val_ds.prefetch(tf.data.AUTOTUNE), epochs=EPOCHS, verbose=0
    )
    lap("fit")
    y_pred = (model.predict(test_ds.prefetch(tf.data.AUTOTUNE), verbose=0)[:, 0] >= 0.5).astype(int)
    print(classification_report(y_true, y_pred), confusion_matrix(y_true, y_pred), file=sys.stderr)
    lap("evaluation")
    print(json.dumps({"accuracy": accuracy_score(y_true, y_pred), "seconds": seconds}))


def read(folder: Path, **options: Any) -> Any:
    """Returns the images and classes of a folder as a dataset, in batches of 32."""
    return tf.keras.utils.image_dataset_from_directory(folder, image_size=IMAGE_SIZE, verbose=False, **options)


def build(weights: str) -> Any:
    """Returns the frozen backbone with one sigmoid neuron on top, compiled."""
    base = tf.keras.applications.MobileNetV2(input_shape=(*IMAGE_SIZE, 3), include_top=False, weights=weights)
    base.trainable = False
    model = tf.keras.Sequential(
        [
            tf.keras.Input((*IMAGE_SIZE, 3)),
            tf.keras.layers.Rescaling(1 / 127.5, offset=-1),
            base,
            tf.keras.layers.GlobalAveragePooling2D(),
            tf.keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
    return model


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
