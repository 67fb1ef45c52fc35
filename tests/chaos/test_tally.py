"""The count: it sees what it is there to see."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.chaos.evidence import Evidence, Letter
from tests.chaos.tally import Asked, Picture, Tally, count
from worker.errors import ErrorCode, Reject
from worker.predictions import Rule

RULE = Rule(labels=("eight", "three"), threshold=0.5, model_version="v1")
GOOD, BAD = Picture("s3://a-bucket/a.png", 0.25), Picture("s3://a-bucket/b.png", "empty")
FIRST, SECOND = RULE.scored(0, GOOD.ref, 0.25), RULE.failed(1, BAD.ref, Reject(ErrorCode.EMPTY, "no bytes"))
ASKED = [
    Asked("job", '{"job_id": "job"}', (GOOD, BAD)),
    Asked("invalid", "<html>", code="bad_request"),
]
CLEAN = Evidence(
    rows={"job": [FIRST, SECOND]},
    failed={"job": [SECOND]},
    rewritten=[],
    complete={"job"},
    letters=[Letter("<html>", "bad_request")],
    received_again=['{"job_id": "job"}', '{"job_id": "job", "shard": 0}', "<html>"],
    tracebacks=0,
)


def test_what_is_as_it_must_be_is_clean() -> None:
    """Three were asked for: two images and an invalid request. Messages of workers belong to their jobs."""
    assert count(ASKED, CLEAN, RULE) == Tally(asked=3, recovered=3, letters=1)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        pytest.param(lambda e: replace(e, rows={"job": [SECOND]}), (1, 0, 0, 0), id="a lost row"),
        pytest.param(lambda e: replace(e, rows={"job": [FIRST, SECOND, FIRST]}), (0, 1, 0, 0), id="a row twice"),
        pytest.param(
            lambda e: replace(e, rows={"job": [RULE.scored(0, GOOD.ref, 0.26), SECOND]}),
            (0, 0, 1, 0),
            id="a wrong score",
        ),
        pytest.param(
            lambda e: replace(e, rows={"job": [RULE.scored(0, BAD.ref, 0.25), SECOND]}),
            (0, 0, 1, 0),
            id="another image",
        ),
        pytest.param(
            lambda e: replace(e, rows={"job": [FIRST, RULE.scored(1, BAD.ref, 0.5)]}, failed={}),
            (0, 0, 1, 0),
            id="a score for a bad image",
        ),
        pytest.param(lambda e: replace(e, failed={}), (0, 0, 1, 0), id="no file of failed rows"),
        pytest.param(lambda e: replace(e, complete=set()), (0, 0, 1, 0), id="not complete"),
        pytest.param(lambda e: replace(e, rewritten=["job.json"]), (0, 0, 1, 0), id="an object written twice"),
        pytest.param(
            lambda e: replace(e, rows={**e.rows, "invalid": [FIRST]}), (0, 0, 1, 0), id="rows of an invalid request"
        ),
        pytest.param(lambda e: replace(e, letters=[]), (1, 0, 0, 0), id="no dead letter"),
        pytest.param(
            lambda e: replace(e, letters=[Letter("<html>", "")]), (0, 0, 1, 0), id="a letter without a reason"
        ),
        pytest.param(
            lambda e: replace(e, letters=[*e.letters, Letter(ASKED[0].body, "internal")]),
            (0, 0, 1, 1),
            id="a letter for a good request",
        ),
        pytest.param(lambda e: replace(e, tracebacks=2), (0, 0, 0, 2), id="tracebacks"),
    ],
)
def test_every_defect_is_counted(spoil: Callable[[Evidence], Evidence], expected: tuple[int, int, int, int]) -> None:
    """As lost, doubled, wrong or internal."""
    tally = count(ASKED, spoil(CLEAN), RULE)
    assert (tally.lost, tally.doubled, tally.wrong, tally.internal) == expected
    assert not tally.is_clean


def test_a_message_that_is_not_answered_is_not_recovered() -> None:
    """However often it was received."""
    lost = replace(CLEAN, rows={}, failed={}, letters=[])
    assert count(ASKED, lost, RULE).recovered == 0
