"""The status of a job, from its first shard to its summary."""

from datetime import timedelta
from typing import cast

import pytest

from jobs.batch.closing import Closer
from jobs.batch.dead_letters import DeadLetter, DeadLetters
from jobs.batch.status import JobStatus, StatusReader, jobs_below
from jobs.user_error import UserError
from tests.desk import Desk
from worker.contract import ClassifyRequest, Job
from worker.errors import ErrorCode, Reject


class FakeDeadLetters:
    """A dead-letter queue that holds these requests of one job."""

    def __init__(self, *requests: ClassifyRequest) -> None:
        self._letters = [DeadLetter("", "", (request,), "bad_model", "altered") for request in requests]

    def of(self, job_id: str) -> list[DeadLetter]:
        return [letter for letter in self._letters if letter.concerns(job_id)]


def _status(desk: Desk, *refused: ClassifyRequest, closer: Closer | None = None) -> JobStatus:
    letters = cast("DeadLetters", FakeDeadLetters(*refused))
    return StatusReader(desk.record(), dead_letters=letters, closer=closer).read()


def test_a_job_goes_through_its_states(desk: Desk) -> None:
    """Planning, sending, running and complete follow from what is in its folder."""
    with pytest.raises(UserError, match=r"No job named job in s3://\S+/predictions/\. Run 'twofold batch status'"):
        _status(desk)
    states = []
    desk.bench.put("predictions/job/shards/00000.jsonl", b"")
    states.append(_status(desk).state)
    desk.bench.s3.delete_object(Bucket=desk.bench.bucket, Key="predictions/job/shards/00000.jsonl")
    job = desk.plan(["no URI"] * 600)
    states.append(_status(desk).state)
    desk.planner.submit(job)
    desk.handle(desk.sent[0])
    half = _status(desk)
    desk.handle(desk.sent[1])
    done = _status(desk)
    assert [*states, half.state, done.state] == ["planning", "sending", "running", "complete"]
    assert (half.done, half.failed, half.waiting, half.parts_done, half.parts) == (500, 500, 100, 1, 2)
    assert (done.done, done.waiting, done.errors, done.left_s) == (600, 0, {"bad_source_ref": 600}, None)
    assert (half.settled, done.settled) == (False, True)


def test_a_job_is_stuck_when_all_that_is_missing_was_refused(desk: Desk) -> None:
    """A request whose part was written after all does not count."""
    job = desk.plan(["no URI"] * 600)
    desk.planner.submit(job)
    first, second = desk.sent
    assert _status(desk, first).state == "running"
    assert _status(desk, first, second).state == "stuck"
    desk.handle(first)
    status = _status(desk, first, second)
    assert (status.state, status.settled, [one.shard for one in status.refused]) == ("stuck", True, [1])
    desk.storage.write(desk.folder().cancelled, b"x", content_type="text/plain")
    assert _status(desk, second).state == "cancelled"


def test_a_request_that_was_refused_before_it_was_planned_is_stuck(desk: Desk) -> None:
    """Its job has no folder, but its reason is known."""
    request = ClassifyRequest(schema_version=1, job_id="job", images=("no URI",))
    status = _status(desk, request)
    assert (status.state, status.images, [one.error_code for one in status.refused]) == ("stuck", 0, ["bad_model"])


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers of a job count as lost as soon as its last part is written."""
    monkeypatch.setattr("jobs.batch.closing._PATIENCE", timedelta())


def _lose(desk: Desk, *names: str) -> None:
    for name in names:
        desk.bench.s3.delete_object(Bucket=desk.bench.bucket, Key=f"predictions/job/{name}")


@pytest.mark.usefixtures("impatient")
def test_a_job_that_no_worker_completed_is_completed_by_who_looks_at_it(desk: Desk) -> None:
    """All parts are there, and the last worker was lost. The notice that it did not send is sent."""
    desk.planner.submit(desk.plan(["no URI"] * 600))
    for request in desk.sent:
        desk.handle(request)
    _lose(desk, "_SUCCESS", "summary.json", "errors/part-00001.csv")
    assert _status(desk).state == "running"
    status = _status(desk, closer=Closer(notify=desk.notices.append))
    assert (status.state, status.closing) == ("complete", "this command completed the job, which no worker did")
    assert {"_SUCCESS", "summary.json", "errors/part-00001.csv"} <= set(desk.names())
    assert [notice.rows for notice in desk.notices] == [600, 600]
    assert _status(desk, closer=Closer()).closing is None


@pytest.mark.usefixtures("impatient")
def test_a_short_job_is_completed_from_its_part_alone(desk: Desk) -> None:
    """Its request was deleted before ``job.json`` could be written. Should it come again, it finds its answer."""
    request = ClassifyRequest(schema_version=1, job_id="job", images=("no URI",))
    desk.handle(request)
    _lose(desk, "_SUCCESS", "summary.json", "job.json")
    status = _status(desk, closer=Closer())
    assert (status.state, status.images, status.failed) == ("complete", 1, 1)
    assert "sent no notice: TWOFOLD_NOTIFY_ARN is not set here" in str(status.closing)
    job = Job.model_validate_json(desk.bench.get(desk.folder().job))
    assert (job.digest, job.threshold) == (request.digest(), 0.5)  # the threshold of the part's rows
    desk.handle(request)
    assert desk.reject(request.model_copy(update={"threshold": 0.25})).code is ErrorCode.CONFLICT


def test_a_job_whose_last_part_is_new_is_left_to_its_worker(desk: Desk) -> None:
    """It is at work, and sends the notice."""
    desk.handle(ClassifyRequest(schema_version=1, job_id="job", images=("no URI",)))
    _lose(desk, "_SUCCESS", "summary.json")
    status = _status(desk, closer=Closer())
    assert (status.state, status.closing) == ("running", None)
    assert "_SUCCESS" not in desk.names()


@pytest.mark.usefixtures("impatient")
def test_without_permission_to_write_the_status_says_what_is_left(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything else is shown, and nobody waits for a job that is not going on."""
    desk.handle(ClassifyRequest(schema_version=1, job_id="job", images=("no URI",)))
    _lose(desk, "_SUCCESS", "summary.json")

    def refuse(uri: str, *_: object, **__: object) -> bool:
        raise Reject(ErrorCode.ACCESS_DENIED, f"{uri}: storage answers 403 AccessDenied")

    monkeypatch.setattr(desk.storage, "write_once", refuse)
    status = _status(desk, closer=Closer())
    assert (status.state, status.settled, status.done) == ("stuck", True, 1)
    assert "cannot be completed from here: s3://" in str(status.closing)
    assert "403 AccessDenied" in str(status.closing)


@pytest.mark.usefixtures("impatient")
def test_a_cancelled_job_is_not_completed(desk: Desk) -> None:
    """Nor is one with a missing part."""
    desk.planner.submit(desk.plan(["no URI"] * 600))
    desk.handle(desk.sent[1])
    assert (_status(desk, closer=Closer()).state, desk.names().count("_SUCCESS")) == ("running", 0)
    desk.handle(desk.sent[0])
    _lose(desk, "_SUCCESS")
    desk.storage.write(desk.folder().cancelled, b"x", content_type="text/plain")
    assert _status(desk, closer=Closer()).state == "cancelled"
    assert "_SUCCESS" not in desk.names()


def test_the_rate_counts_from_the_creation_of_the_job(desk: Desk) -> None:
    """And the time left follows from it; a job that has just started has none."""
    job = desk.plan(["no URI"] * 600)
    desk.planner.submit(job)
    desk.handle(desk.sent[0])
    written_at = dict(desk.record().parts())[0]
    for seconds, expected in ((0, (None, None)), (50, (10.0, 10.0))):
        created = job.model_copy(update={"created_at": written_at - timedelta(seconds=seconds)})
        desk.bench.put("predictions/job/job.json", created.model_dump_json().encode())
        status = _status(desk)
        assert (status.images_per_s, status.left_s) == expected


def test_jobs_are_listed_newest_first(desk: Desk) -> None:
    """With those that are complete. Folders that are not a job are left out."""
    for job_id in ("june", "july"):
        desk.planner.submit(desk.plan(["no URI"], job_id=job_id))
    desk.handle(desk.sent[0])
    for name in ("_uploads/x/a.png", "unplanned/shards/00000.jsonl"):
        desk.bench.put(f"predictions/{name}", b"x")
    found = jobs_below(desk.bench.output_uri, desk.storage)
    assert [(job.job_id, complete) for job, complete in found] == [("july", False), ("june", True)]
