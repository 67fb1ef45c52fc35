"""How long each stage of the work takes: fetch, decode, score, write. Summed over all threads."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Stages:
    """Milliseconds by stage. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ms: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds what the block takes, also when it fails."""
        started = time.perf_counter()
        try:
            yield
        finally:
            passed_ms = (time.perf_counter() - started) * 1000
            with self._lock:
                self._ms[stage] += passed_ms

    def take(self) -> dict[str, float]:
        """What was added since the last call."""
        with self._lock:
            taken, self._ms = dict(self._ms), defaultdict(float)
        return taken
