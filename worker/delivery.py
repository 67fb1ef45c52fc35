"""A message from receive to the end: kept hidden while the work goes on, then acknowledged, rejected or released.

    with Lease(queue, message):
        outcome = dispatch.handle(message.body, …)
    settle(queue, message, outcome)

An outcome is acted on in one place, ``settle``, and after everything else is done.
"""

import logging
import math
import random
import threading
import time
from typing import Final, Self

from worker.aws.failures import LeaseLost
from worker.aws.queue import MAX_LEASE_S, Message, Queue
from worker.dispatch import Done, Outcome
from worker.errors import Reject, Retry

log = logging.getLogger(__name__)

#: A lease is extended when this share of it is left, which is enough for a failed try and a second one.
_LEFT: Final = 1 / 3

_BACKOFF_BASE_S: Final = 5
_BACKOFF_CAP_S: Final = 15 * 60


class Lease:
    """A heartbeat that keeps a message hidden, as a context manager around the work.

    No extension is under way after the ``with`` block, so a release is not undone by one. A lost lease is logged and
    stops the heartbeat. It corrupts nothing: another worker may do the same work, and the conditional write decides.
    """

    def __init__(self, queue: Queue, message: Message) -> None:
        self._queue = queue
        self._message = message
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _beat(self) -> None:
        visibility_s = self._queue.visibility_s
        ends = time.monotonic() + MAX_LEASE_S - visibility_s
        pause_s = visibility_s * (1 - _LEFT)
        while not self._done.wait(pause_s):
            if time.monotonic() >= ends:
                log.error("message %s: held for 12 hours, which SQS does not extend", self._message.message_id)
                return
            try:
                self._queue.extend(self._message, seconds=visibility_s)
                pause_s = visibility_s * (1 - _LEFT)
            except LeaseLost as error:
                log.warning("message %s: lease lost, %s", self._message.message_id, error)
                return
            except (Retry, Reject) as error:
                log.warning("message %s: lease not extended, %s", self._message.message_id, error)
                pause_s = visibility_s * _LEFT / 4


def settle(queue: Queue, message: Message, outcome: Outcome) -> bool:
    """Acknowledges, rejects or releases the message, as its outcome says. Logs failures of SQS.

    Returns whether the message is finished: its answer is written, or it is in the dead-letter queue. Otherwise it
    must be delivered again.
    """
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
