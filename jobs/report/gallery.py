"""The pictures of a report: those to look at, each beside its class activation map, as data URIs."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import keras
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.metrics.classification import Scores, Truth
from worker.scoring.decoder import Pixels

#: Pictures of each kind. A page with 24 stays well below a megabyte.
EACH: Final = 12
_LEAST_PX: Final = 160
_MOST_PX: Final = 192
_QUALITY: Final = 78  #: of WebP, 0 to 100

#: Okabe and Ito's blue and vermilion, which people of every colour vision tell apart; towards class 0 and class 1.
_TOWARDS: Final = np.array([(0, 114, 178), (213, 94, 0)], dtype=np.float64)
_STRONGEST: Final = 0.85  #: how much of a colour covers the grey picture at the end of the scale


@dataclass(frozen=True)
class Answers:
    """What the model said of the ``(N,)`` test images; score >= threshold is class 1."""

    refs: Sequence[str]
    truth: Truth
    scores: Scores
    threshold: float

    @property
    def given(self) -> Truth:
        """``(N,)`` classes."""
        return (self.scores >= self.threshold).astype(np.int64)


@dataclass(frozen=True)
class Choice:
    """Places of test images, most telling first."""

    mistakes: list[int]  #: told wrong, the most confident first
    uncertain: list[int]  #: the least certain first, those above left out


@dataclass(frozen=True)
class Picture:
    """One image of the gallery, as the model sees it, and where it sees what."""

    ref: str
    truth: int
    given: int
    score: float
    picture: str  #: data URI
    overlay: str  #: data URI: the picture in grey, coloured by what each part speaks for


@dataclass(frozen=True)
class Gallery:
    """What a report shows. Colours are at their strongest where a part contributes ``strongest_logits`` or more."""

    mistakes: list[Picture]
    uncertain: list[Picture]
    strongest_logits: float


def choose(answers: Answers) -> Choice:
    """Which images to show: the mistakes told with most confidence, and the scores nearest to a half."""
    given, scores = answers.given, answers.scores
    confidence = np.where(given == 1, scores, 1 - scores)
    wrong = np.flatnonzero(given != answers.truth)
    mistakes = wrong[np.argsort(-confidence[wrong], kind="stable")][:EACH].tolist()
    by_doubt = np.argsort(np.abs(scores - 0.5), kind="stable").tolist()
    shown = set(mistakes)
    return Choice(mistakes, [place for place in by_doubt[: 2 * EACH] if place not in shown][:EACH])


def hang(choice: Choice, answers: Answers, pixels: Pixels, maps: NDArray[np.float64]) -> Gallery:
    """The gallery of a choice.

    ``pixels`` ``(K, H, W, 3)`` and ``maps`` ``(K, h, w)`` logits are those of ``choice.mistakes + choice.uncertain``.
    """
    # One scale for all, so that the same colour means the same in each; a few extreme spots do not pale the rest.
    strongest = float(np.percentile(np.abs(maps), 98)) if maps.size else 0.0
    given = answers.given
    pictures = [
        Picture(
            ref=answers.refs[place],
            truth=int(answers.truth[place]),
            given=int(given[place]),
            score=float(answers.scores[place]),
            picture=_data_uri(_resized(pixels[i])),
            overlay=_data_uri(_overlaid(pixels[i], maps[i], strongest)),
        )
        for i, place in enumerate(choice.mistakes + choice.uncertain)
    ]
    return Gallery(pictures[: len(choice.mistakes)], pictures[len(choice.mistakes) :], strongest)


def _resized(picture: Pixels) -> Image.Image:
    side = int(np.clip(len(picture), _LEAST_PX, _MOST_PX))
    return Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC)


def _overlaid(picture: Pixels, contributed: NDArray[np.float64], strongest: float) -> Image.Image:
    """Each position of the map covers the part of the picture that it stands for; between them it is smooth."""
    grey = _resized(picture).convert("L")
    smooth = Image.fromarray(contributed.astype(np.float32)).resize(grey.size, Image.Resampling.BICUBIC)
    amount = np.clip(np.asarray(smooth) / max(strongest, 1e-9), -1, 1)[..., None]
    # The picture in pale grey, so that none of it is taken for a colour of the map; and seen through the colour.
    paper = 96 + 0.6 * np.asarray(grey, dtype=np.float64)[..., None]
    colour = np.where(amount > 0, _TOWARDS[1], _TOWARDS[0]) * (0.5 + 0.5 * paper / paper.max())
    cover = _STRONGEST * np.abs(amount)
    return Image.fromarray(np.round(np.clip(paper * (1 - cover) + colour * cover, 0, 255)).astype(np.uint8))


def _data_uri(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "WEBP", quality=_QUALITY, method=6)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


Maps = NDArray[np.float64]


def contributions(seen_through: keras.Model, pixels: Pixels) -> tuple[Maps, float]:
    """``(N, h, w)`` logits that each position of ``(N, H, W, 3)`` uint8 RGB pictures contributes, and the bias.

    ``seen_through`` comes from ``network.with_feature_maps``. Above 0 speaks for class 1, below for class 0.
    The mean over a map, plus the bias, is the picture's logit.
    """
    weights, bias = seen_through.get_layer("probability").get_weights()
    maps, _ = seen_through.predict(pixels, batch_size=8, verbose=0)  # (N, h, w, 1280)
    return (maps.astype(np.float64) @ weights.astype(np.float64))[..., 0], float(bias[0])
