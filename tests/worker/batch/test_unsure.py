"""A band of unsure scores: of the model or of the request, in every part of a job, with a real model and bucket."""

import json
from pathlib import Path

import pytest

from tests.desk import Desk
from worker.contract import ClassifyRequest, ManifestRef, ModelManifest
from worker.errors import ErrorCode
from worker.predictions import COLUMNS, from_csv
from worker.uris import split


def _put(desk: Desk, digit_images: Path, count: int = 20) -> list[str]:
    """Images of both classes, and one that is not there."""
    files = sorted(digit_images.rglob("*.png"))[:: 300 // count][:count]
    uris = [desk.bench.put(f"in/{path.parent.name}-{path.name}", path.read_bytes()) for path in files]
    return [*uris, f"s3://{desk.bench.bucket}/in/gone.png"]


def _middle(desk: Desk, uris: list[str]) -> tuple[float, float]:
    """A band that holds the threshold and some of these images, as they are scored without a band."""
    desk.handle(ClassifyRequest(schema_version=1, job_id="plain", images=tuple(uris)))
    scores = sorted(row.score for row in desk.bench.rows("plain") if row.score is not None)
    low = max(score for score in scores if score < 0.5)
    high = sorted(score for score in scores if score >= 0.5)[1]
    return low, high


def _with_band(desk: Desk, band: tuple[float, float]) -> None:
    """Gives the model a band, as training does."""
    uri = f"s3://{desk.bench.bucket}/models/digits/v1/model.json"
    manifest = ModelManifest.parse(desk.bench.get(uri)).model_copy(update={"unsure": band})
    desk.bench.put(split(uri)[1], manifest.model_dump_json(indent=2).encode())


@pytest.mark.parametrize("whose", ["request", "model"])
def test_a_band_adds_the_column_decision_to_every_part(desk: Desk, digit_images: Path, whose: str) -> None:
    """Of a short list in the message; the report and the summary count the unsure rows."""
    uris = _put(desk, digit_images)
    if whose == "model":
        band = (0.001, 0.999)
        _with_band(desk, band)
    else:
        band = _middle(desk, uris)
    asked = band if whose == "request" else None
    report = desk.answer(ClassifyRequest(schema_version=1, job_id="job", images=tuple(uris), unsure=asked))
    data = desk.bench.get(desk.folder().part())
    assert data.splitlines()[0].decode() == ",".join([*COLUMNS, "decision"])
    rows = from_csv(data)
    assert rows[-1].decision is None
    assert rows[-1].error_code == ErrorCode.NOT_FOUND
    unsure = [row for row in rows if row.score is not None and band[0] <= row.score < band[1]]
    assert unsure
    assert [row.decision for row in rows[:-1]] == [
        "unsure" if row in unsure else row.label for row in rows if row.score is not None
    ]
    assert (report.unsure, report.unsure_rows) == (band, len(unsure))
    summary = desk.record().summary()
    assert summary is not None
    assert (summary.unsure_rows, summary.rows) == (len(unsure), len(uris))
    assert desk.notices[-1].unsure_rows == len(unsure)
    failed = desk.bench.get(desk.folder().errors())
    assert failed.splitlines()[0].decode() == ",".join(COLUMNS)
    job = desk.record().job()
    assert job is not None
    assert job.unsure == asked


def test_without_a_band_nothing_that_a_worker_writes_names_one(desk: Desk, digit_images: Path) -> None:
    """Files, and the metadata of parts, are what they were before there were bands."""
    desk.handle(ClassifyRequest(schema_version=1, job_id="job", images=tuple(_put(desk, digit_images))))
    for key in desk.bench.keys("predictions/job/"):
        found = desk.bench.s3.get_object(Bucket=desk.bench.bucket, Key=key)
        text = found["Body"].read() + json.dumps(found["Metadata"]).encode()
        assert b"unsure" not in text, key
        assert b"decision" not in text, key


def test_a_planned_job_has_its_band_in_every_request(desk: Desk, digit_images: Path) -> None:
    """The list in storage names no band: the request does."""
    uris = _put(desk, digit_images, 4)
    manifest = desk.bench.put(
        "lists/long.csv", "\n".join(["source_ref,name", *(f"{uri},x" for uri in uris * 120)]).encode()
    )
    asked = ClassifyRequest(
        schema_version=1, job_id="job", manifest=ManifestRef(uri=manifest), threshold=0.5, unsure=(0.0, 1.0)
    )
    desk.handle(asked)
    assert [request.unsure for request in desk.sent] == [(0.0, 1.0)] * 2
    for request in desk.sent:
        desk.handle(request)
    rows = [row for number in (0, 1) for row in from_csv(desk.bench.get(desk.folder().part(number)))]
    assert {row.decision for row in rows if row.score is not None} == {"unsure"}
    summary = desk.record().summary()
    assert summary is not None
    assert summary.unsure_rows == sum(row.score is not None for row in rows) == 480


def test_a_request_whose_band_does_not_fit_the_model_is_refused_with_the_reason(desk: Desk) -> None:
    """Before any image is read; the threshold is the model's own."""
    refused = desk.reject(ClassifyRequest(schema_version=1, job_id="job", images=("no URI",), unsure=(0.6, 0.7)))
    assert refused.code is ErrorCode.BAD_REQUEST
    assert "'unsure' must hold the threshold: 0.5 is not from 0.6 to 0.7" in refused.message
