"""Calls of AWS as they are made, recorded by an event hook of botocore and around the reads of obstore."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import boto3
import obstore
import pytest

#: Parameters that say what a call is about, or which permissions it takes.
_TELLING: Final = ("Bucket", "Key", "VersionId", "Tagging", "IfMatch", "QueueUrl", "QueueName", "TopicArn")


@dataclass(frozen=True)
class Call:
    """One call: ``s3``, ``GetObject``, and the parameters that say what it is about."""

    service: str
    operation: str
    about: tuple[tuple[str, str], ...]

    def grants(self, *, region: str, account: str) -> Iterator[tuple[str, str]]:
        """Yields the actions that must be allowed and the resources that they are allowed on.

        https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html and, for the others,
        https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
        """
        given = dict(self.about)
        if self.service == "s3":
            yield from _of_s3(self.operation, given)
        elif self.service == "sqs":
            queue = given.get("QueueName") or given["QueueUrl"].rsplit("/", 1)[1]
            action = self.operation.removesuffix("Batch")  # a batch takes the permission of the single call
            yield f"sqs:{action}", f"arn:aws:sqs:{region}:{account}:{queue}"
        else:
            yield f"{self.service}:{self.operation}", given["TopicArn"]


def _of_s3(operation: str, given: dict[str, str]) -> Iterator[tuple[str, str]]:
    bucket = f"arn:aws:s3:::{given['Bucket']}"
    found = f"{bucket}/{given.get('Key', '')}"
    if operation in {"GetObject", "ListObjectsV2"}:
        yield "s3:ListBucket", bucket  # without it, a missing object looks like a forbidden one
    if operation == "GetObject":
        yield "s3:GetObjectVersion" if "VersionId" in given else "s3:GetObject", found
    elif operation != "ListObjectsV2":
        yield f"s3:{operation}", found
    if "Tagging" in given:
        yield "s3:PutObjectTagging", found
    if operation == "PutObject" and "IfMatch" in given:
        yield "s3:GetObject", found


def record(patch: pytest.MonkeyPatch, note: Callable[[Call], object]) -> None:
    """Passes every call of clients that are made from now on to ``note``, whether or not it succeeds."""
    make, read = boto3.Session.client, obstore.get

    def hook(params: dict[str, Any], model: Any, **_: Any) -> None:
        about = {name: str(params[name]) for name in _TELLING if params.get(name)}
        for entry in params.get("Entries", ()):
            about |= {"TopicArn": entry["EventBusName"]} if "EventBusName" in entry else {}
        note(Call(model.service_model.service_name, model.name, tuple(about.items())))

    def client(*arguments: Any, **options: Any) -> Any:
        made = make(*arguments, **options)
        made.meta.events.register("provide-client-params", hook)
        return made

    def get(store: Any, path: str, *, options: Any = None) -> Any:
        about = {"Bucket": store.config["bucket"], "Key": path}
        about |= {"VersionId": options["version"]} if "version" in (options or {}) else {}
        note(Call("s3", "GetObject", tuple(about.items())))
        return read(store, path, options=options)

    patch.setattr(boto3.Session, "client", client)
    patch.setattr(obstore, "get", get)


@contextmanager
def recorded() -> Iterator[list[Call]]:
    """Yields the calls of clients that are made within the block."""
    calls: list[Call] = []
    with pytest.MonkeyPatch.context() as patch:
        record(patch, calls.append)
        yield calls


def record_to(path: str) -> None:
    """Appends every call of this process to a file, until it ends, however it ends."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    record(pytest.MonkeyPatch(), lambda call: os.write(log, json.dumps(asdict(call)).encode() + b"\n"))


def read_calls(path: Path) -> list[Call]:
    """Returns the calls that a process has appended to a file."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [Call(one["service"], one["operation"], tuple((k, v) for k, v in one["about"])) for one in found]
