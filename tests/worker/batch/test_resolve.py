"""How a request is answered: by one part, or by a job to plan. No network is involved."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from worker.aws.storage import Listed, Storage
from worker.batch.job_folder import JobFolder
from worker.batch.resolve import MAX_DIRECT, JobToPlan, PartToWrite, RequestResolver
from worker.contract import ClassifyRequest
from worker.errors import ErrorCode, Reject

OUTPUT = "s3://shelter/out/"
MODEL = "s3://shelter/models/pets/champion.json"
MANIFEST = "s3://shelter/list.csv"


class OneManifest:
    """A storage that streams one manifest, a line a piece, and counts what is read. It lists the lines as objects."""

    def __init__(self, *lines: str) -> None:
        self._lines = lines
        self.streams = 0
        self.read_lines = 0

    def stream(self, uri: str, *, version_id: str | None = None) -> Iterator[bytes]:
        assert (uri, version_id) == (MANIFEST, None)
        self.streams += 1
        return self._pieces()

    def list(self, prefix: str) -> Iterator[Listed]:
        assert prefix == "s3://shelter/"
        return (Listed(line, 1, datetime.now(UTC), None) for line in self._lines)

    def _pieces(self) -> Iterator[bytes]:
        for line in self._lines:
            self.read_lines += 1
            yield f"{line}\n".encode()


def _resolver(storage: OneManifest, **defaults: str | None) -> RequestResolver:
    known: dict[str, Any] = {"default_model": MODEL, "default_output": OUTPUT} | defaults
    return RequestResolver(
        storage=cast("Storage", storage),
        allowed_prefixes=("s3://shelter/",),
        model_prefixes=("s3://shelter/models/pets/",),
        **known,
    )


def _request(**fields: Any) -> ClassifyRequest:
    asked = fields if "images" in fields else {"manifest": {"uri": MANIFEST}} | fields
    return ClassifyRequest.model_validate({"schema_version": 1, "job_id": "job"} | asked)


def _resolve(storage: OneManifest, request: ClassifyRequest, *, planned: bool = False) -> PartToWrite | JobToPlan:
    resolver = _resolver(storage)
    return resolver.resolve(request, resolver.record(request), planned=planned)


def test_a_short_list_is_one_part() -> None:
    """Rows are numbered from 0. The worker's model and output replace what the request leaves out."""
    part = _resolve(OneManifest("source_ref", "s3://shelter/a.jpg", "s3://shelter/b.jpg"), _request())
    assert isinstance(part, PartToWrite)
    assert [(line.row, line.source_ref) for line in part.lines] == [
        (0, "s3://shelter/a.jpg"),
        (1, "s3://shelter/b.jpg"),
    ]
    assert (part.record.folder, part.model_uri) == (JobFolder(OUTPUT, "job"), MODEL)


def test_a_prefix_without_a_slash_lists_nothing_next_to_it() -> None:
    """Neither one in the settings nor one in a request: "in" does not mean "in-secret"."""
    listed: list[str] = []

    class Empty:
        def list(self, prefix: str) -> Iterator[Listed]:
            listed.append(prefix)
            return iter(())

    resolver = RequestResolver(
        storage=cast("Storage", Empty()),
        allowed_prefixes=("s3://shelter/in",),
        model_prefixes=(),
        default_model=MODEL,
        default_output=OUTPUT,
    )
    for uri, reason in (("s3://shelter/in", "no images"), ("s3://shelter/in-secret", "is outside")):
        request = _request(manifest={"uri": uri, "format": "listing"})
        with pytest.raises(Reject, match=reason):
            resolver.resolve(request, resolver.record(request))
    assert listed == ["s3://shelter/in/"]


def test_a_prefix_leaves_out_what_jobs_wrote_below_it() -> None:
    """The folder of all jobs holds CSV files, and images that were uploaded for them."""
    storage = OneManifest("s3://shelter/a.jpg", f"{OUTPUT}job/parts/part-00000.csv", "s3://shelter/outside.jpg")
    part = _resolve(storage, _request(manifest={"uri": "s3://shelter/"}))
    assert isinstance(part, PartToWrite)
    assert [line.source_ref for line in part.lines] == ["s3://shelter/a.jpg", "s3://shelter/outside.jpg"]


@pytest.mark.parametrize(("images", "kind"), [(MAX_DIRECT, PartToWrite), (MAX_DIRECT + 1, JobToPlan)])
def test_a_list_of_over_2_000_images_is_a_job_to_plan(images: int, kind: type) -> None:
    """2,000 images still fit into one part."""
    assert isinstance(_resolve(OneManifest("source_ref", *["no URI"] * images), _request()), kind)


@pytest.mark.parametrize(("images", "kind"), [(MAX_DIRECT, PartToWrite), (MAX_DIRECT + 1, JobToPlan)])
def test_the_same_limit_holds_for_the_images_of_a_request_itself(images: int, kind: type) -> None:
    """Short names make a list of many thousands in one message."""
    request = _request(images=tuple(f"{number}" for number in range(images)))
    assert isinstance(_resolve(OneManifest(), request), kind)


def test_a_list_with_other_columns_is_a_job_to_plan() -> None:
    """Only shards keep columns and versions, however short the list is."""
    for lines in (("source_ref,name", "s3://shelter/a.jpg,Rex"), ("Bucket,Key,VersionId", "shelter,a.jpg,7")):
        assert isinstance(_resolve(OneManifest(*lines), _request()), JobToPlan)


def test_a_job_that_was_planned_is_planned_again() -> None:
    """A list that is short now must not become one of the job's parts. A request with a few images is rejected."""
    storage = OneManifest("source_ref", "s3://shelter/a.jpg")
    assert isinstance(_resolve(storage, _request(), planned=True), JobToPlan)
    with pytest.raises(Reject) as caught:
        _resolve(storage, _request(images=("s3://shelter/a.jpg",)), planned=True)
    assert caught.value.code is ErrorCode.CONFLICT


def test_a_manifest_to_plan_is_read_once_and_as_a_stream() -> None:
    """Only its start is read to decide; then all images come in order."""
    refs = [f"s3://shelter/{number}.jpg" for number in range(4 * MAX_DIRECT)]
    storage = OneManifest("source_ref", *refs)
    job = _resolve(storage, _request())
    assert isinstance(job, JobToPlan)
    assert storage.read_lines < 2 * MAX_DIRECT
    assert [image.source_ref for image in job.images] == refs
    assert (storage.streams, storage.read_lines) == (1, len(refs) + 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"output_uri": "s3://another-bucket/x"},
        {"output_uri": "s3://shelter/in/"},
        {"output_uri": "s3://shelter/outside/"},
        {"output_uri": "s3://shelter/models/pets/v2/"},
        {"output_uri": "s3://shelter/"},
        {"model_uri": "s3://another-bucket/x"},
        {"model_uri": "s3://shelter/in/pets/v1"},
        {"model_uri": "s3://shelter/models/pets-2/v1"},
        {"manifest": {"uri": "s3://another-bucket/x"}},
        {"manifest": {"uri": "s3://another-bucket/x/"}},
        {"manifest": {"uri": "s3://another-bucket/x"}, "shard": 0},
    ],
    ids=[
        *("output", "output-inbox", "output-next", "output-models", "output-above"),
        *("model", "model-uploaded", "model-next", "manifest", "prefix", "shard"),
    ],
)
def test_a_request_outside_the_allowed_prefixes_is_rejected(fields: dict[str, Any]) -> None:
    """No message makes the worker use another bucket, a model from elsewhere, or a folder that is not for results."""
    with pytest.raises(Reject) as caught:
        _resolve(OneManifest("source_ref", "s3://shelter/a.jpg"), _request(**fields))
    assert caught.value.code is ErrorCode.NOT_ALLOWED
    assert "TWOFOLD_" in caught.value.message


def test_a_request_names_another_version_of_the_model_and_a_folder_below_the_output() -> None:
    """With and without the file of the model."""
    for model in ("s3://shelter/models/pets/v2", "s3://shelter/models/pets/v2/model.json", MODEL):
        part = _resolve(OneManifest("source_ref", "x"), _request(model_uri=model, output_uri=f"{OUTPUT}2026/may/"))
        assert (part.model_uri, part.record.folder.output_uri) == (model, f"{OUTPUT}2026/may/")


@pytest.mark.parametrize(
    ("output", "allowed"),
    [
        ("s3://shelter/anywhere/", True),
        ("s3://shelter/", False),
        ("s3://shelter/models/", False),
        ("s3://shelter/models/pets/june/", False),
        ("s3://another-bucket/x", False),
    ],
)
def test_without_a_default_output_a_job_may_write_anywhere_but_among_models(output: str, *, allowed: bool) -> None:
    """Nor above them, where the name of a job could be that of their folder."""
    resolver = _resolver(OneManifest(), default_output=None)
    request = _request(images=("s3://shelter/a.jpg",), output_uri=output)
    if allowed:
        assert resolver.record(request).folder == JobFolder(output, "job")
    else:
        with pytest.raises(Reject, match="not_allowed"):
            resolver.record(request)


@pytest.mark.parametrize("name", ["model", "output"])
def test_a_request_without_a_model_or_an_output_is_rejected(name: str) -> None:
    """If the worker has no default either, the message names the variable to set."""
    resolver = _resolver(OneManifest(), **{f"default_{name}": None})
    request = _request(images=("s3://shelter/a.jpg",))
    with pytest.raises(Reject, match=f"TWOFOLD_{name.upper()}_URI") as caught:
        resolver.resolve(request, resolver.record(request))
    assert caught.value.code is ErrorCode.BAD_REQUEST
