"""Processes measured from outside: a worker while it runs, and a job after it has ended."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import psutil  # type: ignore[import-untyped]

from jobs.user_error import UserError

#: Short compared to what is timed, and long compared to the one or two milliseconds that a check of the bucket takes.
_LOOK_S: Final = 0.01
#: Adding up the memory of a few processes takes a millisecond of theirs.
_WEIGH_S: Final = 0.1
#: A worker may have to wait for its open poll, which takes up to 20 s.
_STOP_S: Final = 30
_TAIL_CHARACTERS: Final = 2000
#: The unit of ``ru_maxrss``, which is different on macOS.
_MAXRSS_BYTES: Final = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Ended:
    """A process that has ended, including its children."""

    stdout: str
    wall_s: float
    cpu_s: float  #: user and system time
    peak_mb: float  #: peak resident memory of it or of a child, in MB


class WorkerProcess:
    """``python -m <module> <arguments>`` with ``environment`` added. A context manager that ends it with SIGTERM."""

    def __init__(self, module: str, environment: dict[str, str], *arguments: str) -> None:
        self._module = module
        self._arguments = arguments
        self._environment = _inherited() | environment
        self._peak_bytes = 0
        self._weighed_s = 0.0

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
        """Returns the time, by ``time.monotonic``, at which ``done`` becomes true.

        Raises UserError, with the end of the worker's log, if it ends before that or the time is up.
        """
        deadline_s = time.monotonic() + limit_s
        while time.monotonic() < deadline_s:
            self._weigh()
            if done():
                return time.monotonic()
            status = self._process.poll()
            if status is not None:
                raise UserError(f"{self._module} ended with exit status {status} before {what}. {self._log_end()}")
            time.sleep(_LOOK_S)
        raise UserError(f"{self._module} did not reach {what} within {limit_s:.0f} s. {self._log_end()}")

    def cpu_s(self) -> float:
        """Returns user and system time so far, in seconds, of it and its children."""
        return sum(_cpu_s(process) for process in self.family())

    def peak_mb(self) -> float:
        """Returns the peak memory so far of it and its children, in MB, as seen while waiting.

        Memory that processes share is counted once (PSS); without /proc, it is counted for each of them.
        """
        self._weigh(at_once=True)
        return self._peak_bytes / 1e6

    def forget_peak(self) -> None:
        """Starts to measure the peak memory again."""
        self._peak_bytes = 0

    def _weigh(self, *, at_once: bool = False) -> None:
        if at_once or time.monotonic() >= self._weighed_s + _WEIGH_S:
            self._peak_bytes = max(self._peak_bytes, sum(map(_bytes, self.family())))
            self._weighed_s = time.monotonic()

    def family(self) -> list[psutil.Process]:
        """Returns the process and its children; none once it has ended."""
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self._process.pid)
            return [parent, *parent.children(recursive=True)]
        return []

    def _log_end(self) -> str:
        self._stderr.seek(0)
        log = self._stderr.read().decode(errors="replace").strip()[-_TAIL_CHARACTERS:]
        return f"Its log ends with:\n{log}" if log else "It logged nothing."


def run_to_end(module: str, arguments: Sequence[str], environment: dict[str, str]) -> Ended:
    """Runs ``python -m <module>`` with ``environment`` added. Raises UserError if it fails."""
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        started_s = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env=_inherited() | environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        wall_s = time.monotonic() - started_s
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            stderr.seek(0)
            log = stderr.read().decode(errors="replace")[-_TAIL_CHARACTERS:]
            raise UserError(f"{module} ended with exit status {process.returncode}. Its log ends with:\n{log}")
        stdout.seek(0)
        return Ended(
            stdout=stdout.read().decode(),
            wall_s=wall_s,
            cpu_s=usage.ru_utime + usage.ru_stime,
            peak_mb=usage.ru_maxrss * _MAXRSS_BYTES / 1e6,
        )


def _inherited() -> dict[str, str]:
    """Returns the environment with bytecode caching enabled, as it is for an installed package."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _cpu_s(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)
    return 0.0


def _bytes(process: psutil.Process) -> int:
    try:
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii")
        return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024
    except (OSError, StopIteration):
        with contextlib.suppress(psutil.NoSuchProcess):
            return int(process.memory_info().rss)
        return 0
