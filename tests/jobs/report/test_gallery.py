"""Which pictures a report shows, and that the maps beside them are exact."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.report.gallery import EACH, Answers, choose, hang
from worker.scoring.decoder import decode


def _answers(truth: list[int], scores: list[float], threshold: float = 0.5) -> Answers:
    return Answers([str(i) for i in range(len(truth))], np.array(truth), np.array(scores), threshold)


def test_the_most_confident_mistakes_come_first_and_nothing_is_shown_twice() -> None:
    """Confidence is that of the class given; the least certain are those next to a half that are no mistakes shown."""
    choice = choose(_answers([0, 1, 0, 1, 0, 1], [0.6, 0.1, 0.99, 0.55, 0.02, 0.98]))
    assert choice.mistakes == [2, 1, 0]
    assert choice.uncertain == [3, 4, 5]


def test_what_is_a_mistake_follows_from_the_threshold() -> None:
    """A score on it is class 1."""
    assert choose(_answers([0, 1], [0.8, 0.9], threshold=0.9)).mistakes == []
    assert choose(_answers([0, 1], [0.8, 0.9], threshold=0.95)).mistakes == [1]
    assert choose(_answers([0, 1], [0.8, 0.9], threshold=0.8)).mistakes == [0]


def test_a_gallery_is_bounded() -> None:
    """Whatever the number of mistakes."""
    choice = choose(_answers([0, 1] * 100, np.linspace(1, 0, 200).tolist()))
    assert (len(choice.mistakes), len(choice.uncertain)) == (EACH, EACH)


def _opened(uri: str) -> np.ndarray:
    assert uri.startswith("data:image/webp;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")).astype(int)


def test_a_map_is_blue_for_class_0_vermilion_for_class_1_and_grey_for_neither() -> None:
    """Over the part of the picture that it stands for."""
    pixels = np.full((1, 160, 160, 3), (40, 160, 60), np.uint8)
    maps = np.array([[[-5.0, 0.0, 5.0]] * 3])
    shown = hang(choose(_answers([0], [0.5])), _answers([0], [0.5]), pixels, maps)
    (picture,) = shown.mistakes
    overlay = _opened(picture.overlay)
    red, _, blue = overlay[80, 10]
    assert blue > red + 60
    red, _, blue = overlay[80, 150]
    assert red > blue + 60
    assert np.ptp(overlay[80, 80]) < 25
    assert np.abs(_opened(picture.picture)[80, 80] - (40, 160, 60)).max() < 8
    assert shown.strongest_logits == pytest.approx(5.0)


def test_a_model_that_sees_nothing_has_grey_maps() -> None:
    """And no division by nothing."""
    answers = _answers([0, 1], [0.5, 0.5])
    shown = hang(choose(answers), answers, np.zeros((2, 32, 32, 3), np.uint8), np.zeros((2, 1, 1)))
    assert shown.strongest_logits == 0
    assert np.ptp(_opened(shown.mistakes[0].overlay)) < 3


def test_the_mean_of_an_activation_map_is_the_logit(bundle: Path, digit_images: Path) -> None:
    """With the bias, to 1e-4, of ``model.keras`` as it was exported: the map is exact, not an estimate."""
    import keras  # noqa: PLC0415 - seconds that the other tests need not wait

    from jobs.report.gallery import contributions  # noqa: PLC0415
    from jobs.training.network import with_feature_maps  # noqa: PLC0415

    pixels = np.stack([decode(p.read_bytes(), size_px=96) for p in sorted(digit_images.rglob("*.png"))[::50]])
    model = keras.models.load_model(bundle / "model.keras")
    maps, bias = contributions(with_feature_maps(model), pixels)
    assert maps.shape == (len(pixels), 3, 3)
    scores = model.predict(pixels, verbose=0)[:, 0].astype(np.float64)
    assert maps.mean(axis=(1, 2)) + bias == pytest.approx(np.log(scores) - np.log1p(-scores), abs=1e-4)
    assert np.abs(maps - maps.mean(axis=(1, 2), keepdims=True)).max() > 0.1  # and it says where
