"""Message bodies, parsed into the requests they hold.

    ClassifyRequest    the request itself
    S3 event           a request for the new object, which is a manifest; directly, or through SNS or EventBridge
    s3:TestEvent       no request; S3 sends it when notifications are set up

S3 may send an event twice. The job's id is derived from the event, so the second event finds the work done.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote_plus

from pydantic import BaseModel, Field, ValidationError

from worker.contract import ClassifyRequest, ManifestRef, check_size, explain, strict_json

#: Characters of a job_id that come from the file's name. The digest takes the rest of the 128.
_MAX_STEM: Final = 100
_PACKING: Final = re.compile(
    r"(\.(csv|jsonl?|manifest|txt|bmp|gif|jpe?g|png|tiff?|webp))?(\.gz)?$",
    re.IGNORECASE,  # of a list or of one image
)


class _Bucket(BaseModel):
    name: str


class _Object(BaseModel):
    key: str
    etag: str = Field(default="", validation_alias="eTag")
    version_id: str | None = Field(default=None, validation_alias="versionId")
    #: Differs between two uploads of one key, but not between two events for one upload.
    sequencer: str = ""


class _S3(BaseModel):
    bucket: _Bucket
    object: _Object


class _Record(BaseModel):
    """See https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html ."""

    version: str = Field(validation_alias="eventVersion", pattern=r"^2\.\d+$")  # minor versions add fields
    name: str = Field(validation_alias="eventName")
    s3: _S3


class _EventBridgeObject(_Object):
    etag: str = ""
    version_id: str | None = Field(default=None, validation_alias="version-id")


class _Detail(BaseModel):
    """See https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html . Here a key is not URL-encoded."""

    bucket: _Bucket
    object: _EventBridgeObject


def read(body: str) -> tuple[ClassifyRequest, ...]:
    """Returns the requests in a message's body: none for an event that asks for nothing.

    Raises ValueError, with what is wrong in one line.
    """
    check_size(body)
    document = strict_json(body)
    if (
        isinstance(document, dict)
        and document.get("Type") == "Notification"
        and isinstance(document.get("Message"), str)
    ):
        body = document["Message"]  # SNS, without raw delivery
        document = strict_json(body)
    if not isinstance(document, dict):
        return (ClassifyRequest.parse(body),)
    if document.get("Event") == "s3:TestEvent":
        return ()
    try:
        if "Records" in document:
            return tuple(_requests(document["Records"]))
        if document.get("source") == "aws.s3":
            return _from_eventbridge(document)
        return (ClassifyRequest.parse(body),)
    except ValidationError as error:
        raise ValueError(explain(error)) from None


def job_id_of(uri: str, *, identity: str) -> str:
    """Returns a job_id for a manifest: its file's name, and a digest of ``uri`` and ``identity``."""
    stem = _PACKING.sub("", uri.rstrip("/").rpartition("/")[2])
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:_MAX_STEM]
    digest = hashlib.sha256(f"{uri}\n{identity}".encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return f"{stem}-{digest}" if stem else digest


def _requests(records: Any) -> Iterator[ClassifyRequest]:  # noqa: ANN401 - any JSON
    if not isinstance(records, list) or not records:
        raise ValueError("Records: expected a list of S3 event records")
    for record in [_Record.model_validate(item) for item in records]:
        if record.name.removeprefix("s3:").startswith("ObjectCreated:"):
            yield _request(record.s3.bucket, unquote_plus(record.s3.object.key), record.s3.object)


def _from_eventbridge(document: Mapping[str, Any]) -> tuple[ClassifyRequest, ...]:
    if document.get("detail-type") != "Object Created":
        return ()
    detail = _Detail.model_validate(document.get("detail"))
    return (_request(detail.bucket, detail.object.key, detail.object),)


def _request(bucket: _Bucket, key: str, item: _Object) -> ClassifyRequest:
    uri = f"s3://{bucket.name}/{key}"
    return ClassifyRequest(
        schema_version=1,
        job_id=job_id_of(uri, identity=item.sequencer or item.etag),
        manifest=ManifestRef(uri=uri, version_id=None if item.version_id == "null" else item.version_id or None),
    )
