"""Keeps a message hidden while it is worked on, and no longer."""

import logging
import threading
import time
from typing import Final, Self

from worker.aws.queue import MAX_LEASE_S, LeaseLost, Message, Queue
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
