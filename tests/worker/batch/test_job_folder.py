"""What a job's folder holds, read from objects in memory."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import cast

import pytest

from worker.aws.storage import Listed, Storage
from worker.batch.job_folder import DIGEST, REPORT, JobFolder, JobRecord, as_metadata
from worker.contract import Job, PartReport
from worker.errors import ErrorCode, Reject

FOLDER = JobFolder("s3://shelter/out/", "june")
WRITTEN_AT = datetime(2026, 6, 1, tzinfo=UTC)
JOB = Job(
    job_id="june",
    created_at=WRITTEN_AT,
    sources=(),
    digest="0" * 64,
    images=1200,
    shards=3,
    output_uri="s3://shelter/out/",
)


class InMemoryStorage:
    """Objects and their metadata, by URI."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, dict[str, str]]] = {}

    def put(self, uri: str, body: bytes = b"", metadata: dict[str, str] | None = None) -> None:
        self.objects[uri] = (body, metadata or {})

    def find(self, uri: str, *, max_bytes: int) -> bytes | None:
        body = self.objects[uri][0] if uri in self.objects else None
        assert body is None or len(body) <= max_bytes
        return body

    def metadata(self, uri: str) -> dict[str, str] | None:
        return self.objects[uri][1] if uri in self.objects else None

    def list(self, prefix: str, *, start_after: str | None = None) -> Iterator[Listed]:
        names = sorted(uri for uri in self.objects if uri.startswith(prefix) and uri > (start_after or ""))
        return (Listed(uri, 0, WRITTEN_AT, None) for uri in names)

    def write_once(self, uri: str, body: bytes, *, content_type: str, metadata: dict[str, str]) -> bool:
        if uri in self.objects:
            return False
        assert content_type == "application/json"
        self.put(uri, body, metadata)
        return True


@pytest.fixture
def storage() -> InMemoryStorage:
    return InMemoryStorage()


@pytest.fixture
def record(storage: InMemoryStorage) -> JobRecord:
    return JobRecord(FOLDER, cast("Storage", storage))


def _report(number: int, *, job: Job = JOB) -> PartReport:
    request = job.request(number, shard_uri=FOLDER.shard(number))
    return PartReport.model_validate(
        {"job_id": "june", "request_digest": request.digest(), "rows": 1, "scored": 1, "failed": 0, "errors": {}}
        | {
            "sha256": "0" * 64,
            "size_bytes": 1,
            "model_name": "m",
            "model_version": "v",
            "threshold": 0.5,
            "seconds": 0.1,
        }
    )


def test_an_empty_folder_holds_nothing(record: JobRecord) -> None:
    """That is not an error: the job may not be written yet."""
    assert (record.job(), record.report(0), list(record.part_numbers()), record.redrives()) == (None, None, [], [])
    assert (record.is_submitted(JOB), record.is_cancelled(), record.is_complete(JOB)) == (False, False, False)


def test_each_marker_has_its_own_meaning(storage: InMemoryStorage, record: JobRecord) -> None:
    """Submitted, cancelled, complete."""
    found = []
    for marker in (FOLDER.submitted, FOLDER.cancelled, FOLDER.success):
        storage.objects.clear()
        storage.put(marker)
        found.append((record.is_submitted(JOB), record.is_cancelled(), record.is_complete(JOB)))
    assert found == [(True, False, False), (False, True, False), (False, False, True)]


def test_a_job_is_written_once(record: JobRecord) -> None:
    """The second call changes nothing and returns False."""
    assert record.create(JOB)
    assert not record.create(JOB.model_copy(update={"images": 1}))
    assert record.job() == JOB


def test_a_job_that_twofold_did_not_write_is_a_conflict(storage: InMemoryStorage, record: JobRecord) -> None:
    """Its folder belongs to another program."""
    storage.put(FOLDER.job, b'{"job_id": "june", "status": "done"}')
    with pytest.raises(Reject, match=r"out/june/job\.json was not written by twofold") as caught:
        record.job()
    assert caught.value.code is ErrorCode.CONFLICT


def test_only_the_parts_of_the_job_are_listed(storage: InMemoryStorage, record: JobRecord) -> None:
    """Other objects are not counted, nor are copies in a folder below."""
    for name in (
        "part-00000.csv",
        "part-00002.csv",
        "part-00010.csv",
        "a.txt",
        "part-00001.csv.old",
        "x/part-00001.csv",
    ):
        storage.put(f"{FOLDER.parts}{name}")
    assert list(record.part_numbers()) == [0, 2, 10]
    assert list(record.part_numbers(start=2)) == [2, 10]
    assert dict(record.parts(start=3)) == {10: WRITTEN_AT}


def test_the_reports_of_all_parts_are_checked(storage: InMemoryStorage, record: JobRecord) -> None:
    """Each part must be there, be written by a worker, and answer the request of this job."""
    for number in range(JOB.parts):
        storage.put(FOLDER.part(number), metadata=as_metadata(_report(number)))
    assert record.answers(JOB) == [_report(number) for number in range(JOB.parts)]
    other = _report(1, job=JOB.model_copy(update={"threshold": 0.9}))
    for metadata, message, code in (
        (as_metadata(other), "answers another request", ErrorCode.CONFLICT),
        (as_metadata(_report(2)), "answers another request", ErrorCode.CONFLICT),
        ({}, "was not written by a worker", ErrorCode.CONFLICT),
    ):
        storage.put(FOLDER.part(1), metadata=metadata)
        with pytest.raises(Reject, match=message) as caught:
            record.answers(JOB)
        assert caught.value.code is code
    del storage.objects[FOLDER.part(1)]
    with pytest.raises(Reject, match=r"part-00001\.csv is not there") as caught:
        record.answers(JOB)
    assert caught.value.code is ErrorCode.NOT_FOUND


@pytest.mark.parametrize("text", [None, "", "rows: 1", "{}", '{"schema_version": 2}'])
def test_a_part_is_an_answer_only_by_its_digest_and_its_report(
    storage: InMemoryStorage, record: JobRecord, text: str | None
) -> None:
    """Another request's part is named as such, readable or not. With the right digest, its report must be readable."""
    assert record.report(0, answering="ab" * 32) is None
    unreadable = {} if text is None else {REPORT: text}
    for digest, message in (
        (None, "answers a different request: choose another job_id"),
        ("cd" * 32, "answers a different request: choose another job_id"),
        ("ab" * 32, "was not written by a worker"),
    ):
        storage.put(FOLDER.part(0), metadata=unreadable | ({} if digest is None else {DIGEST: digest}))
        with pytest.raises(Reject, match=rf"out/june/parts/part-00000\.csv {message}") as caught:
            record.report(0, answering="ab" * 32)
        assert caught.value.code is ErrorCode.CONFLICT
    ours = _report(0)
    storage.put(FOLDER.part(0), metadata=as_metadata(ours))
    assert record.report(0, answering=ours.request_digest) == ours


def test_redrives_are_listed_by_number(storage: InMemoryStorage, record: JobRecord) -> None:
    """The tenth comes after the second: the newest row of an image counts."""
    for number in (1, 2, 10):
        storage.put(f"{FOLDER.redrives}june-r{number}")
    assert record.redrives() == ["june-r1", "june-r2", "june-r10"]
    assert record.sibling("june-r2").folder == JobFolder(FOLDER.output_uri, "june-r2")
