"""A long list to a job: shards, job.json, and a message for each shard."""

import json
import threading
import time
from typing import Any

import pytest

from tests.desk import ON_BOTH_EMULATORS, Desk, fill
from worker.batch.job_folder import JobFolder
from worker.batch.plan import ModelChoice, new_job
from worker.batch.shards import Shards
from worker.contract import ClassifyRequest, Job, ManifestRef
from worker.dispatch import Done
from worker.errors import ErrorCode, Reject
from worker.manifest.formats import ImageRef
from worker.predictions import from_csv


def _refs(count: int) -> list[str]:
    """References that cost nothing: they fail before anything is read."""
    return [f"no URI {number}" for number in range(count)]


def test_a_long_manifest_is_planned_by_the_worker_that_receives_it(desk: Desk) -> None:
    """If the message comes twice, the plan is the same, and every image has one row."""
    refs = _refs(2001)
    manifest = desk.bench.put("lists/long.csv", "\n".join(["source_ref,name", *(f"{ref},x" for ref in refs)]).encode())
    request = ClassifyRequest(schema_version=1, job_id="job", manifest=ManifestRef(uri=manifest))
    moved: list[None] = []
    assert isinstance(desk.outcome(request, progress=lambda: moved.append(None)), Done)
    assert len(moved) >= 2001 + 5  # a worker that plans makes progress with each image and each shard
    first = list(desk.sent)
    desk.handle(request)
    assert desk.sent == first
    for one in first:
        desk.handle(one)
    rows = [row for number in range(5) for row in from_csv(desk.bench.get(desk.folder().part(number)))]
    assert [row.source_ref for row in rows] == refs
    job = Job.model_validate_json(desk.bench.get(desk.folder().job))
    assert (job.columns, job.shards) == (("name",), 5)
    assert job.model_uri == f"s3://{desk.bench.bucket}/models/digits/v1"  # one bundle, wherever the champion moves


def test_a_long_list_in_a_message_is_planned_like_a_manifest(desk: Desk) -> None:
    """A part of many thousands of images would outlast a call of the Lambda. Sent twice, it is planned once."""
    refs = tuple(_refs(2001))
    request = ClassifyRequest(schema_version=1, job_id="job", images=refs)
    desk.handle(request)
    desk.handle(request)
    sent = list(desk.sent)
    for one in sent:
        desk.handle(one)
    desk.handle(request)
    assert [one.shard for one in desk.sent] == [0, 1, 2, 3, 4]
    rows = [row for number in range(5) for row in from_csv(desk.bench.get(desk.folder().part(number)))]
    assert [(row.row, row.source_ref) for row in rows] == list(enumerate(refs))
    assert "_SUCCESS" in desk.names()
    assert Job.model_validate_json(desk.bench.get(desk.folder().job)).sources == ()
    for other in (refs[:3], refs[:2000], (*refs[:2000], "another")):
        refusal = desk.reject(ClassifyRequest(schema_version=1, job_id="job", images=other))
        assert refusal.code is ErrorCode.CONFLICT


def test_shards_that_are_written_at_once_take_the_memory_of_the_largest(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen of them would take more than a container has."""
    monkeypatch.setattr("worker.batch.plan.MAX_SHARD_BYTES", 1)
    write, under_way, most = desk.storage.write_once, threading.Semaphore(0), []

    def write_once(uri: str, body: bytes, **options: Any) -> bool:
        under_way.release()
        most.append(under_way._value)
        time.sleep(0.02)
        written = write(uri, body, **options)
        under_way.acquire()
        return written

    monkeypatch.setattr(desk.storage, "write_once", write_once)
    desk.plan(_refs(3000))
    assert most == [1] * 7  # six shards and job.json


def test_a_list_whose_columns_take_too_much_is_refused_before_anything_is_written(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker could not hold its shard in memory."""
    monkeypatch.setattr("worker.batch.shards.MAX_SHARD_BYTES", 30_000)
    lines = ["source_ref,note", *(f"no URI,{'x' * 1000}" for _ in range(40))]
    manifest = ManifestRef(uri=desk.bench.put("list.csv", "\n".join(lines).encode()))
    refusal = desk.reject(ClassifyRequest(schema_version=1, job_id="job", manifest=manifest))
    assert (refusal.code, desk.names(), desk.sent) == (ErrorCode.BAD_MANIFEST, [], [])
    assert "leave some out, or shorten them" in refusal.message


def test_a_job_that_was_begun_goes_on_with_its_model(desk: Desk) -> None:
    """The planner died before it sent the messages, and the champion has moved since."""
    manifest = desk.bench.put("long.csv", b"source_ref\n" + b"no URI\n" * 2001)
    request = ClassifyRequest(schema_version=1, job_id="job", manifest=ManifestRef(uri=manifest))
    desk.handle(request)
    desk.bench.s3.delete_object(Bucket=desk.bench.bucket, Key="predictions/job/submitted")
    champion = "models/digits/champion.json"
    moved = desk.bench.get(f"s3://{desk.bench.bucket}/{champion}").replace(b'"v1"', b'"v2"')
    desk.bench.put(champion, moved)
    desk.sent.clear()
    desk.handle(request)
    assert {one.model_uri for one in desk.sent} == {f"s3://{desk.bench.bucket}/models/digits/v1"}
    assert len(desk.sent) == 5


def test_two_planners_of_one_job_return_the_same_job(desk: Desk) -> None:
    """If another planner writes ``job.json`` while the shards are being written, its model counts."""
    with Shards() as shards:
        fill(shards, [ImageRef("no URI")] * 600)
        champion, name = f"s3://{desk.bench.bucket}/models/digits/champion.json", desk.folder()

        def job(version: str) -> Job:
            model = ModelChoice(asked=champion, pinned=f"s3://{desk.bench.bucket}/models/digits/{version}")
            return new_job(name, shards, sources=(), model=model, threshold=None)

        first = job("v2")

        def meanwhile(_: int) -> None:
            desk.record().create(first)

        written = desk.planner.write(shards, job("v1"), advance=meanwhile)
    assert written == first


def test_the_columns_of_a_short_list_are_kept_in_a_shard(desk: Desk) -> None:
    """A list with more than references is planned, however short it is."""
    manifest = desk.bench.put("short.csv", b"source_ref,name\nno URI,Rex\n")
    desk.handle(ClassifyRequest(schema_version=1, job_id="job", manifest=ManifestRef(uri=manifest)))
    assert [one.shard for one in desk.sent] == [0]
    assert json.loads(desk.bench.get(desk.folder().shard(0)))["columns"] == {"name": "Rex"}


@ON_BOTH_EMULATORS
def test_a_listing_takes_nothing_from_a_folder_whose_name_begins_alike(desk: Desk) -> None:
    """Neither when the request writes its prefix without a slash."""
    for key in ("in/a.jpg", "in/deep/b.jpg", "in-secret/c.jpg", "in.jpg"):
        desk.bench.put(key, b"")
    listing = ManifestRef(uri=f"s3://{desk.bench.bucket}/in", format="listing")
    desk.handle(ClassifyRequest(schema_version=1, job_id="job", manifest=listing))
    rows = from_csv(desk.bench.get(desk.folder().part()))
    assert [row.source_ref for row in rows] == [f"{listing.uri}/a.jpg", f"{listing.uri}/deep/b.jpg"]


@ON_BOTH_EMULATORS
def test_another_list_with_the_same_job_id_is_rejected_before_a_message_is_sent(desk: Desk) -> None:
    """Even if the first planner was killed after its first shard."""
    desk.plan(_refs(600))
    for _ in range(2):
        with pytest.raises(Reject) as caught:
            desk.plan(_refs(601))
        assert caught.value.code is ErrorCode.CONFLICT
        desk.bench.s3.delete_object(Bucket=desk.bench.bucket, Key="predictions/job/job.json")
        desk.bench.s3.delete_object(Bucket=desk.bench.bucket, Key="predictions/job/shards/00001.jsonl")
    desk.plan(_refs(600))
    assert desk.names() == ["job.json", "shards/00000.jsonl", "shards/00001.jsonl"]


def test_another_model_or_threshold_with_the_same_job_id_is_rejected(desk: Desk) -> None:
    """A job is its images and the model and threshold that were asked for."""
    with Shards() as shards:
        fill(shards, [ImageRef("no URI")])
        first = new_job(desk.folder(), shards, sources=(), model=ModelChoice(), threshold=0.5)
        desk.planner.write(shards, first)
        for changes in ({"asked_model_uri": "s3://shelter/models/pets"}, {"threshold": 0.9}, {"parent": "june"}):
            with pytest.raises(Reject) as caught:
                desk.planner.write(shards, first.model_copy(update=changes))
            assert caught.value.code is ErrorCode.CONFLICT
        moved = first.model_copy(update={"model_uri": "s3://shelter/models/pets/v2"})
        assert desk.planner.write(shards, moved) == first


def test_a_redrive_has_the_columns_of_its_parent() -> None:
    """Even those that its own images do not have, so that both make one table."""
    with Shards() as shards:
        shards.add(ImageRef("no URI", columns={"name": "Rex"}))
        folder, choice = JobFolder("s3://shelter/out", "june"), ModelChoice()
        parent = new_job(folder, shards, sources=(), model=choice, threshold=None)
        parent = parent.model_copy(update={"columns": ("keeper", "name")})
        redrive = new_job(folder, shards, sources=(), model=choice, threshold=None, parent=parent)
    assert (redrive.parent, redrive.columns) == ("june", ("keeper", "name"))
