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
from worker.errors import ErrorCode, Interrupted, Reject, Retry

REQUEST = json.dumps({"schema_version": 1, "job_id": "x", "images": ["s3://shelter/a.jpg"]})


def _report(request: ClassifyRequest) -> PartReport:
    digest = request.digest()
    figures: dict[str, Any] = {"rows": 1, "scored": 1, "failed": 0, "errors": {}, "size_bytes": 1, "seconds": 0.1}
    model: dict[str, Any] = {"model_name": "m", "model_version": "v", "threshold": 0.5}
    return PartReport(job_id=request.job_id, request_digest=digest, sha256=digest, **figures, **model)


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
        return _report(request)


class NothingElse:
    """No job is planned, cancelled or complete. A check raises ``failure``; ``answered`` is the request with a part."""

    def __init__(self, failure: Exception | None = None, answered: ClassifyRequest | None = None) -> None:
        self._failure = failure
        self._answered = answered

    def report(self, _: int, *, edition: str | None, answering: str) -> PartReport | None:
        return _report(self._answered) if self._answered and self._answered.digest() == answering else None

    def record(self, _: Any) -> Self:
        return self

    def drops(self, _: Any) -> bool:
        return False

    def admit(self, *_: Any) -> bool:
        return False

    def check(self, *_: Any, **__: Any) -> bool:
        if self._failure:
            raise self._failure
        return False


def _around(parts: ScriptedParts, nothing: NothingElse | None = None) -> Dispatch:
    nothing = nothing or NothingElse()
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
def test_a_failure_that_may_pass_is_tried_again_until_the_last_try(error: Exception, code: ErrorCode) -> None:
    """A bug, too. SQS alone would move the message without a reason."""
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


STOPPED = Interrupted(ErrorCode.UNAVAILABLE, "the worker is stopping", delay_s=0)


def test_a_stop_never_refuses_a_request() -> None:
    """It says nothing about the request. What is behind it in the same message is not begun."""
    for last_try in (False, True):
        parts = ScriptedParts(bad=Reject(ErrorCode.BAD_MANIFEST, "no lines"), stopped=STOPPED)
        assert _handle(_around(parts), _event("bad", "stopped", "good"), last_try=last_try) is STOPPED
        assert parts.asked == ["bad", "stopped"]


FAILURES = (
    Retry(ErrorCode.UNAVAILABLE, "503"),
    Reject(ErrorCode.ACCESS_DENIED, "403"),
    Reject(ErrorCode.CONFLICT, "another request"),
    STOPPED,
    ZeroDivisionError("a bug"),
)


@pytest.mark.parametrize("failure", FAILURES, ids=["no answer", "refused", "conflict", "stopped", "a bug"])
def test_a_request_whose_part_is_written_is_never_refused(failure: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """What fails after it is tried again. On the last try the request is done, and a warning says what is left."""
    request = ClassifyRequest.parse(REQUEST)
    for dispatch in (
        _around(ScriptedParts(), NothingElse(failure, answered=request)),
        _around(ScriptedParts(x=failure), NothingElse(answered=request)),  # failed rows that could not be written
    ):
        assert isinstance(_handle(dispatch), Retry)
        caplog.clear()
        done = _handle(dispatch, last_try=True)
        assert isinstance(done, Done)
        assert [report.job_id for report in done.reports] == ["x"]
        assert "twofold batch status x" in caplog.text


def test_a_worker_without_memory_says_nothing_about_the_request() -> None:
    """The error ends the worker: it would fail again with the next request."""
    for last_try in (False, True):
        with pytest.raises(MemoryError):
            _handle(_dispatch(x=MemoryError()), last_try=last_try)


def test_a_written_part_is_never_followed_by_a_letter_even_if_storage_then_fails_for_good() -> None:
    """The report is in hand: nothing has to be read to know that the request is answered."""

    class Silent(NothingElse):
        def record(self, *_: Any) -> Any:
            if parts.asked:
                raise Retry(ErrorCode.UNAVAILABLE, "503")
            return super().record(*_)

    parts = ScriptedParts()
    outcome = _handle(_around(parts, Silent(Retry(ErrorCode.UNAVAILABLE, "503"))), last_try=True)
    assert isinstance(outcome, Done)
    assert len(outcome.reports) == 1
