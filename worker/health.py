"""Whether a worker still makes progress: the loop touches a file, and ``python -m worker.health`` looks how long ago.

A worker that waits for messages, or for storage, touches it as well. One that hangs does not, and is started anew.
Exit status: 0 well, 1 not.
"""

import logging
import sys
import time
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

#: Longer than a receive that SQS does not answer, its retries included.
MAX_AGE_S: Final = 300
_PAUSE_S: Final = 1.0


class Heartbeat:
    """Called often, touches the file at most once a second."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._next_s = 0.0

    def __call__(self) -> None:
        """One beat. A file that cannot be touched is a matter for the log, not for the work."""
        now_s = time.monotonic()
        if self._path is None or now_s < self._next_s:
            return
        self._next_s = now_s + _PAUSE_S
        try:
            self._path.touch()
        except OSError as error:
            log.warning("heartbeat: %s", error)


def is_well(path: Path, *, now_s: float) -> bool:
    """Whether the file was touched within the last ``MAX_AGE_S`` seconds."""
    try:
        return now_s - path.stat().st_mtime <= MAX_AGE_S
    except OSError:
        return False


def main() -> int:
    """Reads the settings, and tells by its exit status."""
    from worker.settings import WorkerSettings  # noqa: PLC0415 - the worker itself needs the class above alone

    path = WorkerSettings().heartbeat
    if path is None:
        print("TWOFOLD_HEARTBEAT is not set: nothing to tell from", file=sys.stderr)
        return 1
    return 0 if is_well(path, now_s=time.time()) else 1


if __name__ == "__main__":
    sys.exit(main())
