"""One request to one part, with a real model and a real bucket, and no queue."""

import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import Bench
from worker.aws.storage import Storage
from worker.batch.job_folder import errors_uri, part_uri
from worker.batch.part import Batch
from worker.contract import ClassifyRequest, ManifestRef, PartReport
from worker.errors import ErrorCode, Reject, Retry
from worker.predictions import from_csv
from worker.scoring.decoder import MAX_BYTES
from worker.scoring.models import Models
from worker.scoring.pipeline import Pipeline

MakeBatch = Callable[[], Batch]


@pytest.fixture
def make_batch(bench: Bench, models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeBatch]:
    """Makes batches as workers of their own would: each with its own storage, model and threads."""
    champion = bench.put_bundle(models)
    opened: list[Pipeline] = []

    def make(storage: Storage | None = None) -> Batch:
        storage = storage or bench.storage(monkeypatch)
        allowed = (f"s3://{bench.bucket}/",)
        opened.append(Pipeline(storage=storage, allowed_prefixes=allowed, threads=2, fetchers=4))
        return Batch(
            storage=storage,
            models=Models(storage=storage),
            pipeline=opened[-1],
            allowed_prefixes=allowed,
            default_model=champion,
            default_output=bench.output_uri,
        )

    yield make
    for pipeline in opened:
        pipeline.__exit__()


def _request(*images: str, job_id: str = "job") -> ClassifyRequest:
    return ClassifyRequest(schema_version=1, job_id=job_id, images=images)


def _answer(batch: Batch, request: ClassifyRequest) -> PartReport:
    report = batch.answer(request)
    assert report is not None
    return report


def _put_digits(bench: Bench, digit_images: Path, count: int) -> list[str]:
    files = sorted(digit_images.rglob("*.png"))
    chosen = files[:: len(files) // count][:count]
    return [bench.put(f"in/{path.parent.name}/{path.name}", path.read_bytes()) for path in chosen]


def test_every_image_asked_for_has_one_row_in_order(bench: Bench, make_batch: MakeBatch, digit_images: Path) -> None:
    """The same image twice is two rows."""
    uris = _put_digits(bench, digit_images, 10)
    asked = [*uris, uris[3], uris[3]]
    report = _answer(make_batch(), _request(*asked))
    rows = bench.rows("job")
    assert [row.source_ref for row in rows] == asked
    assert [row.row for row in rows] == list(range(12))
    assert (report.rows, report.scored, report.failed) == (12, 12, 0)
    assert rows[3].score == rows[10].score == rows[11].score
    assert [row.label for row in rows[:10]].count("eight") == sum("/eight/" in uri for uri in uris)


def test_an_image_that_cannot_be_read_is_a_row_that_says_why(bench: Bench, make_batch: MakeBatch) -> None:
    """Blank, never 0; and the others are scored all the same."""
    picture = io.BytesIO()
    Image.new("RGB", (40, 30), "tan").save(picture, "PNG")
    asked = {
        bench.put("good.png", picture.getvalue()): None,
        bench.put("empty.jpg", b""): ErrorCode.EMPTY,
        bench.put("page.jpg", b"<!DOCTYPE html><html>"): ErrorCode.NOT_AN_IMAGE,
        bench.put("cut.png", picture.getvalue()[:60]): ErrorCode.DAMAGED,
        bench.put("huge.jpg", bytes(MAX_BYTES + 1)): ErrorCode.TOO_MANY_BYTES,
        f"s3://{bench.bucket}/missing.jpg": ErrorCode.NOT_FOUND,
        "s3://somebody-elses-bucket/a.jpg": ErrorCode.NOT_ALLOWED,
        "http://169.254.169.254/latest/meta-data/": ErrorCode.BAD_SOURCE_REF,
        "=1+1": ErrorCode.BAD_SOURCE_REF,
    }
    report = _answer(make_batch(), _request(*asked))
    rows = bench.rows("job")
    assert [row.error_code for row in rows] == [code and code.value for code in asked.values()]
    assert all((row.score is None) == (row.error_code is not None) for row in rows)
    assert (report.rows, report.scored, report.failed) == (9, 1, 8)
    assert sum(report.errors.values()) == 8


def test_the_failed_rows_are_a_manifest_to_try_again(bench: Bench, make_batch: MakeBatch, digit_images: Path) -> None:
    """A redrive is a submit: once the file is mended, its row is scored."""
    good = _put_digits(bench, digit_images, 2)
    broken = bench.put("in/broken.png", b"not yet")
    make_batch().answer(_request(*good, broken))
    errors = errors_uri(bench.output_uri, "job")
    assert [row.source_ref for row in bench.failed_rows("job")] == [broken]
    bench.put("in/broken.png", bench.get(good[0]))
    again = ClassifyRequest(schema_version=1, job_id="again", manifest=ManifestRef(uri=errors))
    assert _answer(make_batch(), again).scored == 1
    assert [row.source_ref for row in bench.rows("again")] == [broken]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_manifest_is_answered_in_its_order(
    bench: Bench, make_batch: MakeBatch, digit_images: Path, kind: str
) -> None:
    """JSON Lines and CSV."""
    uris = _put_digits(bench, digit_images, 6)[::-1]
    lines = [json.dumps({"source-ref": uri}) for uri in uris] if kind == "jsonl" else ["source_ref", *uris]
    manifest = bench.put(f"list.{kind}", "\n".join(lines).encode())
    request = ClassifyRequest(schema_version=1, job_id="job", manifest=ManifestRef(uri=manifest))
    make_batch().answer(request)
    assert [row.source_ref for row in bench.rows("job")] == uris


def test_a_request_answered_twice_changes_nothing(bench: Bench, make_batch: MakeBatch, digit_images: Path) -> None:
    """The second worker finds the part, and reports what the first one wrote."""
    request = _request(*_put_digits(bench, digit_images, 3))
    first = make_batch().answer(request)
    written = bench.get(part_uri(bench.output_uri, "job"))
    second = make_batch().answer(request)
    assert second == first
    assert bench.get(part_uri(bench.output_uri, "job")) == written


def test_four_workers_with_one_request_make_one_part(bench: Bench, make_batch: MakeBatch, digit_images: Path) -> None:
    """All report the same part."""
    request = _request(*_put_digits(bench, digit_images, 8), f"s3://{bench.bucket}/missing.jpg")
    batches = [make_batch() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda batch: batch.answer(request), batches))
    assert len({report.sha256 for report in reports}) == 1
    assert len(bench.rows("job")) == 9
    assert bench.keys("predictions/job/predictions/") == ["predictions/job/predictions/part-00000.csv"]


def test_another_request_under_the_same_job_id_is_refused(
    bench: Bench, make_batch: MakeBatch, digit_images: Path
) -> None:
    """Nothing that was answered is ever written over."""
    one, two = _put_digits(bench, digit_images, 2)
    make_batch().answer(_request(one))
    with pytest.raises(Reject) as caught:
        make_batch().answer(_request(two))
    assert caught.value.code is ErrorCode.CONFLICT
    assert [row.source_ref for row in bench.rows("job")] == [one]


def test_failed_rows_follow_from_the_part_whoever_wrote_it(bench: Bench, make_batch: MakeBatch) -> None:
    """A worker that died between the part and its failed rows is made up for by the redelivery."""
    request = _request(f"s3://{bench.bucket}/missing.jpg")
    make_batch().answer(request)
    bench.s3.delete_object(Bucket=bench.bucket, Key="predictions/job/errors/part-00000.csv")
    make_batch().answer(request)
    assert bench.failed_rows("job") == bench.rows("job")


class _Throttled(Storage):
    """A storage that answers 503 for one object."""

    def __init__(self, real: Storage, uri: str) -> None:
        super().__init__(s3=real._s3, open_bucket=real._open_bucket)
        self._throttled = uri

    def read(self, uri: str, *, max_bytes: int, version_id: str | None = None, etag: str | None = None) -> bytes:
        if uri == self._throttled:
            raise Retry(ErrorCode.UNAVAILABLE, "503 SlowDown")
        return super().read(uri, max_bytes=max_bytes, version_id=version_id, etag=etag)


def test_an_image_that_storage_withholds_sends_the_request_back(
    bench: Bench, models: Path, digit_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the last try nothing is written; on it, the image is a row and the others are scored."""
    uris = _put_digits(bench, digit_images, 3)
    storage = _Throttled(bench.storage(monkeypatch), uris[1])
    allowed = (f"s3://{bench.bucket}/",)
    with Pipeline(storage=storage, allowed_prefixes=allowed, threads=1, fetchers=2) as pipeline:
        batch = Batch(
            storage=storage,
            models=Models(storage=storage),
            pipeline=pipeline,
            allowed_prefixes=allowed,
            default_model=bench.put_bundle(models),
            default_output=bench.output_uri,
        )
        with pytest.raises(Retry):
            batch.answer(_request(*uris))
        assert bench.keys("predictions/") == []
        batch.answer(_request(*uris), last_try=True)
    assert [row.error_code for row in bench.rows("job")] == [None, "unavailable", None]


def test_a_cancelled_request_writes_nothing(bench: Bench, make_batch: MakeBatch, digit_images: Path) -> None:
    """It goes back at once, for another worker."""
    with pytest.raises(Retry) as caught:
        make_batch().answer(_request(*_put_digits(bench, digit_images, 3)), cancelled=lambda: True)
    assert caught.value.delay_s == 0
    assert bench.keys("predictions/") == []


@pytest.mark.parametrize("field", ["output_uri", "model_uri", "manifest"])
def test_a_request_outside_the_allowed_prefixes_is_refused(bench: Bench, make_batch: MakeBatch, field: str) -> None:
    """No message makes the worker read or write somebody else's bucket."""
    foreign = "s3://somebody-elses-bucket/x"
    asked = {"images": (f"s3://{bench.bucket}/a.jpg",)} if field != "manifest" else {}
    value = ManifestRef(uri=foreign) if field == "manifest" else foreign
    request = ClassifyRequest.model_validate({"schema_version": 1, "job_id": "job", **asked, field: value})
    with pytest.raises(Reject) as caught:
        make_batch().answer(request)
    assert caught.value.code is ErrorCode.NOT_ALLOWED


def test_the_threshold_of_the_request_decides(bench: Bench, make_batch: MakeBatch, digit_images: Path) -> None:
    """A score on the threshold is class 1, and every row says which threshold."""
    uris = tuple(_put_digits(bench, digit_images, 6))
    for threshold, label in ((0.0, "three"), (1.0, "eight")):
        job_id = f"job-{label}"
        request = ClassifyRequest(schema_version=1, job_id=job_id, images=uris, threshold=threshold)
        make_batch().answer(request)
        assert {(row.label, row.threshold) for row in bench.rows(job_id)} == {(label, threshold)}


def test_the_part_carries_its_report(bench: Bench, make_batch: MakeBatch, digit_images: Path) -> None:
    """Counts and digests come with the one write that commits the part."""
    report = _answer(make_batch(), _request(*_put_digits(bench, digit_images, 2)))
    part = bench.get(part_uri(bench.output_uri, "job"))
    assert report.size_bytes == len(part)
    assert report.scored == len(from_csv(part)) == 2
