"""The status of a job, from its first shard to its summary."""

from datetime import timedelta
from typing import cast

import pytest

from jobs.batch.dead_letters import DeadLetter, DeadLetters
from jobs.batch.status import JobStatus, StatusReader, jobs_below
from jobs.user_error import UserError
from tests.desk import Desk
from worker.contract import ClassifyRequest


class FakeDeadLetters:
    """A dead-letter queue that holds these requests of one job."""

    def __init__(self, *requests: ClassifyRequest) -> None:
        self._letters = [DeadLetter("", "", (request,), "bad_model", "altered") for request in requests]

    def of(self, job_id: str) -> list[DeadLetter]:
        return [letter for letter in self._letters if letter.concerns(job_id)]


def _status(desk: Desk, *refused: ClassifyRequest) -> JobStatus:
    return StatusReader(desk.record(), dead_letters=cast("DeadLetters", FakeDeadLetters(*refused))).read()


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
