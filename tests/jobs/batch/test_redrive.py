"""A job's failed images are requested again, with a real bucket and without a queue."""

from pathlib import Path
from typing import cast

import pytest

from jobs.batch.dead_letters import DeadLetter, DeadLetters
from jobs.batch.inputs import Inputs
from jobs.batch.redrive import Redrive, Redriven
from jobs.batch.results import Results
from jobs.progress import Reporter
from jobs.user_error import UserError
from tests.desk import Desk
from worker.batch.job_folder import JobFolder, JobRecord
from worker.contract import ClassifyRequest, Job
from worker.predictions import from_csv


@pytest.fixture
def june(desk: Desk) -> list[str]:
    """The references of a job in two parts that is complete: no image was found, and most are not even URIs."""
    refs = [f"s3://{desk.bench.bucket}/{number}.png" if number % 10 == 9 else "no URI" for number in range(600)]
    desk.planner.submit(desk.plan(refs, job_id="june"))
    _work(desk)
    return refs


def _work(desk: Desk) -> None:
    requests = list(desk.sent)
    desk.sent.clear()
    for request in requests:
        desk.handle(request)


def _redrive(desk: Desk, job_id: str, *codes: str) -> Redriven:
    inputs = Inputs(storage=desk.storage, output_uri=desk.bench.output_uri)
    redrive = Redrive(desk.record(job_id), inputs=inputs, planner=desk.planner, send=desk.sent.extend)
    return redrive.run(codes, None, Reporter(quiet=True))


def test_only_the_codes_that_are_named_are_redriven(desk: Desk, june: list[str]) -> None:
    """Row numbers are those of the first job, through any number of redrives."""
    redriven = _redrive(desk, "june", "not_found")
    assert (redriven.images, redriven.redrive_id) == (60, "june-r1")
    _work(desk)
    rows = from_csv(desk.bench.get(desk.folder("june-r1").part()))
    assert [row.row for row in rows] == list(range(9, 600, 10))
    assert desk.record("june").redrives() == ["june-r1"]
    again = _redrive(desk, "june")
    assert (again.images, again.redrive_id) == (600, "june-r2")
    _work(desk)
    lines = [line for chunk in Results(desk.record("june")).chunks() for line in chunk]
    assert [line.row.source_ref for line in lines] == june


def test_the_requests_of_a_redrive_name_the_output_as_its_job_does(desk: Desk, june: list[str]) -> None:
    """With another spelling of the prefix, the digest of a request would be another, and its part refused."""
    inputs = Inputs(storage=desk.storage, output_uri=desk.bench.output_uri)
    record = JobRecord(JobFolder(desk.bench.output_uri.rstrip("/"), "june"), desk.storage)
    redrive = Redrive(record, inputs=inputs, planner=desk.planner, send=desk.sent.extend)
    redrive.run((), None, Reporter(quiet=True))
    assert {request.output_uri for request in desk.sent} == {Results(record).job.output_uri} == {desk.bench.output_uri}
    assert len(june) == 600


def test_an_interrupted_redrive_resumes_under_the_same_name(desk: Desk, june: list[str]) -> None:
    """It already has a name when it is killed before it sends its messages. With other codes it is a new job."""
    assert _redrive(desk, "june").redrive_id == "june-r1"
    desk.bench.s3.delete_object(Bucket=desk.bench.bucket, Key="predictions/june-r1/submitted")
    assert _redrive(desk, "june").redrive_id == "june-r1"
    assert len(desk.sent) == 4
    desk.bench.s3.delete_object(Bucket=desk.bench.bucket, Key="predictions/june-r1/submitted")
    assert _redrive(desk, "june", "not_found").redrive_id == "june-r2"
    assert len(june) == 600


def test_only_one_redrive_runs_at_a_time(desk: Desk, june: list[str]) -> None:
    """The next one is refused until it is complete or cancelled. A redrive cannot be redriven."""
    _redrive(desk, "june", "not_found")
    with pytest.raises(UserError, match=r"june-r1 is not complete"):
        _redrive(desk, "june")
    with pytest.raises(UserError, match=r"Run '.*twofold batch redrive june'"):
        _redrive(desk, "june-r1")
    desk.storage.write(desk.folder("june-r1").cancelled, b"x", content_type="text/plain")
    assert _redrive(desk, "june").redrive_id == "june-r2"
    assert len(june) == 600


class FakeDeadLetters:
    """A dead-letter queue that holds these requests."""

    def __init__(self, *requests: ClassifyRequest) -> None:
        self.letters = [DeadLetter(str(n), "", (one,), "unavailable", "lost") for n, one in enumerate(requests)]

    def take(self, folder: JobFolder, job: Job | None) -> list[DeadLetter]:
        return [letter for letter in self.letters if letter.concerns(folder, job)]

    def remove(self, letters: list[DeadLetter]) -> None:
        self.letters = [letter for letter in self.letters if letter not in letters]


def test_the_refused_requests_of_a_redrive_are_sent_again(desk: Desk, june: list[str]) -> None:
    """By its own name, which the message about an unfinished redrive gives."""
    _redrive(desk, "june", "not_found")
    refused = FakeDeadLetters(*desk.sent)
    desk.sent.clear()
    with pytest.raises(UserError, match=r"run '.*twofold batch redrive june-r1' if it is stuck"):
        _redrive(desk, "june")
    inputs = Inputs(storage=desk.storage, output_uri=desk.bench.output_uri)
    redrive = Redrive(desk.record("june-r1"), inputs=inputs, planner=desk.planner, send=desk.sent.extend)
    redriven = redrive.run((), cast("DeadLetters", refused), Reporter(quiet=True))
    assert (redriven.requests, [one.job_id for one in desk.sent], refused.letters) == (1, ["june-r1"], [])
    assert len(june) == 600


def test_a_letter_with_requests_of_two_jobs_loses_neither(desk: Desk, june: list[str]) -> None:
    """One event of S3 can name several objects of an inbox. The letter is removed, so both are sent again."""
    both = tuple(ClassifyRequest(schema_version=1, job_id=name, images=tuple(june[:1])) for name in ("july", "june"))
    refused = FakeDeadLetters()
    refused.letters = [DeadLetter("0", "", both, "unavailable", "lost")]
    desk.sent.clear()
    inputs = Inputs(storage=desk.storage, output_uri=desk.bench.output_uri)
    redrive = Redrive(desk.record("june"), inputs=inputs, planner=desk.planner, send=desk.sent.extend)
    redrive.run((), cast("DeadLetters", refused), Reporter(quiet=True))
    assert [one.job_id for one in desk.sent] == ["july", "june"]
    assert refused.letters == []


def test_a_running_job_is_not_redriven(desk: Desk) -> None:
    """An image without a row has not failed."""
    desk.plan(["no URI"], job_id="june")
    missing = "1 of 1 image has no row yet: part 0 of 1 is missing"
    with pytest.raises(UserError, match=rf"^{missing}\. june is not complete yet. Wait for it:\n  .* june --watch$"):
        _redrive(desk, "june")


def test_a_job_without_failures_needs_no_redrive(desk: Desk, digit_images: Path) -> None:
    """Nothing is written, and nothing is sent."""
    image = desk.bench.put("in/a.png", next(digit_images.rglob("*.png")).read_bytes())
    desk.planner.submit(desk.plan([image], job_id="june"))
    _work(desk)
    assert _redrive(desk, "june") == Redriven(job_id="june", images=0, redrive_id=None, requests=0)
    assert desk.record("june").redrives() == []
    assert desk.sent == []
