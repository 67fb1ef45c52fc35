"""The health check of a worker. The worker touches a file while it makes progress; this command checks its age.

    python -m worker.health     exit status 0: healthy, 1: not

Progress is a poll that returned (with or without a message), a row, an image of a list, or a shard. While nothing
moves, the file grows old, and the container's health check restarts the worker.
"""

import logging
import sys
import time
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

#: Longer than a receive that SQS never answers, 5 attempts of 35 s, and the pause after it of up to 60 s. Also longer
#: than the time limits of one image, so that only a worker that hangs is restarted.
MAX_AGE_S: Final = 300
_PAUSE_S: Final = 1.0


class Heartbeat:
    """A function to call often, which touches the file at most once a second."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._next_s = 0.0

    def __call__(self) -> None:
        """Touches the file. A file that cannot be touched is logged and does not stop the work."""
        now_s = time.monotonic()
        if self._path is None or now_s < self._next_s:
            return
        self._next_s = now_s + _PAUSE_S
        try:
            self._path.touch()
        except OSError as error:
            log.warning("heartbeat: %s", error)


def is_healthy(path: Path, *, now_s: float) -> bool:
    """Returns whether the file was touched within the last ``MAX_AGE_S`` seconds."""
    try:
        return now_s - path.stat().st_mtime <= MAX_AGE_S
    except OSError:
        return False


def main() -> int:
    """Reads the settings, checks the file, and returns the exit status."""
    from pydantic import ValidationError  # noqa: PLC0415 - a worker imports this file for Heartbeat alone

    from worker.settings import WorkerSettings, explain_settings  # noqa: PLC0415

    try:
        path = WorkerSettings().heartbeat
    except ValidationError as error:
        print(explain_settings(error), file=sys.stderr)
        return 1
    if path is None:
        print("TWOFOLD_HEARTBEAT is not set: name the file that the worker touches.", file=sys.stderr)
        return 1
    return 0 if is_healthy(path, now_s=time.time()) else 1


if __name__ == "__main__":
    sys.exit(main())
