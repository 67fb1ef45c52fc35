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

#: ``(N, h, w)`` logits: what each position of an image contributes to its score. Their mean is the logit of the image.
Maps = NDArray[np.float64]

#: Images of each kind. A page with 24 stays well below a megabyte.
EACH: Final = 12
_LEAST_PX: Final = 160
_MOST_PX: Final = 192
_QUALITY: Final = 78  #: of WebP, 0 to 100

#: Of class 0 and of class 1, as in colours.css: Okabe and Ito's blue and vermilion, which remain distinct for people
#: with any type of colour blindness. The vermilion is darker than theirs, so that it can be read as text, too.
COLOURS: Final = np.array([(0, 114, 178), (184, 74, 0)], dtype=np.float64)
_STRONGEST: Final = 0.85  #: opacity of a colour over the grey image at the end of the scale
#: The end of the scale, as a percentile of the votes for a class. The few beyond it would make all others pale.
_PERCENTILE: Final = 90
#: A threshold of 0 or 1 has no logit. One in a thousand is as far from any doubt as a vote needs to be.
_LEAST: Final = 1e-3


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
    overlay: str  #: data URI: the image in grey, and what spoke for the predicted class in the colour of that class


@dataclass(frozen=True)
class Gallery:
    """The images of a report. A part has the full colour of a class if it votes for it with ``strongest`` or more."""

    mistakes: list[GalleryImage]
    uncertain: list[GalleryImage]
    strongest: tuple[float, float]  #: logits, by class

    @classmethod
    def of(cls, choice: Choice, answers: Answers, pixels: Pixels, maps: Maps) -> "Gallery":
        """Draws the images of a choice.

        ``pixels`` ``(K, H, W, 3)`` and ``maps`` ``(K, h, w)`` belong to ``choice.mistakes + choice.uncertain``.
        """
        places = choice.mistakes + choice.uncertain
        predicted = answers.predicted[places]
        votes = votes_for(predicted, maps, threshold=answers.threshold)
        # A scale for each class, so that a colour means the same in all images with that answer: a model may be sure of
        # one class after a glance at the fur, and of the other only when nothing speaks against it.
        strongest = (_end_of_scale(votes[predicted == 0]), _end_of_scale(votes[predicted == 1]))
        images = [
            GalleryImage(
                ref=answers.refs[place],
                truth=int(answers.truth[place]),
                predicted=int(predicted[i]),
                score=float(answers.scores[place]),
                image=_data_uri(_resized(pixels[i])),
                overlay=_data_uri(_overlaid(pixels[i], votes[i] / strongest[predicted[i]], COLOURS[predicted[i]])),
            )
            for i, place in enumerate(places)
        ]
        return cls(images[: len(choice.mistakes)], images[len(choice.mistakes) :], strongest)


def votes_for(predicted: Classes, maps: Maps, *, threshold: float) -> Maps:
    """Returns how strongly each position speaks for the answer given, in logits; below 0, it speaks against it.

    The mean of an image's votes is how far its logit is beyond that of the threshold: what the answer was given for.
    """
    least = float(np.clip(threshold, _LEAST, 1 - _LEAST))
    neutral = np.log(least) - np.log1p(-least)
    votes: Maps = np.where(predicted == 1, 1, -1)[:, None, None] * (maps - neutral)
    return votes


def _end_of_scale(votes: Maps) -> float:
    """Returns the vote with the full colour. Of a class without votes it is tiny, so that nothing is divided by 0."""
    return max(float(np.percentile(votes[votes > 0], _PERCENTILE)) if (votes > 0).any() else 0.0, 1e-9)


def choose(answers: Answers) -> Choice:
    """Chooses the most confident mistakes, and the images with scores nearest to 0.5."""
    predicted, scores = answers.predicted, answers.scores
    confidence = np.where(predicted == 1, scores, 1 - scores)
    wrong = np.flatnonzero(predicted != answers.truth)
    mistakes = wrong[np.argsort(-confidence[wrong], kind="stable")][:EACH].tolist()
    by_doubt = np.argsort(np.abs(scores - 0.5), kind="stable").tolist()
    shown = set(mistakes)
    return Choice(mistakes, [place for place in by_doubt[: 2 * EACH] if place not in shown][:EACH])


def activation_maps(model: "keras.Model", pixels: Pixels) -> Maps:
    """Returns the class activation maps of ``(N, H, W, 3)`` uint8 RGB images.

    ``model`` returns the last feature maps and the score. A logit above 0 speaks for class 1, one below 0 for class 0.
    A map includes the bias at each position, so its mean is the logit of the image. Zhou et al. 2016,
    https://arxiv.org/abs/1512.04150
    """
    weights, bias = model.get_layer("probability").get_weights()
    features, _ = model.predict(pixels, batch_size=8, verbose=0)  # (N, h, w, 1280)
    maps: Maps = (features.astype(np.float64) @ weights.astype(np.float64))[..., 0] + float(bias[0])
    return maps


def _resized(image: Pixels) -> Image.Image:
    side = int(np.clip(len(image), _LEAST_PX, _MOST_PX))
    return Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)


def _overlaid(image: Pixels, votes: Maps, colour: NDArray[np.float64]) -> Image.Image:
    """Colours the image where its ``(h, w)`` votes are above 0; from 1 on, the colour is full.

    Each position covers the part of the image it describes, with smooth borders.
    """
    grey = _resized(image).convert("L")
    smooth = Image.fromarray(votes.astype(np.float32)).resize(grey.size, Image.Resampling.BICUBIC)
    # Pale grey, so that nothing in the image looks like a colour of the map; and visible through the colour.
    paper = 96 + 0.6 * np.asarray(grey, dtype=np.float64)[..., None]
    cover = _STRONGEST * np.clip(np.asarray(smooth), 0, 1)[..., None]
    mixed = paper * (1 - cover) + colour * (0.5 + 0.5 * paper / paper.max()) * cover
    return Image.fromarray(np.round(np.clip(mixed, 0, 255)).astype(np.uint8))


def _data_uri(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "WEBP", quality=_QUALITY, method=6)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
