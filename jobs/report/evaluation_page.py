"""``report.html``: one run of training, told to somebody who is no engineer, and worth a look for one who is.

    render(facts) -> str        pure: the same facts are the same page

Every figure is that of ``evaluation.json``; curves and bins come from the same scores.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from jobs.config import fixed_threshold
from jobs.metrics import curves
from jobs.metrics.arrays import Classes, Scores
from jobs.metrics.classification import wilson
from jobs.metrics.learning_curve import Curve
from jobs.report import charts, html
from jobs.report.gallery import Gallery

#: Rows of the table of quarantined files; quarantine.csv has them all.
QUARANTINE_ROWS: Final = 50
#: Percentage points: less is not worth collecting pictures for.
_HARDLY: Final = 0.005
#: Of evaluation.json, what the page tells in a place of its own.
_TOLD: Final = frozenset(
    {
        *("binary_classification_metrics", "per_class", "n", "threshold", "threshold_rule", "temperature"),
        *("quarantined", "model"),
    }
)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that a report is made of."""

    name: str
    version: str
    created_at: datetime
    labels: tuple[str, str]
    evaluation: dict[str, Any]  #: as evaluation.json has it
    truth: Classes  #: ``(N,)`` classes of the test images
    scores: Scores  #: ``(N,)`` P(class 1) of the same
    gallery: Gallery
    curve: Curve | None  #: None: too few images to learn from
    quarantined: Sequence[tuple[str, str, str]]  #: (source_ref, error_code, error_message), as quarantine.csv has it
    dataset_digest: str
    libraries: dict[str, str]  #: versions by name
    configuration: dict[str, Any]
    command: str  #: what starts the same job again


def render(facts: Facts) -> str:
    """The page."""
    return html.render(
        "evaluation_page.html.j2",
        facts=facts,
        view=_View(facts),
        charts=charts,
        title_of=title_of,
        meaning_of=meaning_of,
        describe_rule=describe_rule,
        rows_shown=QUARANTINE_ROWS,
    )


@dataclass(frozen=True)
class Matrix:
    """Test images by true class and class given."""

    cells: tuple[tuple[int, int], tuple[int, int]]  #: ``cells[true][given]``

    def images(self, label: int) -> int:
        """Of that class."""
        return sum(self.cells[label])

    def recall(self, label: int) -> float:
        """Share of a class that is told right."""
        return _share(self.cells[label][label], self.images(label))

    def precision(self, label: int) -> float:
        """Share of those told a class that are of it; 0 where none is, as scikit-learn has it."""
        return _share(self.cells[label][label], self.cells[0][label] + self.cells[1][label])

    def f1(self, label: int) -> float:
        """Harmonic mean of the two above."""
        return _share(2 * self.precision(label) * self.recall(label), self.precision(label) + self.recall(label))

    @property
    def right(self) -> int:
        """Images told right."""
        return self.cells[0][0] + self.cells[1][1]


class _View:
    """What the template asks of the facts."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self.figures: dict[str, dict[str, Any]] = {
            name: figure
            for name, figure in facts.evaluation["binary_classification_metrics"].items()
            if "value" in figure
        }
        cells = facts.evaluation["binary_classification_metrics"]["confusion_matrix"]
        self.matrix = Matrix(((cells["0"]["0"], cells["0"]["1"]), (cells["1"]["0"], cells["1"]["1"])))
        self.threshold: float = facts.evaluation["threshold"]

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """The bootstrap's; of no mistakes it draws none, ever, so Wilson's where all or nothing is right."""
        accuracy = self.figures["accuracy"]
        if self.is_degenerate:
            return wilson(accuracy["value"], self._facts.evaluation["n"])
        low, high = accuracy["interval_95"]
        return low, high

    @property
    def is_degenerate(self) -> bool:
        """All test images are told right, or none is."""
        return self.figures["accuracy"]["value"] in (0.0, 1.0)

    @property
    def majority(self) -> int:
        """The class with more test images."""
        return int(self.matrix.images(1) > self.matrix.images(0))

    @property
    def reasons(self) -> list[tuple[str, int]]:
        """Quarantined files by error code, the most frequent first."""
        return Counter(code for _, code, _ in self._facts.quarantined).most_common()

    @property
    def prospects(self) -> str:
        """What the learning curve says of more pictures: help, hardly, unknown, enough or none."""
        curve = self._facts.curve
        if curve is None:
            return "none"
        low, high = curve.gain_interval_95
        if all(point.accuracy == 1.0 for point in curve.points[-2:]):
            return "enough"
        return "help" if low > 0 else "hardly" if high < _HARDLY else "unknown"

    @cached_property
    def bins(self) -> list[curves.Bin]:
        """Of the reliability diagram."""
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
        """Of the histogram of scores."""
        return curves.histogram(self._facts.truth, self._facts.scores)

    @property
    def curve_line(self) -> curves.Points:
        """The learning curve."""
        return [(point.images, point.accuracy) for point in self._facts.curve.points] if self._facts.curve else []

    @property
    def details(self) -> list[tuple[str, list[tuple[str, object]]]]:
        """All else that the evaluation says, (name, [(path below it, value)]): whoever recorded it, it is shown."""
        return [(name, _flat(value)) for name, value in self._facts.evaluation.items() if name not in _TOLD]


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _flat(value: object, path: str = "") -> list[tuple[str, object]]:
    if not isinstance(value, dict):
        return [(path, value)]
    return [row for name, below in value.items() for row in _flat(below, f"{path}.{name}" if path else str(name))]


_MEANINGS: Final = {
    "accuracy": "images told right",
    "precision": "of those told class 1, how many are",
    "recall": "of class 1, how many are told so",
    "f1": "harmonic mean of precision and recall",
    "auc": "chance that an image of class 1 has a higher score than one of class 0; 0.5 is guessing",
    "log_loss": "how surprising the classes are, given the scores (nats an image); lower is better, 0.69 is guessing",
    "brier_score": "mean squared distance of score and class; lower is better, 0.25 is guessing",
    "expected_calibration_error": "mean distance between a score and what comes true; lower is better",
}
_TITLES: Final = {"f1": "F1", "auc": "AUC", "brier_score": "Brier score"}


def title_of(name: str) -> str:
    """A name of the file as people write it: ``log_loss`` is log loss."""
    return _TITLES.get(name, name.replace("_", " ").replace(".", " "))


def meaning_of(name: str) -> str:
    """What a figure says; empty for one that is new here."""
    return _MEANINGS.get(name, "")


def describe_rule(text: str) -> str:
    """Where a threshold comes from."""
    if fixed_threshold(text) is not None:
        return "a number that was given"
    if text == "max-f1":
        return "max-f1, where F1 is highest on the validation images"
    which = "lowest" if text.startswith("precision") else "highest"
    return f"{text}, the {which} that keeps this on the validation images"
