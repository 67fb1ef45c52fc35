"""A delivery: the lease that keeps a message hidden, and what settling does with it."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import cast
from urllib.parse import urlparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import Bench
from worker.aws.clients import open_lease_sqs, open_session
from worker.aws.failures import LeaseLost
from worker.aws.queue import Message, Queue
from worker.delivery import MAX_RENEWALS, LeaseKeeper, attempt_s, backoff_s, give_back, settle
from worker.dispatch import Done, Outcome
from worker.errors import ErrorCode, Interrupted, Reject, Retry

DONE = Done("answered")
REJECT = Reject(ErrorCode.BAD_REQUEST, "not JSON")
RETRY = Retry(ErrorCode.UNAVAILABLE, "503")
STOPPED = Interrupted(ErrorCode.UNAVAILABLE, "the worker is stopping", delay_s=0)
MESSAGE = Message(message_id="m", receipt_handle="r", body="x", receive_count=1)
LAST = replace(MESSAGE, receive_count=3)


def _receive(queue: Queue) -> Message:
    message = queue.receive(wait_s=5)
    assert message is not None
    return message


def _wait_until(condition: Callable[[], object]) -> None:
    """For what must happen soon. Only a broken promise takes half a minute."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class _Recorder:
    """A queue that records its calls, and raises the ``failures`` of each."""

    max_receives = 3
    is_last_receive = Queue.is_last_receive

    def __init__(self, failure: Exception | None = None, **failures: Exception) -> None:
        self.calls: list[str] = []
        self.reasons: list[str] = []
        self.visibility_s = 0.2
        self._failure = failure
        self._failures = failures

    def _call(self, name: str) -> None:
        self.calls.append(name)
        failure = self._failures.get(name.partition(" ")[0], self._failure)
        if failure:
            raise failure

    def extend(self, _: Message, *, seconds: float) -> None:
        assert seconds == self.visibility_s
        self._call("extend")

    def acknowledge(self, _: Message) -> None:
        self._call("acknowledge")

    def release(self, _: Message, *, delay_s: int) -> None:
        self._call("release at once" if delay_s == 0 else "release")

    def renew(self, _: Message) -> None:
        self._call("renew")

    def reject(self, _: Message, reason: Reject) -> None:
        self.reasons.append(reason.message)
        self._call(f"reject {reason.code.value}")


class _Held(_Recorder):
    """A queue whose extensions last until ``answer`` is set. They may take two seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = threading.Event()
        self.under_way = False

    def extend(self, message: Message, *, seconds: float) -> None:
        super().extend(message, seconds=seconds)
        self.under_way, self.visibility_s = True, 60
        self.answer.wait(30)
        self.under_way = False


def test_the_lease_holds_while_the_work_goes_on(ministack_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work of two visibility timeouts: no other worker gets the message, and it is received once."""
    queue = ministack_bench.queue(monkeypatch, visibility_s=2)
    ministack_bench.send("x")
    message = _receive(queue)
    with LeaseKeeper(queue).keep(message):
        deadline = time.monotonic() + 4.5
        while time.monotonic() < deadline:
            assert queue.receive(wait_s=1) is None
    queue.release(message, delay_s=0)
    assert _receive(queue).receive_count == 2


def _keeper(queue: _Recorder) -> LeaseKeeper:
    return LeaseKeeper(cast("Queue", queue))


@pytest.mark.parametrize("failure", [LeaseLost("gone"), MemoryError()], ids=["a lost lease", "no memory"])
def test_one_thread_keeps_one_message_after_another(failure: Exception) -> None:
    """What ends the extensions of one message does not end the thread, and none is started for the next."""
    queue, before = _Recorder(failure), threading.active_count()
    keeper = _keeper(queue)
    for number in (1, 2):
        with keeper.keep(MESSAGE):
            _wait_until(lambda: len(queue.calls) == number)  # noqa: B023 - called within this round
            time.sleep(0.1)  # ten times the pause after a failure
        assert queue.calls == ["extend"] * number
    assert threading.active_count() == before + 1


def test_a_failed_extension_is_tried_again_before_the_lease_ends() -> None:
    """The first try leaves time for others."""
    queue = _Recorder(RETRY)
    with _keeper(queue).keep(MESSAGE):
        _wait_until(lambda: len(queue.calls) >= 3)
    assert set(queue.calls) == {"extend"}


def test_no_extension_is_under_way_after_the_work() -> None:
    """A release would be undone by one."""
    queue = _Held()
    with _keeper(queue).keep(MESSAGE):
        _wait_until(lambda: queue.under_way)
        threading.Timer(0.2, queue.answer.set).start()
    assert not queue.under_way


def test_an_extension_that_never_ends_does_not_hold_the_worker(caplog: pytest.LogCaptureFixture) -> None:
    """It is waited for as long as its client may take, and then reported."""
    queue = _Held()
    with caplog.at_level(logging.WARNING), _keeper(queue).keep(MESSAGE):
        _wait_until(lambda: queue.under_way)
        queue.visibility_s = 0.2
    assert queue.under_way
    assert "an extension of its lease is still under way" in caplog.text
    queue.answer.set()


class _Proxy:
    """A TCP proxy that accepts a connection and answers nothing, until it is asked to forward the next ones."""

    def __init__(self, endpoint: str) -> None:
        self._target = urlparse(endpoint)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.forwards = False
        self.silent, self.forwarded = 0, 0
        self._open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):  # closed
            while True:
                taken, _ = self._listening.accept()
                self._open.append(taken)
                if not self.forwards:
                    self.silent += 1
                    continue
                self.forwarded += 1
                onward = socket.create_connection((self._target.hostname, self._target.port))
                self._open.append(onward)
                for pair in ((taken, onward), (onward, taken)):
                    threading.Thread(target=_copy, args=pair, daemon=True).start()

    def close(self) -> None:
        for one in (self._listening, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)


@pytest.fixture
def proxy(ministack: str) -> Iterator[_Proxy]:
    proxy = _Proxy(ministack)
    yield proxy
    proxy.close()


def test_a_silent_sqs_costs_the_worker_one_short_attempt(
    ministack_bench: Bench, monkeypatch: pytest.MonkeyPatch, proxy: _Proxy
) -> None:
    """It accepts connections and sends nothing. The SDK alone would hold the worker for two and a half minutes."""
    queue = ministack_bench.queue(monkeypatch, visibility_s=1)
    ministack_bench.send("x")
    message = _receive(queue)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", proxy.url)
    keeper = LeaseKeeper(queue.over(open_lease_sqs(open_session(), limit_s=attempt_s(1))))
    with keeper.keep(message):
        _wait_until(lambda: proxy.silent)
        ended = time.monotonic()
    assert time.monotonic() - ended < 15
    proxy.forwards = True
    with keeper.keep(message):
        _wait_until(lambda: proxy.forwarded)


@pytest.mark.parametrize(
    ("outcome", "failure", "call", "finished"),
    [
        pytest.param(DONE, None, "acknowledge", True, id="answered"),
        pytest.param(REJECT, None, "reject bad_request", True, id="rejected"),
        pytest.param(RETRY, None, "release", False, id="to be retried"),
        pytest.param(STOPPED, None, "release at once", False, id="given back"),
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


@pytest.mark.parametrize(
    ("failures", "calls", "finished"),
    [
        pytest.param({}, ["renew", "acknowledge"], True, id="renewed"),
        pytest.param({"acknowledge": LeaseLost("gone")}, ["renew", "acknowledge"], True, id="lease lost"),
        pytest.param({"acknowledge": RETRY}, ["renew", "acknowledge"], True, id="not deleted"),
        pytest.param({"renew": RETRY}, ["renew"], False, id="no answer"),
        pytest.param({"renew": REJECT}, ["renew", "reject unavailable"], True, id="not allowed"),
    ],
)
def test_a_message_that_is_interrupted_on_its_last_receive_is_replaced_by_a_fresh_copy(
    failures: dict[str, Exception], calls: list[str], *, finished: bool
) -> None:
    """SQS would move it to the dead-letter queue, without a reason. Once the copy is sent, the old one may go."""
    queue = _Recorder(**failures)
    assert settle(cast("Queue", queue), LAST, STOPPED) is finished
    assert queue.calls == calls


def test_a_message_is_not_renewed_forever() -> None:
    """A request that never has enough time ends as a dead letter that says what to change."""
    queue = _Recorder()
    assert settle(cast("Queue", queue), replace(LAST, renewed=MAX_RENEWALS), STOPPED)
    assert queue.calls == ["reject unavailable"]
    assert "Raise the function's timeout" in queue.reasons[0]


@pytest.mark.parametrize(("message", "call"), [(MESSAGE, "release"), (LAST, "reject unavailable")])
def test_a_worker_that_ends_gives_its_message_back(message: Message, call: str) -> None:
    """With backoff. After the last receive SQS would move it without a reason. No failure hides why the worker ends."""
    queue = _Recorder(MemoryError())
    give_back(cast("Queue", queue), message, MemoryError())
    assert queue.calls == [call]


@given(receive_count=st.integers(1, 1000), random_=st.floats(0, 1, exclude_max=True))
def test_backoff_is_within_the_limits_of_sqs(receive_count: int, random_: float) -> None:
    """A few seconds at least, 15 minutes at most."""
    assert 2 <= backoff_s(receive_count, random_=random_) <= 900


def test_backoff_grows() -> None:
    """Exponentially, from 5 s."""
    assert [backoff_s(count, random_=1.0) for count in (1, 2, 3, 4, 20)] == [5, 10, 20, 40, 900]
