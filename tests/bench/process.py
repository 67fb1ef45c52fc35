"""A worker's process, measured from outside."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

import psutil  # type: ignore[import-untyped]

from jobs.errors import UserError

#: Short against what is timed, long against the millisecond or two that a look into the bucket costs both cores.
_LOOK_S: Final = 0.01
#: A worker may wait for its open poll to end, 20 s at most.
_STOP_S: Final = 30
_TAIL_CHARACTERS: Final = 2000


class WorkerProcess:
    """``python -m <module> <arguments>`` with ``environment`` on top of ours. A context manager; SIGTERM ends it."""

    def __init__(self, module: str, environment: dict[str, str], *arguments: str) -> None:
        self._module = module
        self._arguments = arguments
        # As installed: with its bytecode kept, whatever this shell is told.
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self._environment = inherited | environment

    def __enter__(self) -> Self:
        self._stderr = tempfile.TemporaryFile(prefix="twofold-bench-")
        self.started_s = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._module, *self._arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stderr.close()

    def wait_until(self, done: Callable[[], bool], *, what: str, limit_s: float) -> float:
        """The moment, by ``time.monotonic``, at which ``done`` is true.

        Raises UserError, with what the worker said last, when it ends before that or the time is up.
        """
        deadline_s = time.monotonic() + limit_s
        while time.monotonic() < deadline_s:
            if done():
                return time.monotonic()
            status = self._process.poll()
            if status is not None:
                raise UserError(f"{self._module} ended with exit status {status} before {what}. {self._last_words()}")
            time.sleep(_LOOK_S)
        raise UserError(f"After {limit_s:.0f} s {self._module} has not come to {what}. {self._last_words()}")

    def cpu_s(self) -> float:
        """User and system time so far, in seconds."""
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)

    def peak_mb(self) -> float:
        """The most memory it and its children were resident with so far, in MB; without /proc, what they are now."""
        parent = psutil.Process(self._process.pid)
        return sum(_peak_bytes(process) for process in (parent, *parent.children(recursive=True))) / 1e6

    def _last_words(self) -> str:
        self._stderr.seek(0)
        said = self._stderr.read().decode(errors="replace").strip()[-_TAIL_CHARACTERS:]
        return f"Its last words:\n{said}" if said else "It said nothing."


def _peak_bytes(process: psutil.Process) -> int:
    try:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    except OSError:
        return int(process.memory_info().rss)
    kibibytes = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")), 0)
    return int(kibibytes) * 1024
