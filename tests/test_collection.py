"""The tests that are collected do not depend on the time."""

import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

_COLLECT = """
import sys, time
import pytest
now = time.time
time.time = lambda: now() + float(sys.argv[1])
sys.exit(pytest.main(["--collect-only", "-q", "-n0", "-p", "no:cacheprovider", "-m", "slow or not slow"]))
"""


@pytest.mark.slow
def test_two_processes_that_start_at_different_times_collect_the_same_tests() -> None:
    """Under other clocks and other hash seeds: pytest-xdist refuses to run processes whose tests differ."""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", _COLLECT, str(shift_s)],
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONHASHSEED": str(number)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, shift_s in enumerate((0, 40_000_000.5), start=1)
    ]
    # Not the last line, which says how long it took.
    first, second = ([line for line in run.communicate()[0].splitlines() if "::" in line] for run in runs)
    assert [run.returncode for run in runs] == [0, 0]
    assert first
    assert first == second
