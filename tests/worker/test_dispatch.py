"""A message's body to an outcome, without a queue or a bucket."""

import json
from typing import Any, Self, cast

import pytest

from worker.batch.completion import Completion
from worker.batch.part import PartWriter
from worker.batch.plan import Planner
from worker.batch.resolve import RequestResolver
from worker.contract import ClassifyRequest, PartReport
from worker.dispatch import Dispatch, Done
from worker.errors import ErrorCode, Reject, Retry

REQUEST = json.dumps({"schema_version": 1, "job_id": "x", "images": ["s3://shelter/a.jpg"]})


class ScriptedParts:
    """Finds the part of every request, or fails as scripted for the job."""

    def __init__(self, **failures: Exception) -> None:
        self._failures = failures
        self.asked: list[str] = []

    def committed(self, request: ClassifyRequest, _: Any) -> PartReport:
        name = request.job_id.partition("-")[0]
        self.asked.append(name)
        if name in self._failures:
            raise self._failures[name]
        digest = request.digest()
        figures: dict[str, Any] = {"rows": 1, "scored": 1, "failed": 0, "errors": {}, "size_bytes": 1, "seconds": 0.1}
        model: dict[str, Any] = {"model_name": "m", "model_version": "v", "threshold": 0.5}
        return PartReport(job_id=request.job_id, request_digest=digest, sha256=digest, **figures, **model)


class NothingElse:
    """No job is planned, cancelled or complete."""

    def record(self, _: Any) -> Self:
        return self

    def is_cancelled(self) -> bool:
        return False

    def admit(self, *_: Any) -> bool:
        return False

    def check(self, *_: Any) -> bool:
        return False


def _around(parts: ScriptedParts) -> Dispatch:
    nothing = NothingElse()
    return Dispatch(
        resolver=cast("RequestResolver", nothing),
        parts=cast("PartWriter", parts),
        planner=cast("Planner", nothing),
        completion=cast("Completion", nothing),
    )


def _dispatch(**failures: Exception) -> Dispatch:
    return _around(ScriptedParts(**failures))


def _handle(dispatch: Dispatch, body: str = REQUEST, *, last_try: bool = False) -> Any:
    return dispatch.handle(body, last_try=last_try, cancelled=lambda: False)


def _event(*names: str) -> str:
    records = [
        {
            "eventVersion": "2.1",
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": "shelter"}, "object": {"key": f"{name}.csv", "eTag": "1"}},
        }
        for name in names
    ]
    return json.dumps({"Records": records})


def test_a_request_that_is_answered_is_done() -> None:
    """The outcome has the report of its part."""
    outcome = _handle(_dispatch())
    assert isinstance(outcome, Done)
    assert [report.job_id for report in outcome.reports] == ["x"]


def test_a_body_without_a_request_is_done() -> None:
    """The test event of S3 is acknowledged."""
    assert _handle(_dispatch(), '{"Event": "s3:TestEvent"}') == Done("a notification without a request")


def test_a_body_that_is_not_a_request_is_rejected() -> None:
    """At the first receive, with the reason."""
    outcome = _handle(_dispatch(), "<html>")
    assert isinstance(outcome, Reject)
    assert outcome.code is ErrorCode.BAD_REQUEST


@pytest.mark.parametrize(
    ("error", "code"),
    [(ZeroDivisionError("a bug"), ErrorCode.INTERNAL), (Retry(ErrorCode.UNAVAILABLE, "503"), ErrorCode.UNAVAILABLE)],
)
def test_a_failure_that_may_pass_is_tried_again_until_the_last_receive(error: Exception, code: ErrorCode) -> None:
    """A bug, too. After the last receive SQS alone would move the message without a reason."""
    first, last = (_handle(_dispatch(x=error), last_try=last_try) for last_try in (False, True))
    assert (type(first), first.code) == (Retry, code)
    assert (type(last), last.code) == (Reject, code)


def test_one_bad_object_of_an_event_does_not_stop_the_others() -> None:
    """All are tried. Then the message is tried again if that can help, or else rejected."""
    reject, retry = Reject(ErrorCode.BAD_MANIFEST, "no lines"), Retry(ErrorCode.UNAVAILABLE, "503")
    parts = ScriptedParts(bad=reject, slow=retry)
    assert _handle(_around(parts), _event("bad", "slow", "good")) is retry
    assert parts.asked == ["bad", "slow", "good"]
    assert _handle(_dispatch(bad=reject), _event("bad", "good")) is reject
    assert len(_handle(_dispatch(), _event("one", "two")).reports) == 2
