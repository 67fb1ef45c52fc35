"""The report's promises: its figures are the evaluation's, it fetches and runs nothing, and no name can break it."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from jobs.metrics.classification import evaluate
from jobs.metrics.learning_curve import Curve, Point
from jobs.report.evaluation_page import QUARANTINE_ROWS, Facts, render
from jobs.report.gallery import EACH, Answers, Choice, Gallery, choose, hang
from tests.jobs.report.strict_html import HOSTILE, Page, assert_only_text, assert_self_contained
from worker.errors import ErrorCode


def _gallery(answers: Answers, *, side_px: int = 32, most: int = 1) -> Gallery:
    choice = choose(answers)
    choice = Choice(choice.mistakes[:most], choice.uncertain[:most])
    random = np.random.default_rng(0)
    count = len(choice.mistakes) + len(choice.uncertain)
    pixels = random.integers(0, 256, (count, side_px, side_px, 3), dtype=np.uint8)
    return hang(choice, answers, pixels, random.normal(0, 3, (count, 5, 5)))


def _facts(
    truth: list[int] | np.ndarray, scores: list[float] | np.ndarray, *, rule: str = "0.5", threshold: float = 0.5
) -> Facts:
    true, told = np.asarray(truth, dtype=np.int64), np.asarray(scores, dtype=np.float64)
    answers = Answers([f"pets/{i}.jpg" for i in range(len(true))], true, told, threshold)
    return Facts(
        name="pets",
        version="v1",
        created_at=datetime(2026, 11, 24, 8, 0, tzinfo=UTC),
        labels=("cats", "dogs"),
        evaluation=evaluate(true, told, threshold=threshold)
        | {"threshold_rule": rule, "temperature": 1.25, "images": {"train": 80, "test": len(true)}, "seconds": 12.5},
        truth=true,
        scores=told,
        gallery=_gallery(answers),
        curve=_curve(gain=0.02, low=0.01, high=0.03),
        quarantined=[],
        dataset_digest="ab" * 32,
        libraries={"keras": "3.15.1"},
        configuration={"epochs": 20, "weights": "auto"},
        command="twofold train run --data pets --output models",
    )


def _curve(*, gain: float, low: float, high: float, accuracy: float = 0.96) -> Curve:
    points = [Point(100, 5, accuracy - gain, (0.90, 0.97)), Point(200, 1, accuracy, (0.93, 0.98))]
    return Curve(points, 400, gain, (low, high))


def _ordinary() -> Facts:
    random = np.random.default_rng(1)
    truth = random.integers(0, 2, 200)
    return _facts(truth, np.clip(truth * 0.6 + 0.2 + random.normal(0, 0.25, 200), 0, 1))


@pytest.fixture(scope="module")
def ordinary() -> Facts:
    return _ordinary()


@pytest.fixture(scope="module")
def page(ordinary: Facts) -> Page:
    return Page(render(ordinary))


def _without_mistakes(count: int) -> Facts:
    return _facts([0, 1] * count, [0.1, 0.9] * count)


EDGES: dict[str, Facts] = {
    "perfect": _without_mistakes(20),
    "one mistake": _facts([0, 1] * 20, [0.1, 0.9] * 19 + [0.1, 0.2]),
    "all wrong": _facts([0, 1] * 20, [0.9, 0.1] * 20),
    "constant scores": _facts([0, 1] * 20, [0.3] * 40),
    "four images": _facts([0, 0, 1, 1], [0.2, 0.6, 0.4, 0.9]),
    "scores of 0 and 1": _facts([0, 1] * 20, [0.0, 1.0] * 20),
    "threshold 0": _facts([0, 1] * 20, [0.1, 0.9] * 20, rule="0", threshold=0.0),
    "threshold 1": _facts([0, 1] * 20, [0.1, 0.9] * 20, rule="1", threshold=1.0),
    "one of a class": _facts([0] * 39 + [1], np.linspace(0, 1, 40)),
    "no learning curve": replace(_without_mistakes(5), curve=None),
    "right to left": replace(_without_mistakes(5), labels=("חתולים", "كلاب\u202e")),
    "long names": replace(_without_mistakes(5), labels=("c" * 128, "d" * 128), name="n" * 64),
    "a name that is no UTF-8": replace(
        _without_mistakes(5), quarantined=[("cats/\udcff\udcfe.jpg", "damaged", "breaks off"), ("\n\x01", "empty", "")]
    ),
}


def test_every_figure_is_that_of_the_evaluation(ordinary: Facts, page: Page) -> None:
    """Value and both ends of the interval, digit for digit, and the four counts."""
    values = [float(element.attributes["value"]) for element in page.all("data")]
    figures: dict[str, Any] = ordinary.evaluation["binary_classification_metrics"]
    matrix = figures["confusion_matrix"]
    expected = [float(matrix[true][given]) for true in "01" for given in "01"]
    for figure in figures.values():
        if "value" in figure:
            expected += [figure["value"], *figure["interval_95"]]
    assert values == [*expected, ordinary.evaluation["threshold"]]


def test_a_rounded_figure_is_the_figure(page: Page) -> None:
    """What people read is what the page's own data says, to four decimals."""
    *shown, threshold = [(float(element.attributes["value"]), element.text) for element in page.all("data")]
    assert threshold == (0.5, "0.5")
    assert [text for _, text in shown] == [f"{v:.4f}" if "." in text else f"{v:.0f}" for v, text in shown]


def test_the_headline_says_how_many_and_how_sure(ordinary: Facts, page: Page) -> None:
    """In words, with the interval."""
    accuracy = ordinary.evaluation["binary_classification_metrics"]["accuracy"]
    right = round(200 * accuracy["value"])
    low, high = accuracy["interval_95"]
    assert f"Of 200 images it had never seen, {right} are told right: {accuracy['value']:.1%}" in page.text.replace(
        " %", "%"
    )
    assert f"between {low:.1%} and {high:.1%} would be told right" in page.text.replace(" %", "%")


def test_what_is_recorded_is_shown(page: Page) -> None:
    """Whatever else the evaluation holds, the digest, the command, the configuration and the versions."""
    for text in ("train 80 · test 200", "seconds 12.5", "ab" * 32, "twofold train run --data pets --output models"):
        assert text in page.text
    assert re.search(r"temperature 1\.25", page.text)
    assert "keras 3.15.1" in page.text
    assert "epochs 20" in page.text


def test_class_by_class_is_as_scikit_learn_has_it(ordinary: Facts, page: Page) -> None:
    """Precision, recall and F1 of both classes, and how many images each has."""
    given = ordinary.scores >= 0.5
    columns = precision_recall_fscore_support(ordinary.truth, given, labels=[0, 1])
    for label, (precision, recall, f1, images) in zip(("cats", "dogs"), zip(*columns, strict=True), strict=True):
        assert f"{label} {images} {recall:.1%} {precision:.1%} {f1:.1%}" in page.text.replace("\u202f", "").replace(
            " %", "%"
        )


@pytest.mark.parametrize("name", EDGES)
def test_odd_facts_make_a_sound_page(name: str) -> None:
    """It is well-formed, UTF-8, and no figure and no coordinate is missing."""
    html = render(EDGES[name])
    html.encode()
    page = Page(html)
    assert re.search(r"\b(nan|None|inf|Undefined)\b", page.text) is None
    numbers = [e.attributes.get(a, "0") for e in page.elements for a in ("x", "y", "x1", "y2", "width", "height", "cy")]
    assert all(0 <= float(number) <= 450 for number in numbers)
    assert sum(e.attributes.get("role") == "img" for e in page.all("svg")) == (5 if EDGES[name].curve is None else 6)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("perfect", "All 40 test images, which it had never seen, are told right."),
        ("perfect", "no mistake in a sample is no promise of none: of very many such images, between 91.2 % and 100 %"),
        ("perfect", "There are no mistakes to show."),
        ("one mistake", "The one mistake, the most confident first."),
        ("all wrong", "Of 40 images it had never seen, 0 are told right: 0 %."),
        ("all wrong", "between 0 % and 8.8 % would be told right"),
        ("four images", "With so few test images no figure on this page is sharp"),
        ("one of a class", "Always answering cats would be right 97.5 % of the time."),
        ("no learning curve", "There are too few training images for a learning curve."),
        ("perfect", "No file: every one could be read."),
        ("right to left", r"are כלבים".replace("כלבים", "كلاب\\u202e")),
        ("a name that is no UTF-8", r"cats/\udcff\udcfe.jpg"),
        ("a name that is no UTF-8", r"\n\x01"),
    ],
)
def test_odd_facts_are_told_in_words(name: str, said: str) -> None:
    """Nobody has to guess what an empty chart means."""
    assert said in Page(render(EDGES[name])).text.replace("\u202f", " ")


@pytest.mark.parametrize(
    ("curve", "said"),
    [
        (_curve(gain=0.02, low=0.01, high=0.03), "More pictures would probably help again"),
        (_curve(gain=0.001, low=-0.003, high=0.004), "would hardly help"),
        (_curve(gain=0.01, low=-0.01, high=0.03), "too few to tell whether more would help"),
        (_curve(gain=0.0, low=-0.02, high=0.02, accuracy=1.0), "all of them are told right"),
    ],
)
def test_the_learning_curve_is_told_in_a_sentence(curve: Curve, said: str) -> None:
    """Whether more pictures would help, would not, or cannot be told."""
    assert said in Page(render(replace(EDGES["perfect"], curve=curve))).text


@pytest.mark.parametrize(("text", "shown"), HOSTILE)
def test_no_name_can_break_out_of_the_training_report(text: str, shown: str) -> None:
    """Labels, file names, messages and settings are text, and what cannot be seen in them is written out."""
    facts = EDGES["one mistake"]
    shots = [replace(shot, ref=text) for shot in facts.gallery.mistakes]
    hostile = Page(
        render(
            replace(
                facts,
                name=text,
                version=text,
                labels=(text, text[::-1]),
                gallery=replace(facts.gallery, mistakes=shots),
                quarantined=[(text, text, text)],
                evaluation=facts.evaluation | {"hardware": text, text: {text: text}},
                libraries={text: text},
                configuration={text: text},
                command=text,
                dataset_digest=text,
            )
        )
    )
    sound = Page(render(replace(facts, quarantined=[("a", "b", "c")])))
    assert_only_text(hostile, sound)
    assert hostile.text.count(shown) > 10


def test_the_training_report_loads_nothing_and_runs_nothing(page: Page) -> None:
    """Its links are citations to follow or places on the page."""
    citations = frozenset({"https://arxiv.org/abs/1706.04599", "https://arxiv.org/abs/1512.04150"})
    assert_self_contained(page, citations=citations)


def test_every_chart_and_picture_has_words(page: Page) -> None:
    """For who cannot see it."""
    assert all(len(e.attributes["aria-label"]) > 20 for e in page.all("svg"))
    assert all(e.attributes["alt"] for e in page.all("img"))


def test_ten_thousand_files_left_out_are_counted_and_some_are_listed() -> None:
    """By reason, the most frequent first; the page stays small and says where the rest is."""
    reasons = [ErrorCode.DAMAGED] * 9_000 + [ErrorCode.EMPTY] * 1_000
    left_out = [(f"cats/{i}.jpg", reason.value, "breaks off") for i, reason in enumerate(reasons)]
    html = render(replace(EDGES["perfect"], quarantined=left_out))
    page = Page(html)
    assert "10,000 files were neither learned from nor tested with: 9,000 damaged, 1,000 empty." in page.text
    assert f"The first {QUARANTINE_ROWS} of 10,000; quarantine.csv has them all." in page.text
    assert html.count("breaks off") == QUARANTINE_ROWS
    assert len(html) < 250_000


def test_a_page_with_every_picture_stays_below_a_megabyte_and_a_half() -> None:
    """Even if all 24 are noise, which no codec can make small."""
    facts = _ordinary()
    answers = Answers([str(i) for i in range(200)], facts.truth, facts.scores, 0.5)
    gallery = _gallery(answers, side_px=224, most=EACH)
    assert (len(gallery.mistakes), len(gallery.uncertain)) == (EACH, EACH)
    assert len(render(replace(facts, gallery=gallery))) < 1_500_000


def test_the_same_facts_are_the_same_page(ordinary: Facts) -> None:
    """No time, no chance: two runs of a job write the same report."""
    assert render(ordinary) == render(ordinary)


def test_a_bundle_holds_its_report(bundle: Path) -> None:
    """With the figures of its own evaluation, and pictures of its own test images."""
    page = Page((bundle / "report.html").read_text(encoding="utf-8"))
    evaluation = (bundle / "evaluation.json").read_text()
    assert all(e.attributes["value"] in evaluation for e in page.all("data"))
    assert "digits" in page.text
    assert len(list(page.all("img"))) >= 24
