"""A child process ends with its parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from tests.conftest import REPOSITORY
from tests.jobs.local.test_playground import assert_ended

PARENT = """
import os, signal, sys
from jobs.local import tether
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run with nohup
print(tether.start("waiting", environment=dict(os.environ)).pid, flush=True)
sys.stdin.read()
"""
#: A module that says when it is ready, and what it is asked.
WAITING = """
import pathlib, signal, sys, time
here = pathlib.Path(__file__).parent
signal.signal(signal.SIGTERM, lambda *_: (here / "asked").touch() or sys.exit())
(here / "ready").touch()
time.sleep(120)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM])
def test_a_child_ends_however_its_parent_ends(tmp_path: Path, number: signal.Signals) -> None:
    """SIGKILL leaves the parent no chance to say so. The child is asked first, so that it can save what it has."""
    (tmp_path / "waiting.py").write_text(WAITING)
    path = {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{tmp_path}"}
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(
        command,
        env=os.environ | path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout
        child = psutil.Process(int(parent.stdout.readline()))
        assert os.getsid(child.pid) == child.pid  # so that Ctrl-C is the parent's
        while not (tmp_path / "ready").exists():
            assert child.is_running()
            time.sleep(0.01)
        parent.send_signal(number)
        parent.wait(60)
    assert_ended([child])
    assert (tmp_path / "asked").exists()
