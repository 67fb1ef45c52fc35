"""Signals to a worker that is not ready, or that hangs: also as process 1 of a container, which the kernel protects."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from tests.conftest import REPOSITORY

UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def prefix_of(kind: str) -> tuple[str, ...]:
    """What starts a command as an ordinary process, or as process 1 of a PID namespace of its own."""
    if kind == "ordinary":
        return ()
    for prefix in (UNSHARE, (*UNSHARE, "--map-root-user")):
        if (
            shutil.which(prefix[0])
            and subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode == 0
        ):
            return prefix
    pytest.skip("this machine allows no PID namespace")


class Process:
    """A Python process that writes ``waiting`` to standard error, as process 1 or not."""

    def __init__(self, kind: str, *arguments: str, **environment: str) -> None:
        self._prefix = prefix_of(kind)
        self._started = subprocess.Popen(
            [*self._prefix, sys.executable, *arguments],
            env=os.environ | environment,
            cwd=REPOSITORY,
            stderr=subprocess.PIPE,
            text=True,
        )

    def signal(self) -> None:
        """Waits for the line, and sends SIGTERM from outside the namespace, as a container's engine does."""
        assert self._started.stderr
        assert any("waiting" in line for line in iter(self._started.stderr.readline, ""))
        pid = psutil.Process(self._started.pid).children()[0].pid if self._prefix else self._started.pid
        os.kill(pid, signal.SIGTERM)

    def end(self) -> tuple[int, str]:
        """Its exit status, and what it wrote to standard error after that line."""
        try:
            _, log = self._started.communicate(timeout=30)
        finally:
            self._started.kill()
        return self._started.returncode, log


@pytest.mark.parametrize("kind", ["ordinary", "process 1"])
def test_a_stop_signal_during_the_imports_ends_the_worker(kind: str, tmp_path: Path) -> None:
    """It holds no message yet. As process 1, it would otherwise be killed half a minute later."""
    (tmp_path / "pydantic.py").write_text(
        "import sys, time\nprint('waiting', file=sys.stderr, flush=True)\ntime.sleep(600)\n"
    )
    process = Process(kind, "-m", "worker", PYTHONPATH=str(tmp_path))
    process.signal()
    assert process.end() == (0, "stopped before it was ready\n")


def test_a_worker_that_hangs_after_a_stop_signal_ends_and_shows_where() -> None:
    """Even as process 1, which gets no SIGALRM. SQS delivers the message again."""
    hang = """
import sys, time, worker.__main__ as m
m._stop_on_signals(m.Stop(grace_s=0), limit_s=0.1)
print("waiting", file=sys.stderr, flush=True)
while True:
    time.sleep(600)
"""
    process = Process("process 1", "-c", hang)
    process.signal()
    status, log = process.end()
    assert status == 1
    assert 'File "<string>", line 6 in <module>' in log
