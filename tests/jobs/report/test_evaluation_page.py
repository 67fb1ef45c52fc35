"""The training report's promises: its figures are the evaluation's, and no name can break it."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from jobs.metrics.classification import evaluate
from jobs.metrics.learning_curve import Curve, Point
from jobs.metrics.unsure_rule import BandFigures
from jobs.report.evaluation_page import QUARANTINE_ROWS, TrainingFacts, render
from jobs.report.gallery import EACH, Answers, Choice, Gallery, choose
from tests.jobs.report.strict_html import (
    HOSTILE,
    Page,
    assert_axes_have_numbers,
    assert_only_text,
    assert_self_contained,
)
from worker.errors import ErrorCode


def _gallery(answers: Answers, *, side_px: int = 32) -> Gallery:
    """A gallery of noise, with at most one image of each kind."""
    choice = choose(answers)
    choice = Choice(choice.mistakes[:1], choice.uncertain[:1])
    random = np.random.default_rng(0)
    count = len(choice.mistakes) + len(choice.uncertain)
    pixels = random.integers(0, 256, (count, side_px, side_px, 3), dtype=np.uint8)
    return Gallery.of(choice, answers, pixels, random.normal(0, 3, (count, 5, 5)))


def _facts(
    truth: list[int] | np.ndarray, scores: list[float] | np.ndarray, *, rule: str = "0.5", threshold: float = 0.5
) -> TrainingFacts:
    classes, given = np.asarray(truth, dtype=np.int64), np.asarray(scores, dtype=np.float64)
    answers = Answers([f"pets/{i}.jpg" for i in range(len(classes))], classes, given, threshold)
    return TrainingFacts(
        name="pets",
        version="v1",
        created_at=datetime(2026, 11, 24, 8, 0, tzinfo=UTC),
        labels=("cats", "dogs"),
        evaluation=evaluate(classes, given, threshold=threshold)
        | {"threshold_rule": rule, "temperature": 1.25, "images": {"train": 80, "test": len(classes)}, "seconds": 12.5},
        truth=classes,
        scores=given,
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


def _ordinary() -> TrainingFacts:
    random = np.random.default_rng(1)
    truth = random.integers(0, 2, 200)
    return _facts(truth, np.clip(truth * 0.6 + 0.2 + random.normal(0, 0.25, 200), 0, 1))


@pytest.fixture(scope="module")
def ordinary() -> TrainingFacts:
    return _ordinary()


@pytest.fixture(scope="module")
def page(ordinary: TrainingFacts) -> Page:
    return Page(render(ordinary))


def _without_mistakes(count: int) -> TrainingFacts:
    return _facts([0, 1] * count, [0.1, 0.9] * count)


#: Made when a test asks for one: each takes a tenth of a second.
EDGES: dict[str, Callable[[], TrainingFacts]] = {
    "perfect": lambda: _without_mistakes(20),
    "one mistake": lambda: _facts([0, 1] * 20, [0.1, 0.9] * 19 + [0.1, 0.2]),
    "all wrong": lambda: _facts([0, 1] * 20, [0.9, 0.1] * 20),
    "constant scores": lambda: _facts([0, 1] * 20, [0.3] * 40),
    "four images": lambda: _facts([0, 0, 1, 1], [0.2, 0.6, 0.4, 0.9]),
    "scores of 0 and 1": lambda: _facts([0, 1] * 20, [0.0, 1.0] * 20),
    "threshold 0": lambda: _facts([0, 1] * 20, [0.1, 0.9] * 20, rule="0", threshold=0.0),
    "threshold 1": lambda: _facts([0, 1] * 20, [0.1, 0.9] * 20, rule="1", threshold=1.0),
    "one of a class": lambda: _facts([0] * 39 + [1], np.linspace(0, 1, 40)),
    "no learning curve": lambda: replace(_without_mistakes(5), curve=None),
    "right to left": lambda: replace(_without_mistakes(5), labels=("חתולים", "كلاب\u202e")),
    "long names": lambda: replace(_without_mistakes(5), labels=("c" * 128, "d" * 128), name="n" * 64),
    "not UTF-8": lambda: replace(
        _without_mistakes(5), quarantined=[("cats/\udcff\udcfe.jpg", "damaged", "breaks off"), ("\n\x01", "empty", "")]
    ),
}


def _percent(text: str) -> str:
    """The text with percentages as Python formats them."""
    return text.replace("\u202f", "").replace(" %", "%")


def test_every_figure_is_that_of_the_evaluation(ordinary: TrainingFacts, page: Page) -> None:
    """Each value and both ends of its interval, digit for digit, and the four counts."""
    values = [float(element.attributes["value"]) for element in page.all("data")]
    figures: dict[str, Any] = ordinary.evaluation["binary_classification_metrics"]
    matrix = figures["confusion_matrix"]
    expected = [float(matrix[true][given]) for true in "01" for given in "01"]
    for figure in figures.values():
        if "value" in figure:
            expected += [figure["value"], *figure["interval_95"]]
    assert values == [*expected, ordinary.evaluation["threshold"]]


def test_the_visible_figures_are_rounded_correctly(page: Page) -> None:
    """The text of a figure is its machine-readable value to four decimals."""
    *shown, threshold = [(float(element.attributes["value"]), element.text) for element in page.all("data")]
    assert threshold == (0.5, "0.5")
    assert [text for _, text in shown] == [f"{v:.4f}" if "." in text else f"{v:.0f}" for v, text in shown]


def test_the_headline_gives_the_accuracy_and_its_interval(ordinary: TrainingFacts, page: Page) -> None:
    """As a sentence, with the number of images."""
    accuracy = ordinary.evaluation["binary_classification_metrics"]["accuracy"]
    right = round(200 * accuracy["value"])
    low, high = accuracy["interval_95"]
    text = _percent(page.text)
    assert f"{right} of 200 unseen test images are classified correctly: {accuracy['value']:.1%}" in text
    assert f"Of other images like these, the model likely classifies {low:.1%} to {high:.1%} correctly 1." in text
    assert text.rpartition("Footnotes ")[2].startswith("The 95% confidence interval")


def test_everything_in_the_evaluation_is_shown(page: Page) -> None:
    """Any other key, the digest, the command, the configuration and the versions."""
    for text in ("train 80 · test 200", "seconds 12.5", "ab" * 32, "twofold train run --data pets --output models"):
        assert text in page.text
    assert re.search(r"temperature \d+ 1\.25", page.text)
    assert "keras 3.15.1" in page.text
    assert "epochs 20" in page.text


def test_a_path_that_was_recorded_is_shown_as_it_is() -> None:
    """A step of the job has the name of its folder, whose dots are no separators."""
    facts = _ordinary()
    seconds = {"Listing ../my_pets.v2": 0.01, "Training the head": 0.5}
    page = Page(render(replace(facts, evaluation=facts.evaluation | {"seconds": seconds})))
    assert "seconds Listing ../my_pets.v2 0.01 · Training the head 0.5" in page.text


@pytest.mark.parametrize(
    ("data", "is_said"), [("pets", True), ("../pets", True), (["/pets", "more.csv"], True), ("/pets", False)]
)
def test_where_the_paths_of_the_command_begin_is_said_if_they_are_relative(
    ordinary: TrainingFacts, data: str | list[str], *, is_said: bool
) -> None:
    """The folder itself is nobody else's business."""
    configuration = {"data": data, "output": "s3://shelter/models"}
    page = Page(render(replace(ordinary, configuration=configuration)))
    assert ("Paths without a / in front begin in the folder where the job was run." in page.text) is is_said


def test_the_numbers_of_the_learning_curve_never_lie_on_its_axis() -> None:
    """They would look struck through. Where there is no room below, they are above."""
    points = [Point(100, 5, 0.558, (0.49, 0.62)), Point(200, 1, 0.9, (0.85, 0.95))]
    html = render(replace(_ordinary(), curve=Curve(points, 60, 0.1, (0.05, 0.2))))
    chart = html.partition("Learning curve.")[2].partition("</svg>")[0]
    heights = {
        text: float(y)
        for y, text in re.findall(r'<text class="text halo mid" x="[\d.]+" y="([\d.]+)">([\d.]+)<', chart)
    }
    axis = max(float(y) for y in re.findall(r'class="base"[^>]* y1="([\d.]+)"', chart))
    assert set(heights) == {"55.8", "90.0"}
    assert all(y < axis - 4 for y in heights.values()), (heights, axis)


def test_the_metrics_of_each_class_are_those_of_scikit_learn(ordinary: TrainingFacts, page: Page) -> None:
    """Precision, recall, F1 and the number of images."""
    given = ordinary.scores >= 0.5
    columns = precision_recall_fscore_support(ordinary.truth, given, labels=[0, 1])
    for label, (precision, recall, f1, images) in zip(("cats", "dogs"), zip(*columns, strict=True), strict=True):
        assert f"{label} {images} {recall:.1%} {precision:.1%} {f1:.1%}" in _percent(page.text)


@pytest.mark.parametrize("name", EDGES)
def test_unusual_evaluations_have_a_sound_page(name: str) -> None:
    """It is well-formed and UTF-8, and no figure and no coordinate is missing."""
    facts = EDGES[name]()
    html = render(facts)
    html.encode()
    page = Page(html)
    assert re.search(r"\b(nan|None|inf|Undefined)\b", page.text) is None
    numbers = [e.attributes.get(a, "0") for e in page.elements for a in ("x", "y", "x1", "y2", "width", "height", "cy")]
    assert all(0 <= float(number) <= 450 for number in numbers)
    assert sum(e.attributes.get("role") == "img" for e in page.all("svg")) == (5 if facts.curve is None else 6)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("perfect", "All 40 unseen test images are classified correctly."),
        ("perfect", "no mistakes among them does not mean no mistakes at all"),
        ("perfect", "Of other images like these, the model likely classifies 91.2% to 100% correctly"),
        ("perfect", "recall is 0 or 1, a bootstrap has nothing to draw from, and the interval is Wilson\u2019s"),
        ("perfect", "There are no mistakes to show."),
        ("one mistake", "The only mistake. Look for wrong labels here"),
        ("all wrong", "0 of 40 unseen test images are classified correctly: 0%."),
        ("all wrong", "Of other images like these, the model likely classifies 0% to 8.8% correctly"),
        ("four images", "With so few test images, every figure on this page is uncertain"),
        ("one of a class", "Always answering cats would be correct 97.5% of the time."),
        ("no learning curve", "There are too few training images for a learning curve."),
        ("perfect", "No files: all of them could be read."),
        ("right to left", r"predicted כלבים".replace("כלבים", "كلاب\\u202e")),
        ("not UTF-8", r"cats/\udcff\udcfe.jpg"),
        ("not UTF-8", r"\n\x01"),
    ],
)
def test_unusual_evaluations_are_explained(name: str, shown: str) -> None:
    """The page says what an empty chart means."""
    assert shown in _percent(Page(render(EDGES[name]())).text)


#: 20 of the 22 images that are called dogs are dogs, and all dogs are found.
_TRUTH, _SCORES = [0] * 40 + [1] * 20, [0.9] * 2 + [0.1] * 38 + [0.9] * 20


@pytest.mark.parametrize(
    ("rule", "found", "said"),
    [
        ("precision>=0.99", "0.909", "The test images do not bear it out: asked for a precision of at least 0.99;"),
        ("precision>=0.9", "0.909", "You asked for a precision of at least 0.9;"),
        ("recall>=1.0", "1.000", "You asked for a recall of at least 1;"),
    ],
)
def test_a_rule_that_the_test_set_does_not_bear_out_is_said_in_the_summary(rule: str, found: str, said: str) -> None:
    """With what was asked for, what the test images show, and its interval. So is one that it does bear out."""
    facts = _facts(_TRUTH, _SCORES, rule=rule)
    page = Page(render(facts))
    low, high = facts.evaluation["binary_classification_metrics"][rule.partition(">=")[0]]["interval_95"]
    summary = page.text.partition("Left out")[0]
    assert f"{said} on the test images {found}, 95 % interval {low:.3f} to {high:.3f} 2." in summary
    advice = "That may be chance. To be safer, ask for more (precision>=0.995), or keep more images for validation"
    assert (advice in summary) is ("not bear it out" in said)
    called, all_found = "Precision: of the images that are called dogs", "Recall: of all dogs, the share that is found."
    assert (called in page.text, all_found in page.text) == (rule.startswith("precision"), rule.startswith("recall"))


def test_on_a_telephone_each_figure_of_a_class_has_its_name_next_to_it() -> None:
    """There the head of the table is hidden, because its five columns do not fit beside each other."""
    html = render(_facts(_TRUTH, _SCORES))
    named = re.findall('data-label="([^"]+)"', html.partition("Each class by itself")[2].partition("</table>")[0])
    assert named == ["images", "found", "right when predicted", "both in one figure"] * 2
    assert "content: attr(data-label)" in html


@pytest.mark.parametrize("rule", ["0.5", "max-f1"])
def test_a_threshold_without_a_bound_has_nothing_to_bear_out(rule: str) -> None:
    """A number, or the best F1, promises nothing about other images."""
    assert "asked for" not in Page(render(_facts(_TRUTH, _SCORES, rule=rule))).text


@pytest.mark.parametrize(
    ("band", "said"),
    [
        (
            (0.05, 0.95),
            "Scores from 0.05 to below 0.95 mean unsure: 60 of the 60 images, 100% (interval 94.0% to 100% 1).",
        ),
        ((0.5, 0.9), "Scores from 0.5 to below 0.9 mean unsure: 0 of the 60 images, 0%"),
        ((0.5, 0.9), "Of the 60, 96.7% are classified correctly (interval 88.6% to 99.1%): 100% of those called cats,"),
        ((0.5, 0.5), "No score means unsure: 0 of the 60 images"),
        ((0.05, 0.95), "No test image is outside of that band."),
        ((0.05, 0.5), "mean unsure: 38 of the 60 images, 63.3%"),
        ((0.05, 0.5), "none is called cats, 90.9% of those called dogs."),
        (
            (0.5, 0.5),
            "The test images do not bear it out: asked for precision>=0.95 for both; on the test images 0.909",
        ),
    ],
)
def test_the_summary_says_what_a_band_of_unsure_scores_does(band: tuple[float, float], said: str) -> None:
    """The share that is unsure and how many of the others are right, with intervals; and whether the rule holds."""
    plain = _facts(_TRUTH, _SCORES)
    figures = BandFigures.of(plain.truth, plain.scores, threshold=0.5, band=band, rule="precision>=0.95 for both")
    page = Page(render(replace(plain, evaluation=plain.evaluation | {"unsure": figures.as_json(plain.labels)})))
    assert said in _percent(page.text.partition("Left out")[0])
    assert "Wilson\u2019s" in page.text
    zones = [e for e in page.all("rect") if e.attributes.get("class") == "zone"]
    assert len(zones) == (band[0] < band[1])
    assert "unsure" not in render(plain)


def test_terms_are_in_the_footnotes_and_plain_words_on_the_page(page: Page) -> None:
    """Except in the table of all metrics, which is for those who look for a term. Each footnote is referred to."""
    text, _, notes = page.text.rpartition("Footnotes")
    before, _, after = text.partition("All metrics Measured")
    assert before
    plain = before + after.partition("Files left out")[2]
    terms = ("confusion matrix", "recall", "F1", "class activation map", "logit", "reliability diagram", "ROC", "AUC")
    for term in (*terms, "precision-recall", "learning curve", "square root", "Wilson", "bootstrap"):
        assert term in notes
        assert re.search(rf"\b{term}\b", plain.partition("Run it again twofold")[0]) is None, term
    ids = {e.attributes["id"] for e in page.elements if "id" in e.attributes}
    names = {name.removeprefix("note-") for name in ids if name.startswith("note-")}
    assert len(names) == 12
    assert {f"see-{name}" for name in names} <= ids


def test_every_axis_of_the_training_report_has_numbers(page: Page) -> None:
    """Beside it and below it, also that of the smallest chart."""
    assert_axes_have_numbers(page)
    assert len(list(page.all("svg"))) == 6


def test_captions_are_file_names_and_no_digest_is_in_sight(page: Page) -> None:
    """The digest of the images is in the part that one opens to see everything."""
    captions = [e for e in page.all("bdi") if e.attributes.get("class") == "caption"]
    assert {re.fullmatch(r"\d+\.jpg", e.text) is not None for e in captions} == {True}
    assert {e.attributes["title"] for e in captions} == {f"pets/{e.text}" for e in captions}
    assert re.search("[0-9a-f]{32}", page.html.partition("Everything else that was recorded")[0]) is None


@pytest.mark.parametrize(
    ("curve", "shown"),
    [
        (_curve(gain=0.02, low=0.01, high=0.03), "More images would probably help further"),
        (_curve(gain=0.001, low=-0.003, high=0.004), "would hardly help"),
        (_curve(gain=0.01, low=-0.01, high=0.03), "too few to say whether more would help"),
        (_curve(gain=0.0, low=-0.02, high=0.02, accuracy=1.0), "all of them are already classified correctly"),
    ],
    ids=["help", "hardly", "unknown", "enough"],
)
def test_the_learning_curve_is_explained(curve: Curve, shown: str) -> None:
    """More images would help, would hardly help, or it cannot be said."""
    assert shown in Page(render(replace(EDGES["perfect"](), curve=curve))).text


@pytest.mark.parametrize(("text", "shown"), HOSTILE)
def test_no_name_can_break_out_of_the_training_report(text: str, shown: str) -> None:
    """Labels, file names, messages and settings are text, and what cannot be seen in them is written out."""
    facts = EDGES["one mistake"]()
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


def test_every_chart_and_image_has_a_text_alternative(page: Page) -> None:
    """For readers who cannot see it."""
    assert all(len(e.attributes["aria-label"]) > 20 for e in page.all("svg"))
    assert all(e.attributes["alt"] for e in page.all("img"))


def test_ten_thousand_files_left_out_are_counted_and_some_are_listed() -> None:
    """By reason, the most frequent first. The page stays small and names the file that lists them all."""
    reasons = [ErrorCode.DAMAGED] * 9_000 + [ErrorCode.EMPTY] * 1_000
    left_out = [(f"cats/{i}.jpg", reason.value, "breaks off") for i, reason in enumerate(reasons)]
    html = render(replace(EDGES["perfect"](), quarantined=left_out))
    page = Page(html)
    assert "10,000 files were used neither for training nor for testing: 9,000 damaged, 1,000 empty." in page.text
    assert f"The first {QUARANTINE_ROWS} of 10,000; quarantine.csv lists them all." in page.text
    assert html.count("breaks off") == QUARANTINE_ROWS
    assert len(html) < 250_000


def test_a_page_with_every_image_stays_below_a_megabyte_and_a_half() -> None:
    """Even if all 24 are noise, which no codec can compress."""
    facts = _ordinary()
    answers = Answers([str(i) for i in range(200)], facts.truth, facts.scores, 0.5)
    noise = _gallery(answers, side_px=224)
    gallery = replace(noise, mistakes=noise.mistakes * EACH, uncertain=noise.uncertain * EACH)
    assert (len(gallery.mistakes), len(gallery.uncertain)) == (EACH, EACH)
    assert len(render(replace(facts, gallery=gallery))) < 1_500_000


def test_the_same_facts_give_the_same_page(ordinary: TrainingFacts) -> None:
    """The page depends on no clock and no random number, so two runs of a job write the same report."""
    assert render(ordinary) == render(ordinary)


def test_a_bundle_contains_its_report(bundle: Path) -> None:
    """With the figures of its own evaluation and images of its own test set."""
    page = Page((bundle / "report.html").read_text(encoding="utf-8"))
    evaluation = (bundle / "evaluation.json").read_text()
    assert all(e.attributes["value"] in evaluation for e in page.all("data"))
    assert "digits" in page.text
    assert len(list(page.all("img"))) >= 24
