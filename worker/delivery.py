"""A message from receive to the end: kept hidden while the work goes on, then acknowledged, rejected or released.

    with keeper.keep(message):
        outcome = dispatch.handle(message.body, …)
    settle(queue, message, outcome)

An outcome is acted on in one place, ``settle``, and after everything else is done.
"""

import logging
import math
import queue as queues
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from worker.aws.failures import LeaseLost
from worker.aws.queue import MAX_LEASE_S, Message, Queue
from worker.dispatch import Done, Outcome, explain_fatal
from worker.errors import ErrorCode, Interrupted, Reject, Retry

log = logging.getLogger(__name__)

#: A lease is extended when this share of it is left: time for several attempts, even if SQS is silent.
_LEFT: Final = 1 / 2
#: An attempt to extend a lease takes this share of it at most, and this many seconds. A worker that stops may have to
#: wait for one, and must then still give its message back within the margin of ``worker.__main__``.
_ATTEMPT: Final = 1 / 6
_MAX_ATTEMPT_S: Final = 2.0
#: The pause after a failed attempt, as a share of the lease.
_PAUSE: Final = 1 / 24
#: Added to the limit of the client: the processor may be busy.
_PATIENCE_S: Final = 0.5

#: How often a message is replaced by a fresh copy of itself. With ten receives each, that is 200 interruptions.
MAX_RENEWALS: Final = 20

_BACKOFF_BASE_S: Final = 5
_BACKOFF_CAP_S: Final = 15 * 60


def attempt_s(visibility_s: float) -> float:
    """Returns how long one attempt to extend a lease of ``visibility_s`` seconds may take, in seconds."""
    return min(_MAX_ATTEMPT_S, visibility_s * _ATTEMPT)


class _Kept:
    """A message in hand."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self.since_s = time.monotonic()
        self.done = threading.Event()


class LeaseKeeper:
    """A heartbeat: one thread that keeps the message in hand hidden, one message after another.

    The thread is started once, and nothing waits for it without a limit: where memory is short, a new thread may never
    start. ``queue`` is open over a client of one short attempt. A lost lease is logged and no longer extended. It
    corrupts nothing: another worker may do the same work, and the conditional write decides.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._handed: queues.SimpleQueue[_Kept] = queues.SimpleQueue()
        self._calling = threading.Lock()  # held while an extension is under way
        threading.Thread(target=self._serve, name="lease", daemon=True).start()

    @contextmanager
    def keep(self, message: Message) -> Iterator[None]:
        """Keeps the message hidden within the block.

        No extension is under way after it, so that none undoes a release. Waits for one attempt at most.
        """
        kept = _Kept(message)
        self._handed.put(kept)
        try:
            yield
        finally:
            kept.done.set()
            if self._calling.acquire(timeout=attempt_s(self._queue.visibility_s) + _PATIENCE_S):
                self._calling.release()
            else:
                log.warning("message %s: an extension of its lease is still under way", message.message_id)

    def _serve(self) -> None:
        while True:
            kept = self._handed.get()
            try:
                self._beat(kept)
            except Exception:
                # Without this thread no later message would be kept, so nothing ends it, not even a lack of memory.
                with suppress(Exception):
                    log.exception("message %s: its lease is not extended any more", kept.message.message_id)

    def _beat(self, kept: _Kept) -> None:
        visibility_s = self._queue.visibility_s
        message_id, extended_s = kept.message.message_id, kept.since_s
        pause_s = visibility_s * (1 - _LEFT)
        # From the hand-over on: the thread may have been busy with the message before this one.
        while not kept.done.wait(max(0.0, extended_s + pause_s - time.monotonic())):
            extended_s = time.monotonic()
            if extended_s >= kept.since_s + MAX_LEASE_S - visibility_s:
                log.error("message %s: held for 12 hours, which SQS does not extend", message_id)
                return
            try:
                with self._calling:
                    if kept.done.is_set():
                        return
                    self._queue.extend(kept.message, seconds=visibility_s)
                pause_s = visibility_s * (1 - _LEFT)
            except LeaseLost as error:
                log.warning("message %s: lease lost, %s", message_id, error)
                return
            except (Retry, Reject) as error:
                log.warning("message %s: lease not extended, %s", message_id, error)
                extended_s, pause_s = time.monotonic(), visibility_s * _PAUSE


def settle(queue: Queue, message: Message, outcome: Outcome) -> bool:
    """Acknowledges, rejects, releases or renews the message, as its outcome says. Logs failures of SQS.

    Returns whether the message is finished: its answer is written, it is in the dead-letter queue, or a fresh copy took
    its place. Otherwise it must be delivered again.
    """
    if isinstance(outcome, Interrupted) and queue.is_last_receive(message):
        return _renew(queue, message, outcome)
    try:
        if isinstance(outcome, Retry):
            _release(queue, message, outcome)
            return False
        if isinstance(outcome, Reject):
            queue.reject(message, outcome)
            log.error("message %s sent to the dead-letter queue: %s", message.message_id, outcome)
        else:
            queue.acknowledge(message)
            log.info("%s", outcome.what)
        return True
    except LeaseLost as error:
        log.warning("message %s: lease lost before it was settled, %s", message.message_id, error)
        return not isinstance(outcome, Retry)  # a rejection is sent before the message is deleted
    except (Reject, Retry) as error:
        log.warning("message %s stays hidden until its lease ends: %s", message.message_id, error)
        return isinstance(outcome, Done)  # the answer is written, whether or not the message is deleted


def give_back(queue: Queue, message: Message, error: BaseException) -> None:
    """Gives back the message in hand of a worker that ends because of ``error``, one of ``worker.dispatch.FATAL``.

    With backoff: the request may be what ended it. On the last receive SQS would move it without a reason.
    """
    reason = f"the worker ended: {explain_fatal(error)}"
    outcome: Outcome = Retry(ErrorCode.UNAVAILABLE, reason)
    if queue.is_last_receive(message):
        outcome = Reject(ErrorCode.UNAVAILABLE, f"on the last receive: {reason}")
    with suppress(Exception):  # there may be no memory left; then the message comes back when its lease ends
        settle(queue, message, outcome)


def backoff_s(receive_count: int, *, random_: float) -> int:
    """Returns the seconds before try ``receive_count + 1``: exponential, capped, with "equal jitter".

    ``random_`` is in [0, 1). https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    ceiling = min(_BACKOFF_CAP_S, math.ldexp(_BACKOFF_BASE_S, min(receive_count, 20) - 1))
    return round(ceiling / 2 + ceiling / 2 * random_)


def _release(queue: Queue, message: Message, reason: Retry) -> None:
    delay_s = reason.delay_s
    if delay_s is None:
        delay_s = backoff_s(message.receive_count, random_=random.random())  # noqa: S311 - jitter
    queue.release(message, delay_s=delay_s)
    log.warning("message %s returns to the queue in %d s: %s", message.message_id, delay_s, reason)


def _renew(queue: Queue, message: Message, reason: Interrupted) -> bool:
    """Replaces a message that was interrupted on its last receive: SQS would move it to the dead-letter queue next."""
    if message.renewed >= MAX_RENEWALS:
        what = f"interrupted on every receive of {MAX_RENEWALS} fresh copies, at last: {reason.message}"
        hint = "Raise the function's timeout, or TWOFOLD_STOP_S of a worker in a container, or split the request"
        return settle(queue, message, Reject(reason.code, f"{what}. {hint}"))
    try:
        queue.renew(message)
    except Reject as error:
        what = f"interrupted on the last receive, and no fresh copy of it could be sent: {error.message}"
        return settle(queue, message, Reject(reason.code, what))
    except Retry as error:
        log.warning("message %s: interrupted on its last receive, and not renewed: %s", message.message_id, error)
        return False
    fresh = f"a fresh copy is on the queue ({message.renewed + 1} of {MAX_RENEWALS})"
    what = f"message {message.message_id} was interrupted on its last receive, {fresh}: {reason.message}"
    return settle(queue, message, Done(what))
