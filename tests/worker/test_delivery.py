"""A delivery: the lease that keeps a message hidden, and what settling does with it."""

import time
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import Bench
from worker.aws.failures import LeaseLost
from worker.aws.queue import Message, Queue
from worker.delivery import Lease, backoff_s, settle
from worker.dispatch import Done, Outcome
from worker.errors import ErrorCode, Reject, Retry

DONE = Done("answered")
REJECT = Reject(ErrorCode.BAD_REQUEST, "not JSON")
RETRY = Retry(ErrorCode.UNAVAILABLE, "503")
MESSAGE = Message(message_id="m", receipt_handle="r", body="x", receive_count=1)


def _receive(queue: Queue) -> Message:
    message = queue.receive(wait_s=5)
    assert message is not None
    return message


class _Recorder:
    """A queue that records its calls, and raises ``failure`` in each."""

    visibility_s = 1

    def __init__(self, failure: Exception | None = None) -> None:
        self.calls: list[str] = []
        self._failure = failure

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self._failure:
            raise self._failure

    def extend(self, _: Message, *, seconds: int) -> None:
        self._call(f"extend {seconds}")

    def acknowledge(self, _: Message) -> None:
        self._call("acknowledge")

    def release(self, _: Message, *, delay_s: int) -> None:
        self._call("release at once" if delay_s == 0 else "release")

    def reject(self, _: Message, reason: Reject) -> None:
        self._call(f"reject {reason.code.value}")


def test_the_lease_holds_while_the_work_goes_on(ministack_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work of two visibility timeouts: no other worker gets the message, and it is received once."""
    queue = ministack_bench.queue(monkeypatch, visibility_s=2)
    ministack_bench.send("x")
    message = _receive(queue)
    with Lease(queue, message):
        deadline = time.monotonic() + 4.5
        while time.monotonic() < deadline:
            assert queue.receive(wait_s=1) is None
    queue.release(message, delay_s=0)
    assert _receive(queue).receive_count == 2


def test_a_lost_lease_ends_the_heartbeat() -> None:
    """A message that is gone is not extended again, and the work goes on."""
    queue = _Recorder(LeaseLost("gone"))
    lease = Lease(cast("Queue", queue), MESSAGE)
    with lease:
        lease._thread.join(timeout=5)
        assert not lease._thread.is_alive()
    assert queue.calls == ["extend 1"]


def test_a_failed_extension_is_tried_again_before_the_lease_ends() -> None:
    """The first try leaves time for a second one."""
    queue = _Recorder(RETRY)
    started = time.monotonic()
    with Lease(cast("Queue", queue), MESSAGE):
        while len(queue.calls) < 2:
            assert time.monotonic() < started + 5
            time.sleep(0.01)
    assert queue.calls[:2] == ["extend 1", "extend 1"]


@pytest.mark.parametrize(
    ("outcome", "failure", "call", "finished"),
    [
        pytest.param(DONE, None, "acknowledge", True, id="answered"),
        pytest.param(REJECT, None, "reject bad_request", True, id="rejected"),
        pytest.param(RETRY, None, "release", False, id="to be retried"),
        pytest.param(Retry(ErrorCode.UNAVAILABLE, "stop", delay_s=0), None, "release at once", False, id="given back"),
        pytest.param(DONE, LeaseLost("gone"), "acknowledge", True, id="answered, lease lost"),
        pytest.param(REJECT, LeaseLost("gone"), "reject bad_request", True, id="rejected, lease lost"),
        pytest.param(RETRY, LeaseLost("gone"), "release", False, id="to be retried, lease lost"),
        pytest.param(DONE, RETRY, "acknowledge", True, id="answered, not deleted"),
        pytest.param(REJECT, RETRY, "reject bad_request", False, id="rejected, not sent"),
        pytest.param(RETRY, RETRY, "release", False, id="to be retried, not released"),
    ],
)
def test_a_message_is_settled_as_its_outcome_says(
    outcome: Outcome, failure: Exception | None, call: str, *, finished: bool
) -> None:
    """It is finished when its answer is written or it is a dead letter, even if SQS then fails to delete it."""
    queue = _Recorder(failure)
    assert settle(cast("Queue", queue), MESSAGE, outcome) is finished
    assert queue.calls == [call]


@given(receive_count=st.integers(1, 1000), random_=st.floats(0, 1, exclude_max=True))
def test_backoff_is_within_the_limits_of_sqs(receive_count: int, random_: float) -> None:
    """A few seconds at least, 15 minutes at most."""
    assert 2 <= backoff_s(receive_count, random_=random_) <= 900


def test_backoff_grows() -> None:
    """Exponentially, from 5 s."""
    assert [backoff_s(count, random_=1.0) for count in (1, 2, 3, 4, 20)] == [5, 10, 20, 40, 900]
