"""The completion of a job: job.json, summary.json, a notice and _SUCCESS, in whatever order its parts are written."""

from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from tests.desk import ON_BOTH_EMULATORS, Desk
from worker.contract import ClassifyRequest, ManifestRef, Summary
from worker.dispatch import Done
from worker.errors import ErrorCode, Interrupted
from worker.predictions import from_csv


def _refs(count: int) -> list[str]:
    """References that cost nothing: they fail before anything is read."""
    return [f"no URI {number}" for number in range(count)]


def test_a_short_request_is_a_job_of_one_part(desk: Desk, digit_images: Path) -> None:
    """Its ``job.json`` is written afterwards, so that all jobs look the same."""
    image = desk.bench.put("a.png", next(digit_images.rglob("*.png")).read_bytes())
    asked = (image, image, *_refs(1))
    desk.handle(ClassifyRequest(schema_version=1, job_id="job", images=asked))
    names = ["_SUCCESS", "errors/part-00000.csv", "job.json", "parts/part-00000.csv", "summary.json"]
    assert desk.names() == names
    summary = Summary.model_validate_json(desk.bench.get(desk.folder().summary))
    assert (summary.rows, summary.scored, summary.failed) == (3, 2, 1)
    ones = sum(row.label == "three" for row in from_csv(desk.bench.get(desk.folder().part())))
    assert (summary.errors, summary.positives) == ({"bad_source_ref": 1}, ones)
    assert summary.models == ("digits v1",)
    part = desk.bench.get(desk.folder().part())
    assert (summary.parts[0].sha256, summary.parts[0].size_bytes) == (sha256(part).hexdigest(), len(part))
    assert desk.notices == [summary]


@ON_BOTH_EMULATORS
def test_a_job_is_complete_when_its_last_part_is_written(desk: Desk) -> None:
    """Parts may be written in any order. Rows are numbered across the parts."""
    job = desk.plan(_refs(1001))
    assert desk.planner.submit(job) == 3
    for request in (desk.sent[2], desk.sent[0]):
        desk.handle(request)
        assert "_SUCCESS" not in desk.names()
        assert desk.notices == []
    desk.handle(desk.sent[1])
    assert {"_SUCCESS", "summary.json"} <= set(desk.names())
    assert desk.notices[0].rows == 1001
    rows = [row for number in range(3) for row in from_csv(desk.bench.get(desk.folder().part(number)))]
    assert [(row.row, row.source_ref) for row in rows] == list(enumerate(_refs(1001)))


def test_a_redelivery_completes_the_job_of_a_worker_that_died(desk: Desk) -> None:
    """The message comes back and finds its part. A notice may be sent twice, but is never lost."""
    request = ClassifyRequest(schema_version=1, job_id="job", images=tuple(_refs(2)))
    desk.handle(request)
    written = ["job.json", "summary.json", "_SUCCESS"]
    for reached in range(3):
        for name in written[reached:]:
            desk.bench.s3.delete_object(Bucket=desk.bench.bucket, Key=f"predictions/job/{name}")
        desk.handle(request)
        assert set(written) <= set(desk.names())
    desk.handle(request)
    assert len(desk.notices) == 4  # the first time, and each time that the marker was missing


def test_another_part_that_is_delivered_again_completes_the_job_as_well(desk: Desk) -> None:
    """The last worker died before it could, and its own message may never come again."""
    desk.planner.submit(desk.plan(_refs(1001)))
    for request in desk.sent:
        desk.handle(request)
    for name in ("summary.json", "_SUCCESS"):
        desk.bench.s3.delete_object(Bucket=desk.bench.bucket, Key=f"predictions/job/{name}")
    desk.handle(desk.sent[1])
    assert {"_SUCCESS", "summary.json"} <= set(desk.names())


def test_a_worker_that_stops_leaves_the_job_to_the_next_one(desk: Desk) -> None:
    """Reading the reports of all parts can take minutes. On the last try the request is done: its part is written."""
    request = ClassifyRequest(schema_version=1, job_id="job", images=tuple(_refs(2)))
    desk.handle(request)
    desk.bench.s3.delete_object(Bucket=desk.bench.bucket, Key="predictions/job/_SUCCESS")
    assert isinstance(desk.outcome(request, cancelled=lambda: True), Interrupted)
    assert isinstance(desk.outcome(request, cancelled=lambda: True, last_try=True), Done)
    assert "_SUCCESS" not in desk.names()
    desk.handle(request)
    assert "_SUCCESS" in desk.names()


def test_another_object_among_the_parts_is_not_counted(desk: Desk) -> None:
    """It neither completes a job nor keeps it from being complete."""
    job = desk.plan(_refs(1001))
    desk.planner.submit(job)
    for name in ("a.txt", "old/part-00002.csv"):
        desk.bench.put(f"predictions/job/parts/{name}", b"x")
    for request in desk.sent[:2]:
        desk.handle(request)
        assert "_SUCCESS" not in desk.names()
    desk.handle(desk.sent[2])
    assert "_SUCCESS" in desk.names()


@ON_BOTH_EMULATORS
def test_workers_that_finish_at_the_same_time_write_one_summary(desk: Desk) -> None:
    """Each of them may be the last one."""
    job = desk.plan(_refs(1501))
    desk.planner.submit(job)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(desk.handle, desk.sent))
    assert {"_SUCCESS", "summary.json"} <= set(desk.names())
    assert Summary.model_validate_json(desk.bench.get(desk.folder().summary)).rows == 1501


def test_a_short_request_with_the_job_id_of_another_is_rejected(desk: Desk) -> None:
    """Even if the part of the other one was deleted: its ``job.json`` says what was asked for."""
    desk.handle(ClassifyRequest(schema_version=1, job_id="job", images=("no URI",)))
    desk.bench.s3.delete_object(Bucket=desk.bench.bucket, Key="predictions/job/parts/part-00000.csv")
    assert desk.reject(ClassifyRequest(schema_version=1, job_id="job", images=("another",))).code is ErrorCode.CONFLICT
    assert "parts/part-00000.csv" not in desk.names()


def test_a_request_with_the_job_id_of_a_planned_job_writes_no_part(desk: Desk) -> None:
    """It is rejected before it is answered: its part would be the first part of that job."""
    desk.plan(_refs(600))
    manifest = desk.bench.put("other.csv", b"source_ref\nno URI\n")
    requests = (
        ClassifyRequest(schema_version=1, job_id="job", images=("no URI",)),
        ClassifyRequest(schema_version=1, job_id="job", manifest=ManifestRef(uri=manifest)),
    )
    for request in requests:
        assert desk.reject(request).code is ErrorCode.CONFLICT
    assert not [name for name in desk.names() if name.startswith("parts")]


def test_the_requests_of_a_cancelled_job_are_dropped(desk: Desk) -> None:
    """Before anything else is checked. Their messages are done, and no part is written."""
    desk.storage.write(desk.folder().cancelled, b"x", content_type="text/plain")
    manifest = ManifestRef(uri=desk.folder().shard(0))
    for request in (
        ClassifyRequest(schema_version=1, job_id="job", images=("s3://a-bucket/b",)),
        ClassifyRequest(schema_version=1, job_id="job", manifest=manifest, shard=0),
    ):
        assert "cancelled" in desk.handle(request).what
    assert desk.names() == ["cancelled"]


def test_a_shard_that_no_job_asks_for_is_rejected(desk: Desk) -> None:
    """Its part would be counted among the parts of a job that it does not belong to."""
    job = desk.plan(_refs(600))
    asked = job.request(1, shard_uri=desk.folder().shard(1))
    for changes, code in (
        ({"job_id": "unknown"}, ErrorCode.NOT_FOUND),
        ({"shard": 2}, ErrorCode.CONFLICT),
        ({"shard": 0}, ErrorCode.CONFLICT),
        ({"threshold": 0.7}, ErrorCode.CONFLICT),
    ):
        request = asked.model_copy(update=changes)
        assert desk.reject(request).code is code
    desk.bench.put("predictions/job/shards/00001.jsonl", b"{}")
    assert desk.reject(asked).code is ErrorCode.BAD_MANIFEST
    assert not [name for name in desk.names() if name.startswith("parts")]
