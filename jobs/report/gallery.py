"""The image gallery of a training report: the images to look at, each next to its class activation map."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.metrics.arrays import Classes, Scores
from worker.scoring.decoder import Pixels

if TYPE_CHECKING:
    import keras

#: ``(N, h, w)`` logits: what each position of an image contributes to its score.
Maps = NDArray[np.float64]

#: Images of each kind. A page with 24 stays well below a megabyte.
EACH: Final = 12
_LEAST_PX: Final = 160
_MOST_PX: Final = 192
_QUALITY: Final = 78  #: of WebP, 0 to 100

#: Towards class 0 and towards class 1: Okabe and Ito's blue and vermilion, which remain distinct for people with any
#: type of colour blindness.
_TOWARDS: Final = np.array([(0, 114, 178), (213, 94, 0)], dtype=np.float64)
_STRONGEST: Final = 0.85  #: opacity of a colour over the grey image at the end of the scale


@dataclass(frozen=True)
class Answers:
    """The model's answers for the ``(N,)`` test images; score >= threshold is class 1."""

    refs: Sequence[str]
    truth: Classes
    scores: Scores
    threshold: float

    @property
    def predicted(self) -> Classes:
        """``(N,)`` predicted classes."""
        return (self.scores >= self.threshold).astype(np.int64)


@dataclass(frozen=True)
class Choice:
    """The positions of the test images to show."""

    mistakes: list[int]  #: the most confident first
    uncertain: list[int]  #: the least certain first, without those above


@dataclass(frozen=True)
class GalleryImage:
    """One image as the model sees it, and its activation map."""

    ref: str
    truth: int
    predicted: int
    score: float
    image: str  #: data URI
    overlay: str  #: data URI: the image in grey, coloured by the class that each part points to


@dataclass(frozen=True)
class Gallery:
    """The images of a report. Colours are strongest where a part contributes ``strongest_logits`` or more."""

    mistakes: list[GalleryImage]
    uncertain: list[GalleryImage]
    strongest_logits: float

    @classmethod
    def of(cls, choice: Choice, answers: Answers, pixels: Pixels, maps: Maps) -> "Gallery":
        """Draws the images of a choice.

        ``pixels`` ``(K, H, W, 3)`` and ``maps`` ``(K, h, w)`` belong to ``choice.mistakes + choice.uncertain``.
        """
        # One scale for all images, so that a colour means the same in each. The percentile keeps a few extreme
        # positions from making everything else pale.
        strongest = float(np.percentile(np.abs(maps), 98)) if maps.size else 0.0
        predicted = answers.predicted
        images = [
            GalleryImage(
                ref=answers.refs[place],
                truth=int(answers.truth[place]),
                predicted=int(predicted[place]),
                score=float(answers.scores[place]),
                image=_data_uri(_resized(pixels[i])),
                overlay=_data_uri(_overlaid(pixels[i], maps[i], strongest)),
            )
            for i, place in enumerate(choice.mistakes + choice.uncertain)
        ]
        return cls(images[: len(choice.mistakes)], images[len(choice.mistakes) :], strongest)


def choose(answers: Answers) -> Choice:
    """Chooses the most confident mistakes, and the images with scores nearest to 0.5."""
    predicted, scores = answers.predicted, answers.scores
    confidence = np.where(predicted == 1, scores, 1 - scores)
    wrong = np.flatnonzero(predicted != answers.truth)
    mistakes = wrong[np.argsort(-confidence[wrong], kind="stable")][:EACH].tolist()
    by_doubt = np.argsort(np.abs(scores - 0.5), kind="stable").tolist()
    shown = set(mistakes)
    return Choice(mistakes, [place for place in by_doubt[: 2 * EACH] if place not in shown][:EACH])


def activation_maps(model: "keras.Model", pixels: Pixels) -> tuple[Maps, float]:
    """Returns the class activation maps of ``(N, H, W, 3)`` uint8 RGB images, and the bias.

    ``model`` returns the last feature maps and the score. A logit above 0 points to class 1, one below 0 to class 0.
    The mean of a map plus the bias is the logit of the image. Zhou et al. 2016, https://arxiv.org/abs/1512.04150
    """
    weights, bias = model.get_layer("probability").get_weights()
    features, _ = model.predict(pixels, batch_size=8, verbose=0)  # (N, h, w, 1280)
    return (features.astype(np.float64) @ weights.astype(np.float64))[..., 0], float(bias[0])


def _resized(image: Pixels) -> Image.Image:
    side = int(np.clip(len(image), _LEAST_PX, _MOST_PX))
    return Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)


def _overlaid(image: Pixels, contributed: Maps, strongest: float) -> Image.Image:
    """Colours the image by its map. Each position covers the part of the image it describes, with smooth borders."""
    grey = _resized(image).convert("L")
    smooth = Image.fromarray(contributed.astype(np.float32)).resize(grey.size, Image.Resampling.BICUBIC)
    amount = np.clip(np.asarray(smooth) / max(strongest, 1e-9), -1, 1)[..., None]
    # Pale grey, so that nothing in the image looks like a colour of the map; and visible through the colour.
    paper = 96 + 0.6 * np.asarray(grey, dtype=np.float64)[..., None]
    colour = np.where(amount > 0, _TOWARDS[1], _TOWARDS[0]) * (0.5 + 0.5 * paper / paper.max())
    cover = _STRONGEST * np.abs(amount)
    return Image.fromarray(np.round(np.clip(paper * (1 - cover) + colour * cover, 0, 255)).astype(np.uint8))


def _data_uri(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "WEBP", quality=_QUALITY, method=6)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
