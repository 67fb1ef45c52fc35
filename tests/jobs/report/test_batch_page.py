"""The batch report's promises: it counts every row, loads and runs nothing, and no name can break it."""

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from jobs.batch.results import Line
from jobs.report.batch_page import ADVICE, EACH, EXAMPLES, BatchFacts, LabelImages, RowSummary, Thumbnail, render
from tests.conftest import REPOSITORY
from tests.jobs.report.strict_html import HOSTILE, Page, assert_only_text, assert_self_contained
from worker.contract import Job, PredictionRow
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
        images=[LabelImages(name, shown(rows.uncertain(name)), shown(rows.certain(name))) for name in rows.labels],
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
    assert "not scored 1 16.67 % of the rows" in text
    assert f"damaged 1 {ADVICE['damaged']} s3://a-bucket/pets/5.jpg" in text
    assert "twofold batch redrive june" in text


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
    assert hostile.text.count(shown.rpartition("/")[2]) >= 12
    titles = [e.attributes["title"] for e in hostile.all("bdi") if "title" in e.attributes]
    assert titles == [f"s3://a-bucket/{shown}"] * 10


def test_a_presigned_address_among_the_failures_is_named_without_its_signature() -> None:
    """It is no s3:// URI, so its row has failed, and it opens the image for whoever reads the page."""
    rows = _rows([0.9, None], ref="https://a-bucket.s3.amazonaws.com/{}.jpg?X-Amz-Signature=5ec7e7")
    html = render(_facts(rows, source="https://a-bucket.s3.amazonaws.com/list.csv?X-Amz-Signature=5ec7e7"))
    assert "5ec7e7" not in html
    assert "https://a-bucket.s3.amazonaws.com/1.jpg" in Page(html).text
    assert "Images from https://a-bucket.s3.amazonaws.com/list.csv" in Page(html).text


@pytest.mark.parametrize(
    ("facts", "shown"),
    [
        (_facts(_rows([])), "test images: no image was scored."),
        (_facts(_rows([None, None])), "not scored 2 100 % of the rows"),
        (_facts(_rows([0.2])), "None: every image has a score."),
        (_facts(_rows([0.9, 0.8])), "dogs 2 100 % of the scored images"),
        (
            replace(_facts(_rows(SCORES)), test_scores=np.array([])),
            "test_predictions.csv of its bundle cannot be read.",
        ),
        (replace(_facts(_rows([0.1])), worker_s=None), "This job is not complete: 1 of 6 images have a row so far."),
        (_facts(_rows([0.0, 1.0], rule=replace(RULE, threshold=1.0))), "cats 1 50.0 % of the scored images"),
    ],
)
def test_unusual_jobs_have_a_sound_page(facts: BatchFacts, shown: str) -> None:
    """It is well-formed, explains what is missing, and draws nothing outside its chart."""
    page = Page(render(facts))
    assert shown in page.text.replace("\u202f", " ")
    assert re.search(r"\b(nan|None|inf|Undefined)\b", page.text.replace("None: every", "")) is None
    numbers = [e.attributes.get(a, "0") for e in page.elements for a in ("x", "y", "x1", "y2", "width", "height")]
    assert all(0 <= float(number) <= 400 for number in numbers)


def test_an_image_that_is_gone_is_named() -> None:
    """An object may be removed between the job and its report."""
    facts = _facts(_rows([0.9]))
    gone = [Thumbnail(shot.row, None) for shot in facts.images[0].certain]
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
    assert chunked.scores.tolist() == whole.scores.tolist() == scores


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
