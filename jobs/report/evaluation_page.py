"""``report.html``: the evaluation of a training run, as one HTML page that needs no knowledge of the field.

    render(facts) -> str        pure: the same facts give the same page

Every figure is the one in ``evaluation.json``. Curves and bins come from the same scores.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from jobs import html
from jobs.config import fixed_threshold
from jobs.data.dataset import describe_sources
from jobs.metrics import curves, threshold_rule, unsure_rule
from jobs.metrics.arrays import Classes, Scores
from jobs.metrics.learning_curve import Curve
from jobs.metrics.titles import title_of
from jobs.report import charts
from jobs.report.gallery import Gallery
from jobs.unsure_band import described

#: Rows in the table of quarantined files; quarantine.csv lists them all.
QUARANTINE_ROWS: Final = 50
#: Bars of the histogram of scores: wide enough for a telephone.
_BARS: Final = 20
#: A share: a smaller gain in accuracy is not worth collecting images for.
_HARDLY: Final = 0.005
#: The keys of evaluation.json that have a place of their own on the page.
_SHOWN_ELSEWHERE: Final = frozenset(
    {
        *("binary_classification_metrics", "per_class", "n", "threshold", "threshold_rule", "temperature"),
        *("quarantined", "model", "sources", "unsure"),
    }
)
#: A key of evaluation.json; the seconds of a step are below its title, which can hold a path.
_KEY: Final = re.compile(r"[a-z0-9_]+")
_MEANINGS: Final = {
    "accuracy": "share of the images that are classified correctly",
    "precision": "share of the images predicted as class 1 that are of class 1",
    "recall": "share of the images of class 1 that are predicted as class 1",
    "f1": "precision and recall in one figure",
    "auc": "probability that an image of class 1 has a higher score than one of class 0; 0.5 is guessing",
    "log_loss": "how wrong the scores are, confident mistakes above all; lower is better, 0.69 is guessing",
    "brier_score": "how wrong the scores are, on average; lower is better, 0.25 is guessing",
    "expected_calibration_error": "how far the scores are from being probabilities; lower is better, 0 is perfect",
}


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """Everything that the page is made of."""

    name: str
    version: str
    created_at: datetime
    labels: tuple[str, str]
    evaluation: dict[str, Any]  #: the content of evaluation.json
    truth: Classes  #: ``(N,)`` of the test images
    scores: Scores  #: ``(N,)`` of the same
    gallery: Gallery
    curve: Curve | None  #: None: too few training images
    quarantined: Sequence[tuple[str, str, str]]  #: (source_ref, error_code, error_message), as in quarantine.csv
    dataset_digest: str
    libraries: dict[str, str]  #: versions by name
    configuration: dict[str, Any]
    command: str  #: starts the same job again


def render(facts: TrainingFacts) -> str:
    """Renders the page."""
    return html.render(
        "evaluation_page.html.j2",
        facts=facts,
        view=_View(facts),
        charts=charts,
        title_of=title_of,
        meaning_of=meaning_of,
        describe_rule=describe_rule,
        described=described,
        rows_shown=QUARANTINE_ROWS,
    )


@dataclass(frozen=True)
class Matrix:
    """The confusion matrix: test images by true and predicted class."""

    cells: tuple[tuple[int, int], tuple[int, int]]  #: ``cells[true][predicted]``

    def images(self, label: int) -> int:
        """Returns the number of images of a class."""
        return sum(self.cells[label])

    def recall(self, label: int) -> float:
        """Returns the share of a class that is classified correctly."""
        return _share(self.cells[label][label], self.images(label))

    def precision(self, label: int) -> float:
        """Returns the share of the images predicted as a class that are of it; 0 if there are none, as scikit-learn."""
        return _share(self.cells[label][label], self.cells[0][label] + self.cells[1][label])

    def f1(self, label: int) -> float:
        """Returns the harmonic mean of precision and recall."""
        return _share(2 * self.precision(label) * self.recall(label), self.precision(label) + self.recall(label))

    @property
    def right(self) -> int:
        """The number of images that are classified correctly."""
        return self.cells[0][0] + self.cells[1][1]


class _View:
    """What the template derives from the facts."""

    def __init__(self, facts: TrainingFacts) -> None:
        self._facts = facts
        self.figures: dict[str, dict[str, Any]] = {
            name: figure
            for name, figure in facts.evaluation["binary_classification_metrics"].items()
            if "value" in figure
        }
        cells = facts.evaluation["binary_classification_metrics"]["confusion_matrix"]
        self.matrix = Matrix(((cells["0"]["0"], cells["0"]["1"]), (cells["1"]["0"], cells["1"]["1"])))
        self.threshold: float = facts.evaluation["threshold"]
        self.rule = threshold_rule.outcome(facts.evaluation)
        self.band = unsure_rule.of_evaluation(facts.evaluation)  #: None: no answer is unsure
        self.sources = describe_sources(facts.evaluation)

    @property
    def has_relative_paths(self) -> bool:
        """Whether the command names files by where it was run."""
        data, output = (self._facts.configuration.get(name, "/") for name in ("data", "output"))
        named = [*(data if isinstance(data, list) else [data]), output]
        return any("://" not in path and not path.startswith(("/", "~")) for path in named)

    @property
    def is_degenerate(self) -> bool:
        """Whether all test images are classified correctly, or none."""
        return self.figures["accuracy"]["value"] in (0.0, 1.0)

    @property
    def majority(self) -> int:
        """The class with more test images."""
        return int(self.matrix.images(1) > self.matrix.images(0))

    @property
    def reasons(self) -> list[tuple[str, int]]:
        """The number of quarantined files by error code, the most frequent first."""
        return Counter(code for _, code, _ in self._facts.quarantined).most_common()

    @property
    def prospects(self) -> str:
        """Whether more images would improve the accuracy: help, hardly, unknown, enough or none (no curve)."""
        curve = self._facts.curve
        if curve is None:
            return "none"
        low, high = curve.gain_interval_95
        if all(point.accuracy == 1.0 for point in curve.points[-2:]):
            return "enough"
        return "help" if low > 0 else "hardly" if high < _HARDLY else "unknown"

    @cached_property
    def bins(self) -> list[curves.Bin]:
        """The bins of the reliability diagram."""
        return curves.reliability(self._facts.truth, self._facts.scores)

    @cached_property
    def roc(self) -> curves.Points:
        """The ROC curve."""
        return curves.roc(self._facts.truth, self._facts.scores)

    @cached_property
    def precision_recall(self) -> curves.Points:
        """The precision-recall curve."""
        return curves.precision_recall(self._facts.truth, self._facts.scores)

    @cached_property
    def bars(self) -> curves.Bars:
        """The bars of the histogram of scores."""
        return curves.histogram(self._facts.truth, self._facts.scores, bins=_BARS)

    @property
    def curve_line(self) -> curves.Points:
        """The points of the learning curve."""
        return [(point.images, point.accuracy) for point in self._facts.curve.points] if self._facts.curve else []

    @property
    def details(self) -> list[tuple[str, list[tuple[str, object]]]]:
        """Everything else in the evaluation, as (name, [(path below it, value)]), so that new keys are shown too."""
        return [(name, _flat(value)) for name, value in self._facts.evaluation.items() if name not in _SHOWN_ELSEWHERE]


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _flat(value: object, path: str = "") -> list[tuple[str, object]]:
    if not isinstance(value, dict):
        return [(path, value)]
    titles = {name: title_of(name) if _KEY.fullmatch(name) else name for name in map(str, value)}  # or a path, as is
    return [row for name, below in value.items() for row in _flat(below, f"{path} {titles[str(name)]}".strip())]


def meaning_of(name: str) -> str:
    """Explains a metric; empty for an unknown one."""
    return _MEANINGS.get(name, "")


def describe_rule(text: str) -> str:
    """Explains how the threshold was chosen."""
    if fixed_threshold(text) is not None:
        return "a fixed value"
    if text == "max-f1":
        return "max-f1, the threshold with the highest F1 on the validation images"
    which = "lowest" if text.startswith("precision") else "highest"
    return f"{text}, the {which} threshold that achieves this on the validation images"
