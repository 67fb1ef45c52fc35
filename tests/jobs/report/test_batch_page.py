"""The batch report's promises: it counts every row, loads and runs nothing, and no name can break it."""

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from jobs import html
from jobs.batch.results import Line
from jobs.metrics.unsure_rule import BandFigures
from jobs.report.batch_page import (
    ADVICE,
    EACH,
    EXAMPLES,
    BatchFacts,
    LabelImages,
    RowSummary,
    Thumbnail,
    examples,
    render,
)
from jobs.wording import program
from tests.conftest import REPOSITORY
from tests.jobs.report.strict_html import (
    HOSTILE,
    Page,
    assert_axes_have_numbers,
    assert_only_text,
    assert_self_contained,
)
from worker.contract import Job, NamedFiles, PredictionRow
from worker.errors import ErrorCode, Reject
from worker.predictions import Rule

RULE = Rule(labels=("cats", "dogs"), threshold=0.5, model_version="v1")
DAMAGED = Reject(ErrorCode.DAMAGED, "breaks off")
PIXEL = "data:image/jpeg;base64,AA=="


def _rows(scores: Sequence[float | None], *, rule: Rule = RULE, ref: str = "s3://a-bucket/pets/{}.jpg") -> RowSummary:
    """A summary of these scores; None is a damaged image."""
    rows = RowSummary()
    rows.add(
        Line(
            rule.failed(number, ref.replace("{}", str(number)), DAMAGED)
            if score is None
            else rule.scored(number, ref.replace("{}", str(number)), score),
            {},
        )
        for number, score in enumerate(scores)
    )
    return rows


def _facts(rows: RowSummary, *, images: int = 6, source: str = "photos") -> BatchFacts:
    def shown(chosen: list[PredictionRow]) -> list[Thumbnail]:
        return [Thumbnail(row, PIXEL) for row in chosen]

    return BatchFacts(
        job=Job(
            job_id="june",
            created_at=datetime(2026, 11, 24, 8, 0, tzinfo=UTC),
            sources=(source,),
            digest="0" * 64,
            images=images,
            output_uri="s3://a-bucket/predictions/",
        ),
        rows=rows,
        images=[LabelImages(name, *map(shown, examples(rows, name))) for name in rows.labels],
        test_scores=np.array([0.1, 0.2, 0.9]),
        worker_s=1.5,
    )


SCORES = [0.1, 0.45, 0.9, 0.7, 1.0, None]


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render(_facts(_rows(SCORES))))


def test_every_row_is_counted(page: Page) -> None:
    """By label, and by error code with advice and examples."""
    text = page.text.replace("\u202f", " ")
    assert "images requested 6" in text
    assert "cats 2 40.0 % of the scored images" in text
    assert "dogs 3 60.0 % of the scored images" in text
    assert "not scored 1 16.7 % of the images tried" in text
    assert f"damaged 1 {ADVICE['damaged']} s3://a-bucket/pets/5.jpg" in text
    assert "twofold batch redrive june" in text


def test_unsure_answers_are_counted_and_the_test_images_say_what_the_band_is_worth() -> None:
    """The share in the job; on the test images the share, and how many of the others are right, with intervals."""
    rows = _rows(SCORES, rule=replace(RULE, unsure=(0.4, 0.8)))
    truth, scores = np.array([0, 0, 1, 1] * 10), np.array([0.1, 0.2, 0.9, 0.5] * 10)
    band = BandFigures.of(truth, scores, threshold=0.5, band=(0.4, 0.8))
    page = Page(render(replace(_facts(rows), band=band)))
    text = page.text.replace("\u202f", " ")
    assert "cats 2 40.0 % of the scored images, 1 of them unsure" in text
    assert "unsure 2 40.0 % of the scored images" in text
    assert "2 images are unsure, 40.0 % of the scored ones. That is what scores from 0.4 to below 0.8 mean." in text
    assert "Of the model\u2019s 40 test images, 25.0 % are unsure by this rule (14.2 % to 40.2 %" in text
    assert "of the others 100 % are classified correctly (88.6 % to 100 %)." in text
    assert [e.attributes["class"] for e in page.all("rect")].count("zone") == 1
    without = Page(render(_facts(rows)))
    assert "2 images are unsure, 40.0 % of the scored ones." in without.text.replace("\u202f", " ")
    assert "unsure" not in render(_facts(_rows(SCORES)))


def test_the_batch_report_loads_nothing_and_runs_nothing(page: Page) -> None:
    """It has the Content-Security-Policy of the training report."""
    assert_self_contained(page)


@pytest.mark.parametrize(("name", "shown"), HOSTILE)
def test_no_name_can_break_out_of_the_batch_report(name: str, shown: str) -> None:
    """Labels, sources and addresses of images are text, and what cannot be seen in them is written out."""
    rule = replace(RULE, labels=(name, name[::-1]))
    hostile = Page(render(_facts(_rows(SCORES, rule=rule, ref=f"s3://a-bucket/{name}"), source=name)))
    assert_only_text(hostile, Page(render(_facts(_rows(SCORES)))))
    assert hostile.text.count(shown) >= 2
    assert hostile.text.count(shown.rpartition("/")[2]) >= 11
    titles = [e.attributes["title"] for e in hostile.all("bdi") if "title" in e.attributes]
    assert titles == [f"s3://a-bucket/{shown}"] * 5


def test_a_presigned_address_among_the_failures_is_named_without_its_signature() -> None:
    """It is no s3:// URI, so its row has failed, and it opens the image for whoever reads the page."""
    rows = _rows([0.9, None], ref="https://a-bucket.s3.amazonaws.com/{}.jpg?X-Amz-Signature=5ec7e7")
    html = render(_facts(rows, source="https://a-bucket.s3.amazonaws.com/list.csv?X-Amz-Signature=5ec7e7"))
    assert "5ec7e7" not in html
    assert "https://a-bucket.s3.amazonaws.com/1.jpg" in Page(html).text
    assert "Images from https://a-bucket.s3.amazonaws.com/list.csv" in Page(html).text


#: Facts, what the page says of them, and how many charts it has.
UNUSUAL: dict[str, tuple[Callable[[], BatchFacts], str, int]] = {
    "no rows": (lambda: _running(_rows([])), "No image of this job has a row yet.", 0),
    "no rows, and what to do": (
        lambda: _running(_rows([])),
        f"Run {program()} batch status june to see what it waits for",
        0,
    ),
    "cancelled": (
        lambda: replace(_running(_rows([])), cancelled=True),
        "This job was cancelled: 0 of 6 images have a row, and no more will follow.",
        0,
    ),
    "only failures": (lambda: _facts(_rows([None, None])), "None of the 2 images could be scored.", 0),
    "only failures, said at the top": (
        lambda: _facts(_rows([None, None])),
        "This job has no answers, only error codes. Why, and what to do Images from photos",
        0,
    ),
    "only failures so far": (
        lambda: _running(_rows([None] * 2)),
        "None of the 2 images tried so far could be scored.",
        0,
    ),
    "one image": (lambda: _facts(_rows([0.2]), images=1), "The image is scored: cats. Images from photos The image", 0),
    "one image that failed": (lambda: _facts(_rows([None]), images=1), "The image could not be scored.", 0),
    "one image so far": (
        lambda: _running(_rows([0.1])),
        "1 image is scored so far: cats. This job is not complete: 1 of 6 images has a row so far.",
        0,
    ),
    "one of two": (
        lambda: _facts(_rows([0.2, None])),
        "1 of 2 images is scored: cats. 1 image could not be scored.",
        0,
    ),
    "no failures": (lambda: _facts(_rows([0.9, 0.2])), "None: every image has a score.", 1),
    "one label": (lambda: _facts(_rows([0.9, 0.8])), "dogs 2 100 % of the scored images", 1),
    "few to compare": (lambda: _facts(_rows([0.9, 0.2])), "Too few images to compare.", 1),
    "no test images": (
        lambda: replace(_facts(_rows(SCORES)), test_scores=np.array([])),
        "No comparison with the model\u2019s test images: they cannot be read from its bundle.",
        1,
    ),
    "like the test images": (lambda: _many(0.0), "The scores look like those of the model\u2019s test images", 1),
    "unlike the test images": (
        lambda: _many(0.5),
        "The scores differ much from those of the model",
        1,
    ),
    "threshold 1": (
        lambda: _facts(_rows([0.0, 1.0], rule=replace(RULE, threshold=1.0))),
        "cats 1 50.0 % of the scored images",
        1,
    ),
}


def _running(rows: RowSummary) -> BatchFacts:
    return replace(_facts(rows), worker_s=None)


def _many(shift: float) -> BatchFacts:
    """A thousand images whose scores are those of the test images, or moved."""
    scores = np.linspace(0, 1, 1000) ** 2
    return replace(_facts(_rows(np.clip(scores + shift, 0, 1).tolist())), test_scores=scores)


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_jobs_have_a_page_that_makes_sense(name: str) -> None:
    """It is well-formed, explains what is missing, has no chart of nothing, and draws nothing outside its chart."""
    facts, shown, drawn = UNUSUAL[name]
    page = Page(render(facts()))
    assert shown in page.text.replace("\u202f", " ")
    assert len(list(page.all("svg"))) == drawn
    assert re.search(r"\b(nan|None|inf|Undefined)\b", re.sub("None(: every| of the)", "", page.text)) is None
    numbers = [e.attributes.get(a, "0") for e in page.elements for a in ("x", "y", "x1", "y2", "width", "height")]
    assert all(0 <= float(number) <= 400 for number in numbers)
    assert_self_contained(page)


@pytest.mark.parametrize("scores", [[0.1, 0.9], [0.1, 0.2], [0.8, 0.9], [0.96, 0.97, 0.999, 1.0]])
@pytest.mark.parametrize("labels", [("cats", "dogs"), None])
def test_a_class_has_the_colour_of_the_training_report(scores: list[float], labels: tuple[str, str] | None) -> None:
    """Class 0 in the one, class 1 in the other: the names and the bars, whichever classes occur."""
    facts = replace(
        _facts(_rows(scores, rule=replace(RULE, threshold=0.98 if scores[0] > 0.95 else 0.5))), labels=labels
    )
    page = Page(render(facts))
    named = {(e.attributes["class"], e.text) for e in page.all("bdi") if e.attributes.get("class") in {"zero", "one"}}
    assert named <= {("zero", "cats"), ("one", "dogs")}
    assert {name for _, name in named} >= (set(labels) if labels else set(facts.rows.labels))
    bars = {e.attributes["class"].strip() for e in page.all("rect")}
    assert bars == {f"bar {'one' if name == 'dogs' else 'zero'}" for name in facts.rows.labels}


def test_a_bin_with_the_threshold_in_it_has_both_colours() -> None:
    """Half of its images are of one class, half of the other."""
    page = Page(render(_facts(_rows([0.51, 0.54], rule=replace(RULE, threshold=0.53)))))
    assert [e.attributes["class"] for e in page.all("rect")] == ["bar one", "bar zero"]


def test_an_uploaded_image_is_called_by_the_name_of_its_file() -> None:
    """And not by the object's, which has a digest of 64 digits in it: under its picture and among the failures."""
    ref = f"s3://a-bucket/predictions/_uploads/{'9f' * 32}/{{}}.jpg"
    facts = _facts(_rows(SCORES, ref=ref))
    page = Page(render(facts))
    assert re.search("[0-9a-f]{32}", page.html) is None
    assert f"{ADVICE['damaged']} 5.jpg" in page.text
    named = Page(render(replace(facts, names={5: "deep down/broken.jpg", 0: "deep down/rex é.jpg"})))
    assert f"{ADVICE['damaged']} deep down/broken.jpg" in named.text
    assert ("rex é.jpg", "deep down/rex é.jpg") in {(e.text, e.attributes.get("title")) for e in named.all("bdi")}


def test_a_file_name_breaks_before_its_ending() -> None:
    """Under a picture on a telephone, where it has two short lines."""
    ref = f"s3://a-bucket/predictions/_uploads/{'9f' * 32}/IMG_2235_{{}}.jpg"
    page = Page(render(_facts(_rows(SCORES, ref=ref))))
    endings = [e.text for e in page.all("span") if e.attributes.get("class") == "ending"]
    assert (set(endings), len(endings)) == ({".jpg"}, len([e for e in page.all("bdi") if "title" in e.attributes]))
    assert html.breakable("Makefile") == 'Makefile<span class="ending"></span>'


def test_skipped_files_are_one_list() -> None:
    """One line where there is one reason."""
    facts = _facts(_rows(SCORES))
    groups = {"hidden": NamedFiles(files=1, names=(".a.png",)), "not an image": NamedFiles(files=1, names=("b.txt",))}
    both = Page(render(replace(facts, job=facts.job.model_copy(update={"skipped": groups}))))
    assert "Skipped, and without a row: 1 hidden: .a.png 1 not an image: b.txt" in both.text
    groups.pop("hidden")
    one = Page(render(replace(facts, job=facts.job.model_copy(update={"skipped": groups}))))
    assert ("Skipped: 1 not an image: b.txt" in one.text, "Skipped, and" in one.text) == (True, False)


def test_money_and_terms_are_in_plain_words_and_the_terms_in_footnotes(page: Page) -> None:
    """Each footnote is referred to, and each reference leads there and back."""
    text, _, notes = page.text.partition("Footnotes")
    assert "on AWS, under a US cent" in text
    for term in ("population stability index", "square root", "us-east-1", "estimate of the probability"):
        assert term in notes
        assert term not in text
    assert re.search(r"e-0\d|USD|histogram|Lambda|PSI", text) is None
    ids = {e.attributes["id"] for e in page.elements if "id" in e.attributes}
    notes_there = {name for name in ids if name.startswith("note-")}
    assert len(notes_there) == 4
    assert {name.replace("note-", "see-") for name in notes_there} <= ids


def test_every_axis_of_the_batch_report_has_numbers(page: Page) -> None:
    """Beside it and below it, from its beginning to its end."""
    assert_axes_have_numbers(page)


def test_an_image_that_is_gone_is_named() -> None:
    """An object may be removed between the job and its report."""
    facts = _facts(_rows([0.9]))
    gone = [Thumbnail(shot.row, None) for shot in facts.images[0].uncertain]
    page = Page(render(replace(facts, images=[LabelImages("dogs", gone, [])])))
    assert "no longer available 0.900 0.jpg" in page.text


def test_the_images_of_a_label_are_the_least_and_the_most_certain_ones() -> None:
    """In that order; of equal ones the first, however the rows arrive."""
    scores = [(50 + number) / 100 for number in range(40)] + [0.89] * 5
    whole = _rows(scores)
    assert [row.row for row in whole.uncertain("dogs")] == list(range(EACH))
    assert [row.row for row in whole.certain("dogs")] == [39, *range(40, 45), 38, 37]
    chunked = RowSummary()
    for number, score in enumerate(scores):
        chunked.add([Line(RULE.scored(number, f"s3://a-bucket/pets/{number}.jpg", score), {})])
    assert chunked.certain("dogs") == whole.certain("dogs")
    assert chunked.uncertain("dogs") == whole.uncertain("dogs")
    assert chunked.scores(1).tolist() == whole.scores(1).tolist() == scores
    assert chunked.scores(0).tolist() == []


def test_no_image_is_shown_twice() -> None:
    """A label with a few images has one row of them."""
    for count in (1, EACH, EACH + 3, 3 * EACH):
        uncertain, certain = examples(_rows(np.linspace(0.6, 0.9, count).tolist()), "dogs")
        shown = [row.row for row in uncertain + certain]
        assert len(shown) == len(set(shown)) == min(count, 2 * EACH)


def test_failures_are_all_counted_and_some_are_listed() -> None:
    """The page stays small whatever the number of failures."""
    rows = _rows([None] * 1000)
    assert rows.failed == 1000
    assert [row.row for row in rows.failures["damaged"].examples] == list(range(EXAMPLES))
    assert "damaged 1,000" in Page(render(_facts(rows, images=1000))).text


def test_every_code_of_a_row_has_advice() -> None:
    """Only the codes of requests, which become no row, have none."""
    requests = {"bad_request", "bad_manifest", "bad_model", "conflict", "internal"}
    assert set(ADVICE) == {code.value for code in ErrorCode} - requests


def test_the_batch_report_needs_no_training_libraries() -> None:
    """It works where neither TensorFlow nor scikit-learn is installed."""
    code = "import jobs.report.batch_page, sys; print(*{'tensorflow', 'keras', 'sklearn', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
