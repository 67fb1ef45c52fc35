"""One process at a time, on this machine."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.progress import Reporter


@contextmanager
def alone(path: Path, what: str, reporter: Reporter) -> Iterator[None]:
    """Holds the lock file at ``path``, which stays; waits for another process that holds it, and says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with reporter.step(f"Waiting for another job that is {what}"):
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield
