"""The peer: the recipe that the project started from, as one would write it from Keras's tutorials.

python -m tests.bench.peer_train DATA WEIGHTS

MobileNetV2, frozen, 160 pixels, five epochs of ``fit``, then a report on the images of ``validation/``. It is
meant to be good of its kind: images are read ahead of the network, test images are read once, and the scaling to
[-1, 1] is in the model. The recipe to the letter leaves that out and ends at 0.68 where this ends at 0.97. It writes no
model file.
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
    """Trains, tests, and prints one last line of JSON: the accuracy, and the seconds of each step."""
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
    """A dataset of a folder's images and classes, in batches of 32."""
    return tf.keras.utils.image_dataset_from_directory(folder, image_size=IMAGE_SIZE, verbose=False, **options)


def build(weights: str) -> Any:
    """The frozen backbone with one sigmoid neuron on top, compiled."""
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
