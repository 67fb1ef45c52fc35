"""SQS, on two emulators over HTTP."""

import time

import pytest

from tests.conftest import Bench
from worker.aws.failures import LeaseLost
from worker.aws.queue import Message, Queue
from worker.delivery import Lease
from worker.errors import ErrorCode, Reject


@pytest.fixture
def queue(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Queue:
    return bench.queue(monkeypatch)


def _receive(queue: Queue) -> Message:
    message = queue.receive(wait_s=5)
    assert message is not None
    return message


def test_a_message_is_received_as_it_was_sent(bench: Bench, queue: Queue) -> None:
    """Whatever it holds: reading the body is a later step."""
    bench.send("no JSON <at all> é")
    message = _receive(queue)
    assert (message.body, message.receive_count) == ("no JSON <at all> é", 1)


def test_an_empty_queue_gives_nothing(queue: Queue) -> None:
    """And says that it is empty."""
    assert queue.receive(wait_s=0) is None
    assert queue.is_empty()


def test_a_message_that_somebody_holds_is_not_nothing(bench: Bench, queue: Queue) -> None:
    """A drain waits for what another worker may give back."""
    bench.send("x")
    message = _receive(queue)
    assert queue.receive(wait_s=0) is None
    assert not queue.is_empty()
    queue.acknowledge(message)
    assert queue.is_empty()


def test_a_released_message_comes_back(bench: Bench, queue: Queue) -> None:
    """At once with no delay, and counted."""
    bench.send("x")
    queue.release(_receive(queue), delay_s=0)
    assert _receive(queue).receive_count == 2


def test_a_rejected_message_keeps_its_body_and_says_why(bench: Bench, queue: Queue) -> None:
    """The dead-letter queue is read by people."""
    bench.send("{]")
    message = _receive(queue)
    queue.reject(message, Reject(ErrorCode.BAD_REQUEST, "not JSON: control \x00 and \ud800"))
    (letter,) = bench.dead_letters()
    assert letter["Body"] == "{]"
    said = {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()}
    assert said["error_code"] == "bad_request"
    assert said["error_message"].startswith("not JSON")
    assert said["message_id"] == message.message_id
    assert queue.is_empty()


def test_a_queue_without_a_dead_letter_queue_is_refused(bench: Bench) -> None:
    """At the start, and the message says what to set."""
    url = bench.sqs.create_queue(QueueName=f"{bench.bucket}-lonely")["QueueUrl"]
    with pytest.raises(Reject, match="TWOFOLD_DEAD_LETTER_URL"):
        Queue.open(sqs=bench.sqs, url=url, dead_letter_url=None, visibility_s=30)


def test_the_lease_holds_while_work_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work of three visibility time-outs: nobody else gets the message, and it was received once."""
    queue = bench.queue(monkeypatch, visibility_s=2)
    bench.send("x")
    message = _receive(queue)
    with Lease(queue, message):
        deadline = time.monotonic() + 6
        while time.monotonic() < deadline:
            assert queue.receive(wait_s=1) is None
    queue.release(message, delay_s=0)
    assert _receive(queue).receive_count == 2


def test_a_lost_lease_ends_the_heartbeat(ministack_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that is gone is not extended, and the work around it goes on."""
    queue = ministack_bench.queue(monkeypatch, visibility_s=1)
    ministack_bench.send("x")
    message = _receive(queue)
    lease = Lease(queue, message)
    with lease:
        queue.acknowledge(message)
        lease._thread.join(timeout=5)
        assert not lease._thread.is_alive()
    with pytest.raises(LeaseLost):
        queue.extend(message, seconds=1)
