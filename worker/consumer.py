"""The loop of a worker: receive a message, answer it, settle it; and stop cleanly."""

import logging
import math
import random
import sys
import time
from collections.abc import Callable
from typing import Final

from worker.aws.queue import MAX_POLL_S, Message, Queue
from worker.delivery import LeaseKeeper, backoff_s, give_back, settle
from worker.dispatch import FATAL, Dispatch, Outcome
from worker.errors import ErrorCode, Interrupted, Retry

log = logging.getLogger(__name__)

#: Half of what SQS allows: a stop waits for the open poll, and a container has 30 s to stop
#: (stopTimeout, https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html).
#: On a terminal, a second: someone waits for the end after Ctrl-C.
_POLL_S: Final = 1 if sys.stderr.isatty() else MAX_POLL_S // 2
_DRAIN_POLL_S: Final = 1
_SLICE_S: Final = 0.1
#: The longest pause after a poll that failed. ``worker.health`` counts on it.
_MAX_PAUSE_S: Final = 60


class Stop:
    """A request to stop, and a deadline for the current part.

    A signal handler sets it, and may interrupt the thread that reads it. So it has plain attributes and no lock.
    """

    def __init__(self, *, grace_s: float) -> None:
        self.grace_s = grace_s
        self._deadline = math.inf
        self.requested = False  #: True once a stop is requested

    def request(self) -> None:
        """Asks the worker to stop after the current part, or after ``grace_s`` seconds."""
        if not self.requested:
            self._deadline = time.monotonic() + self.grace_s
            self.requested = True

    def overdue(self) -> bool:
        """Returns True when the current part must be abandoned."""
        return time.monotonic() >= self._deadline

    def wait(self, seconds: float) -> None:
        """Sleeps, but not past a stop."""
        ends = time.monotonic() + seconds
        while not self.requested and time.monotonic() < ends:
            time.sleep(_SLICE_S)


class Consumer:
    """Answers the messages of a queue until a stop is requested.

    ``keeper`` keeps a message hidden while it is worked on. ``beat`` is called whenever there is progress: a poll that
    returned, a row, an image of a list. ``count`` is called with the id of each message that was worked on, and its
    outcome.
    """

    def __init__(
        self,
        *,
        queue: Queue,
        dispatch: Dispatch,
        stop: Stop,
        keeper: LeaseKeeper | None = None,
        beat: Callable[[], None] = lambda: None,
        count: Callable[[str, Outcome], None] = lambda *_: None,
    ) -> None:
        self._count = count
        self._queue = queue
        self._dispatch = dispatch
        self._stop = stop
        self._keeper = keeper or LeaseKeeper(queue)
        self._beat = beat
        # Not longer than a stop may take: the message that an open poll brings must still be given back.
        self._poll_s = max(1, min(_POLL_S, int(stop.grace_s)))

    def run(self, *, drain: bool = False) -> None:
        """Runs until a stop is requested; with ``drain``, until the queue is empty and no worker holds a message.

        Raises Reject when the queue cannot be used: it does not exist, or access is denied. Raises what is ``FATAL``
        after it has given its message back.
        """
        failures = 0
        while not self._stop.requested:
            self._beat()
            try:
                message = self._queue.receive(wait_s=_DRAIN_POLL_S if drain else self._poll_s)
                self._beat()
                if message is not None:
                    self._handle(message)
                elif drain and self._queue.is_empty():
                    return
                failures = 0
            except Retry as error:
                failures += 1
                log.warning("queue: %s", error)
                pause_s = backoff_s(failures, random_=random.random())  # noqa: S311 - jitter
                self._stop.wait(min(pause_s, _MAX_PAUSE_S))

    def _handle(self, message: Message) -> None:
        if self._stop.requested:  # the message arrived in the poll that was open when the signal came
            settle(self._queue, message, Interrupted(ErrorCode.UNAVAILABLE, "the worker is stopping", delay_s=0))
            return
        log.debug("message %s: receive %d", message.message_id, message.receive_count)
        last_try = self._queue.is_last_try(message)
        try:
            with self._keeper.keep(message):
                outcome = self._dispatch.handle(
                    message.body, last_try=last_try, cancelled=self._stop.overdue, progress=self._beat
                )
        except FATAL as error:
            give_back(self._queue, message, error)
            raise
        self._count(message.message_id, outcome)
        settle(self._queue, message, outcome)
