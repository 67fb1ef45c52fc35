"""Pools whose threads all run before there is work: one that cannot be started ends the worker, not a request."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from worker.errors import Broken

_START_S: Final = 30


def pool_of(threads: int, name: str) -> ThreadPoolExecutor:
    """Returns a pool whose threads all run. Raises Broken if they cannot be started.

    A pool of the standard library starts its threads when they are needed, and ``Thread.start`` can wait forever for
    one that finds no memory.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    everyone = threading.Barrier(threads, timeout=_START_S)
    try:
        for future in [pool.submit(everyone.wait) for _ in range(threads)]:
            future.result(timeout=_START_S)
    except (RuntimeError, TimeoutError) as error:  # BrokenBarrierError is a RuntimeError
        raise Broken(f"{threads} threads cannot be started: {error}") from error
    return pool
