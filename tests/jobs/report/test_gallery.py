"""Which images a training report shows, and that their activation maps are exact."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.report.gallery import COLOURS, EACH, Answers, Choice, Gallery, activation_maps, choose, votes_for
from tests.conftest import REPOSITORY
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


def _drawn(answers: Answers, maps: np.ndarray) -> list[np.ndarray]:
    """The overlays of green images with these maps, in the order of the answers."""
    pixels = np.full((len(maps), 160, 160, 3), (40, 160, 60), np.uint8)
    choice = Choice([], list(range(len(maps))))
    gallery = Gallery.of(choice, answers, pixels, maps)
    assert np.abs(_opened(gallery.uncertain[0].image)[80, 80] - (40, 160, 60)).max() < 8
    return [_opened(image.overlay) for image in gallery.uncertain]


def _is_grey(pixel: np.ndarray) -> bool:
    return bool(np.ptp(pixel) < 25)


def test_a_map_shows_what_spoke_for_the_answer_given_in_the_colour_of_that_class() -> None:
    """Blue for class 0, vermilion for class 1. What spoke for neither, or for the other class, is grey."""
    maps = np.array([[[-5.0, 0.0, 5.0]] * 3] * 2)
    as_zero, as_one = _drawn(_answers([0, 1], [0.4, 0.6]), maps)
    red, _, blue = as_zero[80, 10]
    assert blue > red + 60
    red, _, blue = as_one[80, 150]
    assert red > blue + 60
    assert [_is_grey(as_zero[80, x]) for x in (80, 150)] == [True, True]
    assert [_is_grey(as_one[80, x]) for x in (10, 80)] == [True, True]


def test_each_class_has_a_scale_of_its_own() -> None:
    """A model that votes ten times as strongly for one class shows as much of what spoke for the other."""
    maps = np.array([[[-30.0, 0.0, 0.0]] * 3, [[0.0, 0.0, 3.0]] * 3])
    as_zero, as_one = _drawn(_answers([0, 1], [0.0001, 0.7]), maps)
    assert np.abs(as_zero[80, 5] - as_one[80, 5]).max() > 60
    for strong, weak in ((as_zero[80, 5], as_zero[80, 150]), (as_one[80, 155], as_one[80, 5])):
        assert np.ptp(strong) > 100
        assert _is_grey(weak)


@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.0, 1.0])
def test_the_mean_of_the_votes_is_what_the_answer_was_given_for(threshold: float) -> None:
    """How far the logit is beyond that of the threshold: an image is never without a vote for its answer."""
    random = np.random.default_rng(0)
    maps = random.normal(0, 3, (50, 5, 5))
    scores = 1 / (1 + np.exp(-maps.mean(axis=(1, 2))))
    predicted = (scores >= threshold).astype(int)
    votes = votes_for(predicted, maps, threshold=threshold).mean(axis=(1, 2))
    assert (votes >= 0).all()
    if 0 < threshold < 1:
        margin = np.log(scores / (1 - scores)) - np.log(threshold / (1 - threshold))
        assert votes == pytest.approx(np.abs(margin))


def test_a_class_has_one_colour_on_the_page_and_in_the_maps() -> None:
    """That of the light page; the dark one has lighter shades of both."""
    css = "".join((REPOSITORY / "jobs/templates" / name).read_text() for name in ("colours.css", "page.css"))
    for name, colour in zip(("zero", "one"), COLOURS, strict=True):
        shade = "#" + "".join(f"{int(part):02x}" for part in colour)
        assert f"--{name}: {shade};" in css
        assert f".for-{name} {{ background: linear-gradient(90deg, #c8c8c8, {shade}); }}" in css


def test_a_model_that_sees_nothing_has_grey_maps() -> None:
    """Maps of zeros cause no division by zero."""
    answers = _answers([0, 1], [0.5, 0.5])
    gallery = Gallery.of(choose(answers), answers, np.zeros((2, 32, 32, 3), np.uint8), np.zeros((2, 1, 1)))
    assert max(gallery.strongest) < 1e-6
    assert np.ptp(_opened(gallery.mistakes[0].overlay)) < 3


def test_the_mean_of_an_activation_map_is_the_logit(bundle: Path, digit_images: Path) -> None:
    """To 1e-4, for the exported ``model.keras``: the map is exact, not an estimate."""
    import keras  # noqa: PLC0415 - takes seconds that the other tests need not wait

    from jobs.training.network import with_feature_maps  # noqa: PLC0415

    pixels = np.stack([decode(p.read_bytes(), size_px=96) for p in sorted(digit_images.rglob("*.png"))[::50]])
    model = keras.models.load_model(bundle / "model.keras")
    maps = activation_maps(with_feature_maps(model), pixels)
    assert maps.shape == (len(pixels), 3, 3)
    scores = np.asarray(model(pixels, training=False))[:, 0].astype(np.float64)
    assert maps.mean(axis=(1, 2)) == pytest.approx(np.log(scores) - np.log1p(-scores), abs=1e-4)
    assert np.abs(maps - maps.mean(axis=(1, 2), keepdims=True)).max() > 0.1  # and it differs between positions
