"""Message bodies: a request, or an S3 event that comes directly, through SNS or through EventBridge."""

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hostile.bodies import Sent, bridged, event, through_sns
from tests.hostile.catalogue import BAD_REQUEST, CATALOGUE, REQUEST, Entry
from worker.contract import ClassifyRequest
from worker.messages import job_id_of, read

keys = st.text(st.sampled_from(" +%\"',;=#?&/é😀") | st.characters(exclude_categories=["Cc", "Cs"]), min_size=1).filter(
    lambda key: len(key) < 100 and not {".", ".."} & set(key.split("/"))
)


def _refusal(body: str) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        read(body)
    return str(caught.value)


def _one(document: Any) -> ClassifyRequest:
    (request,) = read(json.dumps(document))
    return request


@given(keys)
def test_the_object_of_an_event_is_the_manifest(key: str) -> None:
    """Whatever its key. S3 URL-encodes keys, through SNS too; EventBridge does not."""
    uri = f"s3://hostile/{key}"
    for document in (event(key), through_sns(event(key)), bridged(key)):
        request = _one(document)
        assert request.manifest is not None
        assert request.manifest.uri == uri
        assert ClassifyRequest.parse(request.model_dump_json()) == request
    assert _one(event(key)) == _one(bridged(key))


def test_a_request_may_come_through_sns() -> None:
    """A topic between producer and queue changes nothing."""
    request = {"schema_version": 1, "job_id": "x", "images": ["s3://hostile/a.jpg"]}
    assert _one(request) == _one(through_sns(request)) == ClassifyRequest.parse(json.dumps(request))


def test_one_upload_is_one_job_however_often_its_event_comes() -> None:
    """S3 may send an event twice. Another upload of the same key is another job."""
    assert _one(event("inbox/june.csv")) == _one(event("inbox/june.csv"))
    again = json.dumps(event("inbox/june.csv")).replace("0055AED6DCD90281E5", "0055AED6DCD90281E6")
    assert read(again)[0].job_id != _one(event("inbox/june.csv")).job_id
    assert _one(event("inbox/june.csv")).job_id.startswith("june-")


def test_the_uploaded_version_is_the_one_that_is_read() -> None:
    """In a bucket with versioning. Elsewhere there is no version."""
    for version, expected in (("3HL4kqtJvjVBH40Nrjfkd", "3HL4kqtJvjVBH40Nrjfkd"), ("null", None), ("", None)):
        document = event("inbox/june.csv")
        document["Records"][0]["s3"]["object"]["versionId"] = version
        manifest = _one(document).manifest
        assert manifest is not None
        assert manifest.version_id == expected


@pytest.mark.parametrize("entry", [e for e in CATALOGUE if e.kind is REQUEST], ids=lambda entry: entry.name)
def test_a_message_of_the_catalogue_is_read_or_refused(entry: Entry) -> None:
    """Without a worker around it; ``tests/hostile`` sends the same messages to one."""
    for body in Sent.of(entry.make()).bodies:
        if entry.becomes == BAD_REQUEST:
            assert "\n" not in _refusal(body)
        else:
            assert bool(read(body)) is (entry.becomes != "acknowledged")


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (event("a.csv", eventVersion="3.0"), "eventVersion"),
        (event("a.csv", s3={"bucket": {}}), "s3.bucket.name"),
        ({"Records": []}, "Records"),
        ({"Records": "all"}, "Records"),
        ({"Records": [7]}, "must be an object, not 7"),
        (event("inbox/../models/a.csv"), "segments"),
        (event("a\nb.csv"), "uri"),
        (bridged("a") | {"detail": None}, "must be an object, not null"),
        (through_sns("<html>"), "not JSON"),
        (through_sns([1]), "object"),
        ([], "object"),
        ({"Type": "Notification"}, "schema_version"),
    ],
)
def test_an_unreadable_message_is_refused_in_one_line(document: Any, reason: str) -> None:
    """The reason says where the mistake is."""
    body = json.dumps(document)
    if reason == "not JSON":
        body = json.dumps(document | {"Message": "<html>"})
    message = _refusal(body)
    assert reason in message
    assert "\n" not in message


@given(st.text(max_size=300), st.text(max_size=20))
def test_any_file_name_gives_a_valid_job_id(name: str, identity: str) -> None:
    """Always the same one."""
    job_id = job_id_of(f"s3://hostile/{quote(name)}", identity=identity)
    assert ClassifyRequest(schema_version=1, job_id=job_id, images=("a",)).job_id == job_id
    assert job_id_of(f"s3://hostile/{name}", identity=identity) == job_id_of(f"s3://hostile/{name}", identity=identity)


def test_a_job_that_is_named_after_a_file_is_named_without_its_ending() -> None:
    """Of a list, and of a single image."""
    for name, stem in {
        "in/june.csv.gz": "june",
        "IMG_15.JPG": "IMG_15",
        "a b.jpeg": "a-b",
        "june.v2": "june.v2",
    }.items():
        assert job_id_of(name, identity="")[:-9] == stem
