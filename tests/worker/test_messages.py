"""Message bodies: a request, or an S3 event that comes directly, through SNS or through EventBridge."""

import json
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.contract import ClassifyRequest
from worker.messages import job_id_of, read

keys = st.text(st.sampled_from(" +%\"',;=#?&/é😀") | st.characters(exclude_categories=["Cc", "Cs"]), min_size=1).filter(
    lambda key: len(key) < 100 and not {".", ".."} & set(key.split("/"))
)


def _event(key: str, **changes: Any) -> dict[str, Any]:
    """An event as S3 sends it, with fields that are not read."""
    item = {"key": quote_plus(key, safe="/"), "size": 7, "eTag": "0a1b", "sequencer": "0055AED6DCD90281E5"}
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "eu-central-1",
        "eventName": "ObjectCreated:Put",
        "s3": {"s3SchemaVersion": "1.0", "bucket": {"name": "shelter", "ownerIdentity": {}}, "object": item},
    }
    return {"Records": [record | changes]}


def _eventbridge(key: str) -> dict[str, Any]:
    item = {"key": key, "size": 7, "etag": "0a1b", "sequencer": "0055AED6DCD90281E5"}
    detail = {"version": "0", "bucket": {"name": "shelter"}, "object": item, "reason": "PutObject"}
    return {"version": "0", "source": "aws.s3", "detail-type": "Object Created", "detail": detail}


def _sns(document: Any) -> dict[str, Any]:
    return {"Type": "Notification", "TopicArn": "arn:aws:sns:::t", "Message": json.dumps(document)}


def _one(document: Any) -> ClassifyRequest:
    (request,) = read(json.dumps(document))
    return request


@given(keys)
def test_the_object_of_an_event_is_the_manifest(key: str) -> None:
    """Whatever its key. S3 URL-encodes keys, through SNS too; EventBridge does not."""
    uri = f"s3://shelter/{key}"
    for document in (_event(key), _sns(_event(key)), _eventbridge(key)):
        request = _one(document)
        assert request.manifest is not None
        assert request.manifest.uri == uri
        assert ClassifyRequest.parse(request.model_dump_json()) == request
    assert _one(_event(key)) == _one(_eventbridge(key))


def test_a_request_may_come_through_sns() -> None:
    """A topic between producer and queue changes nothing."""
    request = {"schema_version": 1, "job_id": "x", "images": ["s3://shelter/a.jpg"]}
    assert _one(request) == _one(_sns(request)) == ClassifyRequest.parse(json.dumps(request))


def test_one_upload_is_one_job_however_often_its_event_comes() -> None:
    """S3 may send an event twice. Another upload of the same key is another job."""
    assert _one(_event("inbox/june.csv")) == _one(_event("inbox/june.csv"))
    again = json.dumps(_event("inbox/june.csv")).replace("0055AED6DCD90281E5", "0055AED6DCD90281E6")
    assert read(again)[0].job_id != _one(_event("inbox/june.csv")).job_id
    assert _one(_event("inbox/june.csv")).job_id.startswith("june-")


def test_the_uploaded_version_is_the_one_that_is_read() -> None:
    """In a bucket with versioning. Elsewhere there is no version."""
    for version, expected in (("3HL4kqtJvjVBH40Nrjfkd", "3HL4kqtJvjVBH40Nrjfkd"), ("null", None), ("", None)):
        event = _event("inbox/june.csv")
        event["Records"][0]["s3"]["object"]["versionId"] = version
        manifest = _one(event).manifest
        assert manifest is not None
        assert manifest.version_id == expected


@pytest.mark.parametrize(
    "document",
    [
        {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "shelter"},
        _sns({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "shelter"}),
        _event("inbox/june.csv", eventName="ObjectRemoved:Delete"),
        _eventbridge("a") | {"detail-type": "Object Deleted"},
    ],
)
def test_any_other_event_asks_for_nothing(document: Any) -> None:
    """S3 sends a test event when notifications are set up."""
    assert read(json.dumps(document)) == ()


@pytest.mark.parametrize("version", ["2.0", "2.1", "2.6", "2.10"])
def test_a_minor_version_of_the_event_is_read(version: str) -> None:
    """Minor versions add fields."""
    assert _one(_event("a.csv", eventVersion=version)).manifest is not None


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (_event("a.csv", eventVersion="3.0"), "eventVersion"),
        (_event("a.csv", s3={"bucket": {}}), "s3.bucket.name"),
        ({"Records": []}, "Records"),
        ({"Records": "all"}, "Records"),
        ({"Records": [7]}, "must be an object, not 7"),
        (_event("inbox/../models/a.csv"), "segments"),
        (_event("a\nb.csv"), "uri"),
        (_eventbridge("a") | {"detail": None}, "must be an object, not null"),
        (_sns("<html>"), "not JSON"),
        (_sns([1]), "object"),
        ([], "object"),
        ({"Type": "Notification"}, "schema_version"),
    ],
)
def test_an_unreadable_message_is_refused_in_one_line(document: Any, reason: str) -> None:
    """The reason says where the mistake is."""
    body = json.dumps(document)
    if reason == "not JSON":
        body = json.dumps(document | {"Message": "<html>"})
    with pytest.raises(ValueError, match=reason) as caught:
        read(body)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=300), st.text(max_size=20))
def test_any_file_name_gives_a_valid_job_id(name: str, identity: str) -> None:
    """Always the same one."""
    job_id = job_id_of(f"s3://shelter/{quote(name)}", identity=identity)
    assert ClassifyRequest(schema_version=1, job_id=job_id, images=("a",)).job_id == job_id
    assert job_id_of(f"s3://shelter/{name}", identity=identity) == job_id_of(f"s3://shelter/{name}", identity=identity)
