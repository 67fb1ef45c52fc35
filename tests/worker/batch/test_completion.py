"""When the last part is in: job.json, summary.json, a notice and _SUCCESS, whoever comes when."""

from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from tests.desk import Desk
from worker.contract import ClassifyRequest, ManifestRef, Summary
from worker.errors import ErrorCode
from worker.predictions import from_csv


def _refs(count: int) -> list[str]:
    """References that cost nothing: they fail before anything is read."""
    return [f"no URI {number}" for number in range(count)]


def test_a_short_request_is_a_job_of_one_part(desk: Desk, digit_images: Path) -> None:
    """Written down afterwards, so that all jobs look the same."""
    picture = desk.bench.put("a.png", next(digit_images.rglob("*.png")).read_bytes())
    asked = (picture, picture, *_refs(1))
    desk.handle(ClassifyRequest(schema_version=1, job_id="job", images=asked))
    names = ["_SUCCESS", "errors/part-00000.csv", "job.json", "predictions/part-00000.csv", "summary.json"]
    assert desk.names() == names
    summary = Summary.model_validate_json(desk.bench.get(desk.folder("job").summary))
    assert (summary.rows, summary.scored, summary.failed) == (3, 2, 1)
    ones = sum(row.label == "three" for row in from_csv(desk.bench.get(desk.folder("job").part())))
    assert (summary.errors, summary.positives) == ({"bad_source_ref": 1}, ones)
    assert summary.models == ("digits v1",)
    part = desk.bench.get(desk.folder("job").part())
    assert (summary.parts[0].sha256, summary.parts[0].size_bytes) == (sha256(part).hexdigest(), len(part))
    assert desk.notices == [summary]


def test_a_job_is_complete_with_its_last_part_whichever_that_is(desk: Desk) -> None:
    """Parts may come in any order; rows go on being numbered through the whole job."""
    job = desk.plan(_refs(1001))
    assert desk.planner.submit(job) == 3
    for request in (desk.sent[2], desk.sent[0]):
        desk.handle(request)
        assert "_SUCCESS" not in desk.names()
        assert desk.notices == []
    desk.handle(desk.sent[1])
    assert {"_SUCCESS", "summary.json"} <= set(desk.names())
    assert desk.notices[0].rows == 1001
    rows = [row for number in range(3) for row in from_csv(desk.bench.get(desk.folder("job").part(number)))]
    assert [(row.row, row.source_ref) for row in rows] == list(enumerate(_refs(1001)))


def test_whoever_dies_before_the_end_is_made_up_for(desk: Desk) -> None:
    """The message comes back, finds its part, and closes the job. A notice may come twice, and never not at all."""
    request = ClassifyRequest(schema_version=1, job_id="job", images=tuple(_refs(2)))
    desk.handle(request)
    written = ["job.json", "summary.json", "_SUCCESS"]
    for reached in range(3):
        for name in written[reached:]:
            desk.bench.s3.delete_object(Bucket=desk.bench.bucket, Key=f"predictions/job/{name}")
        desk.handle(request)
        assert set(written) <= set(desk.names())
    desk.handle(request)
    assert len(desk.notices) == 4  # the first time, and each time that it was not known to be told


def test_another_object_among_the_parts_is_not_counted(desk: Desk) -> None:
    """It neither completes a job nor keeps it from being complete."""
    job = desk.plan(_refs(1001))
    desk.planner.submit(job)
    for name in ("a.txt", "old/part-00002.csv"):
        desk.bench.put(f"predictions/job/predictions/{name}", b"x")
    for request in desk.sent[:2]:
        desk.handle(request)
        assert "_SUCCESS" not in desk.names()
    desk.handle(desk.sent[2])
    assert "_SUCCESS" in desk.names()


def test_workers_that_finish_at_once_write_one_summary(desk: Desk) -> None:
    """Each may see itself as the last one."""
    job = desk.plan(_refs(1501))
    desk.planner.submit(job)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(desk.handle, desk.sent))
    assert {"_SUCCESS", "summary.json"} <= set(desk.names())
    assert Summary.model_validate_json(desk.bench.get(desk.folder("job").summary)).rows == 1501


def test_a_short_request_under_the_name_of_another_is_refused(desk: Desk) -> None:
    """Also when the part of that one was removed: its ``job.json`` says what was asked for."""
    desk.handle(ClassifyRequest(schema_version=1, job_id="job", images=("no URI",)))
    desk.bench.s3.delete_object(Bucket=desk.bench.bucket, Key="predictions/job/predictions/part-00000.csv")
    assert desk.reject(ClassifyRequest(schema_version=1, job_id="job", images=("another",))).code is ErrorCode.CONFLICT


def test_a_request_under_the_name_of_a_planned_job_spoils_none_of_its_parts(desk: Desk) -> None:
    """It is refused before it is answered: its one part would have been the first of that job."""
    desk.plan(_refs(600))
    manifest = desk.bench.put("other.csv", b"source_ref\nno URI\n")
    requests = (
        ClassifyRequest(schema_version=1, job_id="job", images=("no URI",)),
        ClassifyRequest(schema_version=1, job_id="job", manifest=ManifestRef(uri=manifest)),
    )
    for request in requests:
        assert desk.reject(request).code is ErrorCode.CONFLICT
    assert not [name for name in desk.names() if name.startswith("predictions")]


def test_the_requests_of_a_cancelled_job_are_dropped(desk: Desk) -> None:
    """Before anything else is checked; each is done, and no part is written."""
    desk.storage.write(desk.folder("job").cancelled, b"x", content_type="text/plain")
    manifest = ManifestRef(uri=desk.folder("job").shard(0))
    for request in (
        ClassifyRequest(schema_version=1, job_id="job", images=("s3://a-bucket/b",)),
        ClassifyRequest(schema_version=1, job_id="job", manifest=manifest, shard=0),
    ):
        assert "cancelled" in desk.handle(request).what
    assert desk.names() == ["cancelled"]


def test_a_shard_that_no_job_asks_for_is_refused(desk: Desk) -> None:
    """No part is written that would stand among those of a job and is none of it."""
    job = desk.plan(_refs(600))
    true = job.request(1, shard_uri=desk.folder("job").shard(1))
    for changes, code in (
        ({"job_id": "unheard-of"}, ErrorCode.NOT_FOUND),
        ({"shard": 2}, ErrorCode.CONFLICT),
        ({"shard": 0}, ErrorCode.CONFLICT),
        ({"threshold": 0.7}, ErrorCode.CONFLICT),
    ):
        request = true.model_copy(update=changes)
        assert desk.reject(request).code is code
    desk.bench.put("predictions/job/shards/00001.jsonl", b"{}")
    assert desk.reject(true).code is ErrorCode.BAD_MANIFEST
    assert not [name for name in desk.names() if name.startswith("predictions")]
