"""The loop: receive, answer, acknowledge or release or reject; and a clean stop."""

import logging
import math
import random
import time
from collections.abc import Callable
from typing import Final

from worker.aws.queue import Message, Queue
from worker.delivery import Lease, backoff_s, settle
from worker.dispatch import Dispatch
from worker.errors import ErrorCode, Retry

log = logging.getLogger(__name__)

#: Half of what SQS allows: a poll that is open when the stop signal comes is waited for, and a container's stop
#: time is 30 s: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html (stopTimeout)
_POLL_S: Final = 10
_DRAIN_POLL_S: Final = 1
_SLICE_S: Final = 0.1


class Stop:
    """Whether to stop, and whether the time for the current part is over.

    Set from a signal handler, which may interrupt the thread that reads it: plain attributes, and no lock to wait on.
    """

    def __init__(self, *, grace_s: float) -> None:
        self._grace_s = grace_s
        self._deadline = math.inf
        self.requested = False  #: True once a stop was asked for

    def request(self) -> None:
        """Stops after the current part, or when ``grace_s`` have passed."""
        if not self.requested:
            self._deadline = time.monotonic() + self._grace_s
            self.requested = True

    def overdue(self) -> bool:
        """True when the current part should be given up."""
        return time.monotonic() >= self._deadline

    def wait(self, seconds: float) -> None:
        """Sleeps, but not through a stop."""
        ends = time.monotonic() + seconds
        while not self.requested and time.monotonic() < ends:
            time.sleep(_SLICE_S)


class Consumer:
    """Takes requests off a queue until it is told to stop."""

    def __init__(
        self, *, queue: Queue, dispatch: Dispatch, stop: Stop, beat: Callable[[], None] = lambda: None
    ) -> None:
        self._queue = queue
        self._dispatch = dispatch
        self._stop = stop
        self._beat = beat  #: told that there is progress

    def run(self, *, drain: bool = False) -> None:
        """Runs until a stop is requested, or with ``drain`` until the queue is empty and nobody holds a message.

        Raises Reject when the queue itself can never be read (gone, or forbidden).
        """
        failures = 0
        while not self._stop.requested:
            self._beat()
            try:
                message = self._queue.receive(wait_s=_DRAIN_POLL_S if drain else _POLL_S)
                if message is not None:
                    self._handle(message)
                elif drain and self._queue.is_empty():
                    return
                failures = 0
            except Retry as error:
                failures += 1
                log.warning("queue: %s", error)
                self._stop.wait(backoff_s(failures, random_=random.random()))  # noqa: S311 - jitter

    def _handle(self, message: Message) -> None:
        if self._stop.requested:  # it arrived in the poll that was open when the signal came
            settle(self._queue, message, Retry(ErrorCode.UNAVAILABLE, "the worker was told to stop", delay_s=0))
            return
        with Lease(self._queue, message):
            last_try = message.receive_count >= self._queue.max_receives
            outcome = self._dispatch.handle(message.body, last_try=last_try, cancelled=self._cancelled)
        settle(self._queue, message, outcome)

    def _cancelled(self) -> bool:
        self._beat()
        return self._stop.overdue()
