"""Which images a training report shows, and that their activation maps are exact."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.report.gallery import EACH, Answers, Gallery, activation_maps, choose
from worker.scoring.decoder import decode


def _answers(truth: list[int], scores: list[float], threshold: float = 0.5) -> Answers:
    return Answers([str(i) for i in range(len(truth))], np.array(truth), np.array(scores), threshold)


def test_the_most_confident_mistakes_come_first_and_no_image_is_shown_twice() -> None:
    """Confidence is that in the predicted class. The least certain images exclude the mistakes shown."""
    choice = choose(_answers([0, 1, 0, 1, 0, 1], [0.6, 0.1, 0.99, 0.55, 0.02, 0.98]))
    assert choice.mistakes == [2, 1, 0]
    assert choice.uncertain == [3, 4, 5]


def test_the_threshold_decides_what_is_a_mistake() -> None:
    """A score equal to the threshold is class 1."""
    assert choose(_answers([0, 1], [0.8, 0.9], threshold=0.9)).mistakes == []
    assert choose(_answers([0, 1], [0.8, 0.9], threshold=0.95)).mistakes == [1]
    assert choose(_answers([0, 1], [0.8, 0.9], threshold=0.8)).mistakes == [0]


def test_a_gallery_has_a_maximum_size() -> None:
    """Whatever the number of mistakes."""
    choice = choose(_answers([0, 1] * 100, np.linspace(1, 0, 200).tolist()))
    assert (len(choice.mistakes), len(choice.uncertain)) == (EACH, EACH)


def _opened(uri: str) -> np.ndarray:
    assert uri.startswith("data:image/webp;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")).astype(int)


def test_a_map_is_blue_for_class_0_vermilion_for_class_1_and_grey_for_neither() -> None:
    """Each position of the map colours the part of the image that it describes."""
    pixels = np.full((1, 160, 160, 3), (40, 160, 60), np.uint8)
    maps = np.array([[[-5.0, 0.0, 5.0]] * 3])
    gallery = Gallery.of(choose(_answers([0], [0.5])), _answers([0], [0.5]), pixels, maps)
    (image,) = gallery.mistakes
    overlay = _opened(image.overlay)
    red, _, blue = overlay[80, 10]
    assert blue > red + 60
    red, _, blue = overlay[80, 150]
    assert red > blue + 60
    assert np.ptp(overlay[80, 80]) < 25
    assert np.abs(_opened(image.image)[80, 80] - (40, 160, 60)).max() < 8
    assert gallery.strongest_logits == pytest.approx(5.0)


def test_a_model_that_sees_nothing_has_grey_maps() -> None:
    """Maps of zeros cause no division by zero."""
    answers = _answers([0, 1], [0.5, 0.5])
    gallery = Gallery.of(choose(answers), answers, np.zeros((2, 32, 32, 3), np.uint8), np.zeros((2, 1, 1)))
    assert gallery.strongest_logits == 0
    assert np.ptp(_opened(gallery.mistakes[0].overlay)) < 3


def test_the_mean_of_an_activation_map_is_the_logit(bundle: Path, digit_images: Path) -> None:
    """With the bias, to 1e-4, for the exported ``model.keras``: the map is exact, not an estimate."""
    import keras  # noqa: PLC0415 - takes seconds that the other tests need not wait

    from jobs.training.network import with_feature_maps  # noqa: PLC0415

    pixels = np.stack([decode(p.read_bytes(), size_px=96) for p in sorted(digit_images.rglob("*.png"))[::50]])
    model = keras.models.load_model(bundle / "model.keras")
    maps, bias = activation_maps(with_feature_maps(model), pixels)
    assert maps.shape == (len(pixels), 3, 3)
    scores = np.asarray(model(pixels, training=False))[:, 0].astype(np.float64)
    assert maps.mean(axis=(1, 2)) + bias == pytest.approx(np.log(scores) - np.log1p(-scores), abs=1e-4)
    assert np.abs(maps - maps.mean(axis=(1, 2), keepdims=True)).max() > 0.1  # and it differs between positions
