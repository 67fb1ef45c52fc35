"""Queues: receive, lease, settle and send, on two emulators over HTTP."""

import json
import time
from typing import TYPE_CHECKING, Any, cast

import boto3
import pytest
from botocore.stub import ANY, Stubber

from tests.conftest import Bench
from worker.aws.failures import LeaseLost
from worker.aws.queue import Message, Outbox, Queue
from worker.contract import ClassifyRequest
from worker.errors import ErrorCode, Reject, Retry

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

URL = "https://sqs.eu-central-1.amazonaws.com/1/requests"


@pytest.fixture
def queue(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Queue:
    return bench.queue(monkeypatch)


def _receive(queue: Queue) -> Message:
    message = queue.receive(wait_s=5)
    assert message is not None
    return message


def test_a_message_is_received_as_it_was_sent(bench: Bench, queue: Queue) -> None:
    """Whatever it holds: the body is read in a later step."""
    bench.send("not JSON <at all> é")
    message = _receive(queue)
    assert (message.body, message.receive_count) == ("not JSON <at all> é", 1)


def test_an_empty_queue_returns_nothing(queue: Queue) -> None:
    """And reports that it is empty."""
    assert queue.receive(wait_s=0) is None
    assert queue.is_empty()


def test_a_queue_with_a_message_in_flight_is_not_empty(bench: Bench, queue: Queue) -> None:
    """A drain waits for what another worker may give back."""
    bench.send("x")
    message = _receive(queue)
    assert queue.receive(wait_s=0) is None
    assert not queue.is_empty()
    queue.acknowledge(message)
    assert queue.is_empty()


def test_a_released_message_comes_back(bench: Bench, queue: Queue) -> None:
    """At once where there is no delay, and its receives are counted."""
    bench.send("x")
    queue.release(_receive(queue), delay_s=0)
    assert _receive(queue).receive_count == 2


def test_a_message_comes_back_when_its_lease_ends(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after the death of a worker."""
    queue = bench.queue(monkeypatch, visibility_s=1)
    bench.send("x")
    _receive(queue)
    assert _receive(queue).receive_count == 2


def test_an_extended_message_does_not_come_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new lease counts, not the one of the receive."""
    queue = bench.queue(monkeypatch, visibility_s=1)
    bench.send("x")
    message = _receive(queue)
    queue.extend(message, seconds=30)
    time.sleep(1.1)
    assert queue.receive(wait_s=0) is None
    queue.acknowledge(message)
    with pytest.raises(LeaseLost):
        queue.extend(message, seconds=1)


def test_a_rejected_message_keeps_its_body_and_carries_its_reason(bench: Bench, queue: Queue) -> None:
    """People read the dead-letter queue."""
    bench.send("{]")
    message = _receive(queue)
    queue.reject(message, Reject(ErrorCode.BAD_REQUEST, "not JSON: control \x00 and \ud800"))
    (letter,) = bench.dead_letters()
    assert letter["Body"] == "{]"
    attributes = {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()}
    assert attributes["error_code"] == "bad_request"
    assert attributes["error_message"].startswith("not JSON")
    assert attributes["message_id"] == message.message_id
    assert queue.is_empty()


def test_a_queue_without_a_dead_letter_queue_is_refused(bench: Bench) -> None:
    """At the start, with the setting that helps."""
    url = bench.sqs.create_queue(QueueName=f"{bench.bucket}-lonely")["QueueUrl"]
    with pytest.raises(Reject, match="TWOFOLD_DEAD_LETTER_URL"):
        Queue.open(sqs=bench.sqs, url=url, dead_letter_url=None, visibility_s=30)


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
    # botocore compares the digests of what is sent, which a stub does not have.
    sqs.meta.events.unregister("after-call.sqs.SendMessageBatch")
    return Stubber(sqs)


def _outbox(stub: Stubber) -> Outbox:
    stub.activate()
    return Outbox(sqs=cast("SQSClient", stub.client), url=URL)


def test_every_request_is_sent_once(bench: Bench) -> None:
    """In batches of ten, however many there are, as JSON that parses."""
    Outbox(sqs=bench.sqs, url=bench.queues.requests_url).send(iter(_requests(23)))
    found = []
    while messages := bench.sqs.receive_message(QueueUrl=bench.queues.requests_url, MaxNumberOfMessages=10).get(
        "Messages"
    ):
        found += [ClassifyRequest.parse(message["Body"]).job_id for message in messages]
    assert sorted(found) == sorted(request.job_id for request in _requests(23))


def test_only_the_entries_that_failed_are_sent_again(stub: Stubber) -> None:
    """A call can succeed while some of its entries fail."""
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


def test_an_entry_that_is_never_accepted_is_an_error(stub: Stubber) -> None:
    """Retry, or Reject where SQS says that the sender is at fault."""
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


def test_sending_to_a_missing_queue_is_an_error(bench: Bench) -> None:
    """No request is lost silently."""
    with pytest.raises(Reject):
        Outbox(sqs=bench.sqs, url=bench.queues.requests_url + "-gone").send(_requests(1))


def test_a_fresh_copy_of_a_message_has_all_its_receives(bench: Bench, queue: Queue) -> None:
    """And knows how many there were before it. The message itself stays, until it is deleted."""
    bench.send("x")
    for copies in range(1, 3):
        queue.release(_receive(queue), delay_s=0)
        message = _receive(queue)
        queue.renew(message)
        queue.acknowledge(message)
        copy = _receive(queue)
        assert (copy.body, copy.receive_count, copy.renewed) == ("x", 1, copies)
        queue.release(copy, delay_s=0)


@pytest.mark.parametrize(
    ("max_receives", "receive_count", "last_try", "last_receive"),
    [(10, 8, False, False), (10, 9, True, False), (10, 10, True, True), (10, 11, True, True), (1, 1, True, True)],
)
def test_one_receive_is_kept_for_a_worker_that_is_killed(
    max_receives: int, receive_count: int, *, last_try: bool, last_receive: bool
) -> None:
    """On the receive before the last one, what fails is not tried again."""
    queue = Queue(sqs=cast("SQSClient", None), url=URL, dead_letter_url=URL, max_receives=max_receives, visibility_s=30)
    message = Message(message_id="m", receipt_handle="r", body="x", receive_count=receive_count)
    assert (queue.is_last_try(message), queue.is_last_receive(message)) == (last_try, last_receive)
