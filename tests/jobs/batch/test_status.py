"""The status of a job, from its first shard to its summary."""

import gc
import io
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from jobs.batch.closing import Closer
from jobs.batch.dead_letters import DeadLetter, DeadLetters, LettersRead
from jobs.batch.inputs import Inputs
from jobs.batch.redrive import Redrive
from jobs.batch.results import Results
from jobs.batch.status import JobStatus, StatusReader, all_jobs
from jobs.commands.batch_view import watch
from jobs.progress import Reporter
from jobs.report.batch_page import RowSummary
from jobs.user_error import UserError
from tests.desk import Desk
from worker.batch.job_folder import JobFolder
from worker.contract import ClassifyRequest, Job, PredictionRow
from worker.errors import ErrorCode, Reject, Retry


class FakeDeadLetters:
    """A dead-letter queue that holds these requests of one job."""

    def __init__(self, *requests: ClassifyRequest) -> None:
        self._letters = [DeadLetter("", "", (request,), "bad_model", "altered") for request in requests]

    def of(self, folder: JobFolder, job: Job | None) -> list[DeadLetter]:
        return [letter for letter in self._letters if letter.concerns(folder, job)]


def _status(desk: Desk, *refused: ClassifyRequest, closer: Closer | None = None) -> JobStatus:
    letters = cast("DeadLetters", FakeDeadLetters(*refused))
    return StatusReader(desk.record(), dead_letters=letters, closer=closer).read()


def test_a_job_goes_through_its_states(desk: Desk) -> None:
    """Waiting, running and complete follow from what is in its folder; a note says what it waits for."""
    with pytest.raises(UserError, match=r"No job named job in s3://\S+/predictions/\. .*\n  .*twofold batch status$"):
        _status(desk)
    seen = []
    desk.bench.put("predictions/job/shards/00000.jsonl", b"")
    seen.append(_status(desk))
    desk.bench.s3.delete_object(Bucket=desk.bench.bucket, Key="predictions/job/shards/00000.jsonl")
    job = desk.plan(["no URI"] * 600)
    seen.append(_status(desk))
    desk.planner.submit(job)
    seen.append(_status(desk))
    desk.handle(desk.sent[0])
    half = _status(desk)
    desk.handle(desk.sent[1])
    done = _status(desk)
    assert [one.state for one in (*seen, half, done)] == [*["waiting"] * 3, "running", "complete with failures"]
    notes = ("split into parts", "still being sent. If 'submit' was interrupted", "No worker has answered yet.")
    assert [note in str(one.note) for note, one in zip(notes, seen, strict=True)] == [True] * 3
    assert (half.done, half.failed, half.waiting, half.parts_done, half.parts) == (500, 500, 100, 1, 2)
    assert (done.done, done.waiting, done.errors, done.left_s) == (600, 0, {"bad_source_ref": 600}, None)
    assert (half.settled, done.settled) == (False, True)


def test_a_job_is_stuck_when_all_that_is_missing_was_refused(desk: Desk) -> None:
    """A request whose part was written after all does not count."""
    job = desk.plan(["no URI"] * 600)
    desk.planner.submit(job)
    first, second = desk.sent
    assert _status(desk, first).state == "waiting"
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
    assert (status.state, status.closing) == (
        "complete with failures",
        "this command completed the job, which no worker did",
    )
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
    assert (status.state, status.images, status.failed) == ("complete with failures", 1, 1)
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
    desk.storage.write(desk.folder().cancelled, b"x", content_type="text/plain")
    assert (_status(desk).images_per_s, _status(desk).left_s) == (None, None)  # no row follows


def test_every_job_has_a_state_in_the_list_newest_first(desk: Desk, digit_images: Path) -> None:
    """Also those that are only being planned, or were only refused. Folders that are not a job are left out."""
    image = desk.bench.put("in/a.png", next(digit_images.rglob("*.png")).read_bytes())
    for job_id, ref in {"june": image, "july": "no URI", "august": image, "may": image}.items():
        desk.planner.submit(desk.plan([ref], job_id=job_id))
    desk.planner.submit(desk.plan(["no URI"] * 600, job_id="april"))
    june, july, _, may, april, _ = desk.sent
    for request in (june, july, april):
        desk.handle(request)
    desk.storage.write(desk.folder("august").cancelled, b"x", content_type="text/plain")
    for name in ("_uploads/x/a.png", "planned/shards/00000.jsonl", "foreign/a.txt", "damaged/job.json"):
        desk.bench.put(f"predictions/{name}", b"x")
    march = ClassifyRequest(schema_version=1, job_id="march", images=("a",))
    elsewhere = march.model_copy(update={"job_id": "other", "output_uri": "s3://shelter/other/"})
    letters = [DeadLetter("", "", (one,), "bad_model", "altered") for one in (may, march, elsewhere)]
    found = all_jobs(desk.bench.output_uri, desk.storage, letters=LettersRead(tuple(letters)), closer=None)
    assert [(one.job_id, one.state, one.done, one.failed) for one in found] == [
        ("april", "running", 500, 500),
        ("may", "stuck", 0, 0),
        ("august", "cancelled", 0, 0),
        ("july", "complete with failures", 1, 1),
        ("june", "complete", 1, 0),
        ("damaged", "stuck", 0, 0),
        ("march", "stuck", 0, 0),
        ("planned", "waiting", 0, 0),
    ]


@pytest.mark.usefixtures("impatient")
def test_a_completion_that_fails_for_the_moment_is_tried_again_by_who_watches(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Storage that is away for one call does not end ``status --watch``."""
    monkeypatch.setattr("jobs.commands.batch_view._WATCH_S", 0.0)
    desk.handle(ClassifyRequest(schema_version=1, job_id="job", images=("no URI",)))
    _lose(desk, "_SUCCESS", "summary.json")
    write_once, away = desk.storage.write_once, [Retry(ErrorCode.UNAVAILABLE, "storage answers 503 SlowDown")] * 2

    def sometimes(*arguments: Any, **options: Any) -> bool:
        if away:
            raise away.pop()
        return write_once(*arguments, **options)

    monkeypatch.setattr(desk.storage, "write_once", sometimes)
    reader = StatusReader(desk.record(), dead_letters=None, closer=Closer())
    once = reader.read()
    assert (once.state, once.settled) == ("running", False)
    assert "could not be completed just now: storage answers 503" in str(once.closing)
    assert (watch(reader, Console(file=io.StringIO())).state, away) == ("complete with failures", [])


def test_a_redriven_row_counts_as_the_results_and_the_report_show_it(desk: Desk, digit_images: Path) -> None:
    """One failed image is repaired, one fails in another way, two still fail. Then there is a second redrive."""
    good = next(digit_images.rglob("*.png")).read_bytes()
    bucket = f"s3://{desk.bench.bucket}/in"
    refs = ["no URI"] * 600
    refs[1:3], refs[598:] = [f"{bucket}/1.png", f"{bucket}/2.png"], [f"{bucket}/598.png", f"{bucket}/599.png"]
    desk.planner.submit(desk.plan(refs, job_id="job"))
    _work(desk)
    assert _counts(desk) == {"bad_source_ref": 596, "not_found": 4}
    desk.bench.put("in/1.png", good)
    desk.bench.put("in/599.png", good[:60])
    _redrive(desk, "not_found")
    assert _counts(desk) == {"bad_source_ref": 596, "not_found": 4}
    _work(desk)
    assert _counts(desk) == {"bad_source_ref": 596, "damaged": 1, "not_found": 2}
    desk.bench.put("in/2.png", good)
    desk.bench.put("in/599.png", good)
    _redrive(desk)
    _work(desk)
    assert _counts(desk) == {"bad_source_ref": 596, "not_found": 1}
    assert _status(desk).redrives == ["job-r1", "job-r2"]


def test_a_part_of_a_redrive_is_read_once_and_its_rows_are_not_kept(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often the status is read, as ``--watch`` does it; and while another redrive is running."""
    desk.planner.submit(desk.plan(["not kept"] * 600))
    _work(desk)
    _redrive(desk)
    _work(desk)
    _redrive(desk)
    (first, second), read, was_read = desk.sent, desk.storage.read, list[str]()
    desk.sent.clear()

    def noted(uri: str, **options: Any) -> bytes:
        was_read.append(uri.removeprefix(f"{desk.bench.output_uri}"))
        return read(uri, **options)

    monkeypatch.setattr(desk.storage, "read", noted)
    reader = StatusReader(desk.record(), dead_letters=None)
    parts = {f"{name}/parts/part-0000{number}.csv" for name in ("job", "job-r1") for number in range(2)}
    assert reader.read().errors == {"bad_source_ref": 600}
    assert (set(was_read), len(was_read)) == (parts, 4)
    assert [kept for kept in gc.get_objects() if type(kept) is PredictionRow and kept.source_ref == "not kept"] == []
    for request in (second, first):  # in any order
        was_read.clear()
        desk.handle(request)
        was_read.clear()
        for _ in range(2):
            assert reader.read().errors == {"bad_source_ref": 600}
        assert was_read == [f"job-r2/parts/part-0000{request.shard}.csv"]


def test_a_late_answer_of_an_earlier_redrive_is_not_taken_for_the_newest(desk: Desk) -> None:
    """Its part is written after that of a later redrive was counted. The results take the newer one, too."""
    ref = f"s3://{desk.bench.bucket}/in/a.png"
    desk.planner.submit(desk.plan([ref]))
    _work(desk)
    _redrive(desk)
    (late,) = desk.sent
    desk.sent.clear()
    desk.storage.write(desk.folder("job-r1").cancelled, b"x", content_type="text/plain")
    desk.bench.put("in/a.png", b"no image")
    _redrive(desk)
    _work(desk)
    reader = StatusReader(desk.record(), dead_letters=None)
    assert reader.read().errors == {"not_an_image": 1}
    desk.bench.s3.delete_object(Bucket=desk.bench.bucket, Key="in/a.png")
    desk.bench.s3.delete_object(Bucket=desk.bench.bucket, Key="predictions/job-r1/cancelled")
    desk.handle(late)
    assert reader.read().errors == _counts(desk) == {"not_an_image": 1}


def _redrive(desk: Desk, *codes: str) -> None:
    inputs = Inputs(storage=desk.storage, output_uri=desk.bench.output_uri)
    redrive = Redrive(desk.record(), inputs=inputs, planner=desk.planner, send=desk.sent.extend)
    redrive.run(codes, None, Reporter(quiet=True))


def _work(desk: Desk) -> None:
    requests = list(desk.sent)
    desk.sent.clear()
    for request in requests:
        desk.handle(request)


def _counts(desk: Desk) -> dict[str, int]:
    """The failed rows by code. The results, the report, the status and the list agree about them, and on the rest."""
    lines = [line for chunk in Results(desk.record()).chunks() for line in chunk]
    errors = Counter(line.row.error_code for line in lines if line.row.error_code is not None)
    page = RowSummary()
    page.add(lines)
    status = _status(desk)
    listed = {one.job_id: one for one in all_jobs(desk.bench.output_uri, desk.storage, letters=None, closer=None)}[
        "job"
    ]
    expected = (len(lines) - errors.total(), errors.total())
    assert [(one.scored, one.failed) for one in (page, status, listed)] == [expected] * 3
    assert {code: group.count for code, group in page.failures.items()} == status.errors == listed.errors == errors
    return dict(errors)
