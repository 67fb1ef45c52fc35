"""Keeps a message hidden while it is worked on, and no longer."""

import logging
import math
import random
import threading
import time
from typing import Final, Self

from worker.aws.queue import MAX_LEASE_S, LeaseLost, Message, Queue
from worker.dispatch import Done, Outcome
from worker.errors import Reject, Retry

log = logging.getLogger(__name__)

#: Extend when this share of the visibility time-out is left: one failed try, and a second, still fit in.
_LEFT: Final = 1 / 3


class Lease:
    """A heartbeat, as a context manager around the work. After the ``with`` no extension is under way any more, so
    the visibility that a release sets is the last word.

    A lost lease is logged and stops the heartbeat. It corrupts nothing: another worker may do the same work, and the
    conditional write decides.
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
                log.error("message %s: 12 hours, SQS extends it no further", self._message.message_id)
                return
            try:
                self._queue.extend(self._message, seconds=visibility_s)
                pause_s = visibility_s * (1 - _LEFT)
            except LeaseLost as error:
                log.warning("message %s: lease lost, %s", self._message.message_id, error)
                return
            except (Retry, Reject) as error:
                log.warning("message %s: not extended, %s", self._message.message_id, error)
                pause_s = visibility_s * _LEFT / 4


log = logging.getLogger(__name__)

_BACKOFF_BASE_S: Final = 5
_BACKOFF_CAP_S: Final = 15 * 60


def backoff_s(receive_count: int, *, random_: float) -> int:
    """Seconds before try ``receive_count + 1``: exponential, capped, "equal jitter" with ``random_`` in [0, 1).

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    ceiling = min(_BACKOFF_CAP_S, math.ldexp(_BACKOFF_BASE_S, min(receive_count, 20) - 1))
    return round(ceiling / 2 + ceiling / 2 * random_)


def settle(queue: Queue, message: Message, outcome: Outcome) -> bool:
    """Acknowledges, rejects or releases the message, after everything else is done. False: it must come back."""
    try:
        if isinstance(outcome, Done):
            queue.acknowledge(message)
            log.info("%s", outcome.what)
            return True
        if isinstance(outcome, Reject):
            queue.reject(message, outcome)
            log.error("message %s to the dead-letter queue: %s", message.message_id, outcome)
            return True
        delay_s = outcome.delay_s
        if delay_s is None:
            delay_s = backoff_s(message.receive_count, random_=random.random())  # noqa: S311 - jitter
        queue.release(message, delay_s=delay_s)
        log.warning("message %s back in %d s: %s", message.message_id, delay_s, outcome)
    except LeaseLost as error:
        log.warning("message %s was no longer ours: %s", message.message_id, error)
        return not isinstance(outcome, Retry)  # a rejection was sent before it was deleted
    except (Reject, Retry) as error:
        log.warning("message %s stays hidden until its lease ends: %s", message.message_id, error)
    return isinstance(outcome, Done)  # it is written, whether or not its message is deleted
