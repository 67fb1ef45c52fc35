"""One request to one part, with a real model and a real bucket, and no queue."""

import io
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import Bench
from tests.desk import ON_BOTH_EMULATORS, Desk
from worker.aws.storage import Storage
from worker.contract import ClassifyRequest, ManifestRef
from worker.dispatch import Done
from worker.errors import ErrorCode, Interrupted, Retry
from worker.scoring.limits import MAX_BYTES
from worker.scoring.pipeline import Pipeline
from worker.scoring.sandbox import Sandbox

MakeDesk = Callable[[], Desk]


@pytest.fixture
def make_desk(bench: Bench, models: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeDesk]:
    """Makes workers, each with its own model and threads."""
    champion = bench.put_bundle(models)
    with ExitStack() as opened:

        def make() -> Desk:
            storage = bench.storage(monkeypatch)
            allowed = (f"s3://{bench.bucket}/",)
            pipeline = Pipeline(storage=storage, sandbox=sandbox, allowed_prefixes=allowed, fetchers=4)
            return Desk(bench, storage, opened.enter_context(pipeline), champion)

        yield make


def _request(*images: str, job_id: str = "job", threshold: float | None = None) -> ClassifyRequest:
    return ClassifyRequest(schema_version=1, job_id=job_id, images=images, threshold=threshold)


def _manifest(uri: str, *, job_id: str = "job") -> ClassifyRequest:
    return ClassifyRequest(schema_version=1, job_id=job_id, manifest=ManifestRef(uri=uri))


def _put_digits(bench: Bench, digit_images: Path, count: int) -> list[str]:
    files = sorted(digit_images.rglob("*.png"))
    chosen = files[:: len(files) // count][:count]
    return [bench.put(f"in/{path.parent.name}/{path.name}", path.read_bytes()) for path in chosen]


def test_every_image_asked_for_has_one_row_in_order(desk: Desk, digit_images: Path) -> None:
    """The same image twice is two rows."""
    uris = _put_digits(desk.bench, digit_images, 10)
    asked = [*uris, uris[3], uris[3]]
    report = desk.answer(_request(*asked))
    rows = desk.bench.rows("job")
    assert [row.source_ref for row in rows] == asked
    assert [row.row for row in rows] == list(range(12))
    assert (report.rows, report.scored, report.failed) == (12, 12, 0)
    assert rows[3].score == rows[10].score == rows[11].score
    assert [row.label for row in rows[:10]].count("eight") == sum("/eight/" in uri for uri in uris)


def test_an_image_that_cannot_be_read_has_a_row_with_the_reason(desk: Desk) -> None:
    """Its score is blank, never 0, and the other images are scored."""
    bench = desk.bench
    image = io.BytesIO()
    Image.new("RGB", (40, 30), "tan").save(image, "PNG")
    asked = {
        bench.put("good.png", image.getvalue()): None,
        bench.put("empty.jpg", b""): ErrorCode.EMPTY,
        bench.put("page.jpg", b"<!DOCTYPE html><html>"): ErrorCode.NOT_AN_IMAGE,
        bench.put("cut.png", image.getvalue()[:60]): ErrorCode.DAMAGED,
        bench.put("huge.jpg", bytes(MAX_BYTES + 1)): ErrorCode.TOO_MANY_BYTES,
        f"s3://{bench.bucket}/missing.jpg": ErrorCode.NOT_FOUND,
        "s3://another-bucket/a.jpg": ErrorCode.NOT_ALLOWED,
        "http://169.254.169.254/latest/meta-data/": ErrorCode.BAD_SOURCE_REF,
        "=1+1": ErrorCode.BAD_SOURCE_REF,
    }
    report = desk.answer(_request(*asked))
    rows = bench.rows("job")
    assert [row.error_code for row in rows] == [code and code.value for code in asked.values()]
    assert all((row.score is None) == (row.error_code is not None) for row in rows)
    assert (report.rows, report.scored, report.failed) == (9, 1, 8)
    assert sum(report.errors.values()) == 8


def test_the_failed_rows_are_a_manifest_to_try_again(desk: Desk, digit_images: Path) -> None:
    """Once the image is repaired, a request for that manifest scores it."""
    bench = desk.bench
    good = _put_digits(bench, digit_images, 2)
    broken = bench.put("in/broken.png", b"not an image")
    desk.answer(_request(*good, broken))
    assert [row.source_ref for row in bench.failed_rows("job")] == [broken]
    bench.put("in/broken.png", bench.get(good[0]))
    assert desk.answer(_manifest(desk.folder().errors(), job_id="again")).scored == 1
    assert [row.source_ref for row in bench.rows("again")] == [broken]


def test_a_manifest_is_answered_in_its_order(desk: Desk, digit_images: Path) -> None:
    """JSON Lines and CSV."""
    uris = _put_digits(desk.bench, digit_images, 6)[::-1]
    for kind, lines in (
        ("jsonl", [json.dumps({"source-ref": uri}) for uri in uris]),
        ("csv", ["source_ref", *uris]),
    ):
        manifest = desk.bench.put(f"list.{kind}", "\n".join(lines).encode())
        desk.answer(_manifest(manifest, job_id=kind))
        assert [row.source_ref for row in desk.bench.rows(kind)] == uris


@ON_BOTH_EMULATORS
def test_a_request_that_is_answered_twice_changes_nothing(make_desk: MakeDesk, digit_images: Path) -> None:
    """The second worker finds the part and returns its report. It needs neither the list nor the model."""
    first, second = make_desk(), make_desk()
    bench = first.bench
    manifest = bench.put("list.csv", "\n".join(["source_ref", *_put_digits(bench, digit_images, 3)]).encode())
    report = first.answer(_manifest(manifest))
    written = bench.get(first.folder().part())
    for key in ("list.csv", "models/digits/champion.json"):
        bench.s3.delete_object(Bucket=bench.bucket, Key=key)
    assert second.answer(_manifest(manifest)) == report
    assert bench.get(first.folder().part()) == written


@ON_BOTH_EMULATORS
def test_four_workers_with_one_request_write_one_part(make_desk: MakeDesk, digit_images: Path) -> None:
    """All of them return the report of the part that was written first."""
    desks = [make_desk() for _ in range(4)]
    bench = desks[0].bench
    request = _request(*_put_digits(bench, digit_images, 8), f"s3://{bench.bucket}/missing.jpg")
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda desk: desk.answer(request), desks))
    assert len({report.model_dump_json() for report in reports}) == 1
    assert len(bench.rows("job")) == 9
    assert bench.keys("predictions/job/parts/") == ["predictions/job/parts/part-00000.csv"]


def test_another_request_with_the_same_job_id_is_rejected(desk: Desk, digit_images: Path) -> None:
    """A part is never overwritten."""
    one, two = _put_digits(desk.bench, digit_images, 2)
    desk.answer(_request(one))
    assert desk.reject(_request(two)).code is ErrorCode.CONFLICT
    assert [row.source_ref for row in desk.bench.rows("job")] == [one]


def test_a_redelivery_writes_failed_rows_that_are_missing(desk: Desk) -> None:
    """A worker may die between the part and its failed rows."""
    request = _request(f"s3://{desk.bench.bucket}/missing.jpg")
    desk.answer(request)
    desk.bench.s3.delete_object(Bucket=desk.bench.bucket, Key="predictions/job/errors/part-00000.csv")
    desk.answer(request)
    assert desk.bench.failed_rows("job") == desk.bench.rows("job")


class _Throttled(Storage):
    """A storage that answers 503 for one object."""

    def __init__(self, real: Storage, uri: str) -> None:
        super().__init__(s3=real._s3, open_bucket=real._open_bucket)
        self._throttled = uri

    def fetch(self, uri: str, **options: Any) -> Any:
        if uri == self._throttled:
            raise Retry(ErrorCode.UNAVAILABLE, "503 SlowDown")
        return super().fetch(uri, **options)


def test_an_image_that_storage_withholds_sends_the_request_back(
    bench: Bench, models: Path, sandbox: Sandbox, digit_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written before the last try; on it, the image is a row and the others are scored."""
    uris = _put_digits(bench, digit_images, 3)
    storage = _Throttled(bench.storage(monkeypatch), uris[1])
    allowed = (f"s3://{bench.bucket}/",)
    with Pipeline(storage=storage, sandbox=sandbox, allowed_prefixes=allowed, fetchers=2) as pipeline:
        desk = Desk(bench, storage, pipeline, bench.put_bundle(models))
        assert isinstance(desk.outcome(_request(*uris)), Retry)
        assert bench.keys("predictions/") == []
        desk.handle(_request(*uris), last_try=True)
    assert [row.error_code for row in bench.rows("job")] == [None, "unavailable", None]


def test_storage_that_is_silent_costs_a_request_its_time_and_no_more(
    desk: Desk, digit_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again; on the last try, what was not delivered is a row, and the rest is scored."""
    images = _put_digits(desk.bench, digit_images, 4)
    fetch, end = desk.storage.fetch, threading.Event()

    def fetch_some(uri: str, **how: Any) -> Any:
        if uri in images[1::2]:
            end.wait(60)
        return fetch(uri, **how)

    monkeypatch.setattr(desk.storage, "fetch", fetch_some)
    assert isinstance(desk.outcome(_request(*images), left_s=1), Retry)
    assert isinstance(desk.outcome(_request(*images), left_s=1, last_try=True), Done)
    end.set()
    assert [row.error_code for row in desk.bench.rows("job")] == [None, "unavailable"] * 2


def test_a_cancelled_request_writes_nothing(desk: Desk, digit_images: Path) -> None:
    """It goes back at once, for another worker."""
    request = _request(*_put_digits(desk.bench, digit_images, 3))
    outcome = desk.outcome(request, cancelled=lambda: True)
    assert isinstance(outcome, Interrupted)
    assert outcome.delay_s == 0
    assert desk.bench.keys("predictions/") == []


def test_the_threshold_of_the_request_decides(desk: Desk, digit_images: Path) -> None:
    """A score on the threshold is class 1, and every row has the threshold."""
    uris = _put_digits(desk.bench, digit_images, 6)
    for threshold, label in ((0.0, "three"), (1.0, "eight")):
        job_id = f"job-{label}"
        desk.answer(_request(*uris, job_id=job_id, threshold=threshold))
        assert {(row.label, row.threshold) for row in desk.bench.rows(job_id)} == {(label, threshold)}


def test_the_part_carries_its_report(desk: Desk, digit_images: Path) -> None:
    """Counts and digests come with the one write that commits the part."""
    report = desk.answer(_request(*_put_digits(desk.bench, digit_images, 2)))
    assert report.size_bytes == len(desk.bench.get(desk.folder().part()))
    assert report.scored == len(desk.bench.rows("job")) == 2


def test_waiting_for_an_image_is_not_progress(desk: Desk, digit_images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row is, so that the health of a worker whose storage is silent grows old."""
    images = _put_digits(desk.bench, digit_images, 4)
    fetch, answer, waited, moved = desk.storage.fetch, threading.Event(), [0], []

    def fetch_slowly(uri: str, **how: Any) -> Any:
        if "/in/" in uri:
            answer.wait(30)
        return fetch(uri, **how)

    def cancelled() -> bool:
        waited[0] += 1
        if waited[0] == 3:
            answer.set()
        return False

    monkeypatch.setattr(desk.storage, "fetch", fetch_slowly)
    done = desk.outcome(_request(*images), cancelled=cancelled, progress=lambda: moved.append(waited[0]))
    assert isinstance(done, Done)
    assert len(moved) == len(images) + 1  # and the part, as it is counted
    assert moved[0] >= 3
