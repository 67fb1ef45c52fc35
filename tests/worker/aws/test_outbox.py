"""Requests to a queue: each entry's answer is looked at."""

import json
from typing import TYPE_CHECKING, Any, cast

import boto3
import pytest
from botocore.stub import ANY, Stubber

from tests.conftest import Bench
from worker.aws.queue import Outbox
from worker.contract import ClassifyRequest
from worker.errors import Reject, Retry

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

URL = "https://sqs.eu-central-1.amazonaws.com/1/requests"


def _requests(count: int) -> list[ClassifyRequest]:
    return [ClassifyRequest(schema_version=1, job_id=f"job-{number}", images=("a",)) for number in range(count)]


def _sent(*numbers: int) -> list[dict[str, str]]:
    return [{"Id": str(number), "MessageId": "m", "MD5OfMessageBody": ""} for number in numbers]


def _failed(*numbers: int, fault: bool = False) -> list[dict[str, Any]]:
    return [{"Id": str(number), "SenderFault": fault, "Code": "InternalError"} for number in numbers]


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stubber:
    monkeypatch.setattr("worker.aws.queue._PAUSE_S", 0)
    sqs = boto3.Session("a", "b", region_name="eu-central-1").client("sqs")
    # botocore compares the digests of what was sent, which a stub does not have.
    sqs.meta.events.unregister("after-call.sqs.SendMessageBatch")
    return Stubber(sqs)


def _outbox(stub: Stubber) -> Outbox:
    stub.activate()
    return Outbox(sqs=cast("SQSClient", stub.client), url=URL)


def test_everything_is_on_the_queue_once(bench: Bench) -> None:
    """Ten at a time, in any number, as requests that parse."""
    Outbox(sqs=bench.sqs, url=bench.queues.requests_url).send(iter(_requests(23)))
    found = []
    while messages := bench.sqs.receive_message(QueueUrl=bench.queues.requests_url, MaxNumberOfMessages=10).get(
        "Messages"
    ):
        found += [ClassifyRequest.parse(message["Body"]).job_id for message in messages]
    assert sorted(found) == sorted(request.job_id for request in _requests(23))


def test_an_entry_that_failed_is_sent_again_and_no_other(stub: Stubber) -> None:
    """A call that succeeds says nothing about each of its entries."""
    bodies = [request.model_dump_json(exclude_none=True) for request in _requests(3)]
    entries = [{"Id": str(number), "MessageBody": body} for number, body in enumerate(bodies)]
    assert json.loads(bodies[0]) == {"schema_version": 1, "job_id": "job-0", "images": ["a"]}
    stub.add_response(
        "send_message_batch", {"Successful": _sent(0, 2), "Failed": _failed(1)}, {"QueueUrl": URL, "Entries": entries}
    )
    stub.add_response(
        "send_message_batch", {"Successful": _sent(1), "Failed": []}, {"QueueUrl": URL, "Entries": [entries[1]]}
    )
    _outbox(stub).send(_requests(3))
    stub.assert_no_pending_responses()


def test_an_entry_that_is_never_taken_is_an_error(stub: Stubber) -> None:
    """It may pass; and where the queue says that it is ours, it does not."""
    for _ in range(5):
        stub.add_response(
            "send_message_batch", {"Successful": [], "Failed": _failed(0)}, {"QueueUrl": URL, "Entries": ANY}
        )
    with pytest.raises(Retry, match="1 requests were not accepted"):
        _outbox(stub).send(_requests(1))
    answer: dict[str, Any] = {"Successful": [], "Failed": _failed(0, fault=True)}
    stub.add_response("send_message_batch", answer, {"QueueUrl": URL, "Entries": ANY})
    with pytest.raises(Reject, match="InternalError"):
        _outbox(stub).send(_requests(1))


def test_a_queue_that_is_gone_is_an_error(bench: Bench) -> None:
    """And not a request lost."""
    with pytest.raises(Reject):
        Outbox(sqs=bench.sqs, url=bench.queues.requests_url + "-gone").send(_requests(1))
