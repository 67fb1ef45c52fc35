"""An attempt at a request: what bounds it, and who is kept informed."""

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try to answer a request."""

    #: A failure that would be tried again becomes a row or a rejection.
    last_try: bool = False
    #: How long storage is waited for, in all, before an image that is not delivered has failed.
    patience_s: float = math.inf
    #: Called between images and while one is awaited; once it returns True, the work is Interrupted.
    cancelled: Callable[[], bool] = lambda: False
    #: Called whenever the work has moved on: a row, an image of a list, a shard.
    progress: Callable[[], None] = lambda: None
