"""The messages of the catalogue: requests and events that a worker finds on its queue."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote_plus

#: The bucket that the worker may use, as all entries know it.
BUCKET: Final = "hostile"
#: Two sound images in it.
SOUND: Final = (f"s3://{BUCKET}/in/0.png", f"s3://{BUCKET}/in/1.png")
_NO_IMAGE: Final = f"s3://{BUCKET}/in/none.png"


@dataclass(frozen=True)
class Sent:
    """Messages, and the objects that must be in the bucket before, by key."""

    bodies: tuple[str, ...]
    objects: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, product: Any) -> "Sent":
        """Returns a message's body, its JSON, or a list of them as ``Sent``."""
        if isinstance(product, Sent):
            return product
        bodies = product if isinstance(product, list) else [product]
        return cls(tuple(body if isinstance(body, str) else json.dumps(body) for body in bodies))


def request(**fields: Any) -> str:
    """Returns a request for a sound image, with other or further fields; None leaves one out."""
    asked = {"schema_version": 1, "job_id": "refused", "images": SOUND[:1]} | fields
    return json.dumps({name: value for name, value in asked.items() if value is not None})


def manifest_request(job_id: str, key: str, **fields: Any) -> str:
    """Returns a request for the images that a manifest lists."""
    return request(job_id=job_id, images=None, manifest={"uri": f"s3://{BUCKET}/{key}"}, **fields)


def raw(extra: str) -> str:
    """Returns a request that ends in this JSON, as no library writes it."""
    return f"{request()[:-1]}, {extra}}}"


def event(key: str, **changes: Any) -> dict[str, Any]:
    """Returns what S3 sends for a new object, with fields that are not read."""
    item = {"key": quote_plus(key, safe="/"), "size": 7, "eTag": "0a1b", "sequencer": "0055AED6DCD90281E5"}
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "eu-central-1",
        "eventName": "ObjectCreated:Put",
        "s3": {"s3SchemaVersion": "1.0", "bucket": {"name": BUCKET, "ownerIdentity": {}}, "object": item},
    }
    return {"Records": [record | changes]}


def bridged(key: str, **changes: Any) -> dict[str, Any]:
    """Returns what EventBridge sends for a new object. Here a key is not URL-encoded."""
    item = {"key": key, "size": 7, "etag": "0a1b", "sequencer": "0055AED6DCD90281E5"}
    detail = {"version": "0", "bucket": {"name": BUCKET}, "object": item, "reason": "PutObject"}
    return {"version": "0", "source": "aws.s3", "detail-type": "Object Created", "detail": detail} | changes


def through_sns(document: Any) -> dict[str, Any]:
    """Returns a document as SNS wraps it."""
    return {"Type": "Notification", "TopicArn": "arn:aws:sns:::t", "Message": json.dumps(document)}


def event_through_sns(key: str) -> dict[str, Any]:
    """Returns what SNS sends for a new object."""
    return through_sns(event(key))


def s3_test_event() -> dict[str, Any]:
    """Returns what S3 sends when notifications are set up."""
    return {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": BUCKET}


def uploaded(name: str, by: Callable[..., dict[str, Any]] = event, **changes: Any) -> Sent:
    """Returns the event for a manifest of that name with a sound image, and the manifest."""
    key = f"inbox/{name}"
    return Sent((json.dumps(by(key, **changes)),), {key: f"source_ref\n{SOUND[0]}\n".encode()})


def twice_with_other_images() -> list[str]:
    """Returns two requests with one job_id."""
    return [request(job_id="twice", images=[image]) for image in SOUND]
