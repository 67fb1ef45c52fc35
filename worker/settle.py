"""Lets go of a message once its outcome is known: the one place that does, for the loop and for a Lambda."""

import logging
import math
import random
from typing import Final

from worker.aws.queue import LeaseLost, Message, Queue
from worker.dispatch import Done, Outcome
from worker.errors import Reject, Retry

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
