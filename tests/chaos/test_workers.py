"""Processes that are started and killed."""

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.workers import Started, Template, left_behind, wait_until

#: A process with a child that does not care whether its parent lives.
PARENT = "import subprocess; print('begun', flush=True); subprocess.run(['sleep', '60'])"


@pytest.fixture(scope="module")
def template() -> Iterator[Template]:
    with Template() as template:
        yield template


@pytest.fixture
def parent(template: Template, tmp_path: Path) -> Started:
    started = template.start("timeit", "-n1", "-r1", PARENT, environment=dict(os.environ), log=tmp_path / "log")
    wait_until(lambda: len(started.members()) == 2, what="child")
    return started


def test_a_process_that_outlives_the_one_that_started_it_is_found(parent: Started) -> None:
    """It belongs to the same session."""
    child = parent.members()[1]
    parent.kill()
    assert parent.wait() == -signal.SIGKILL
    assert left_behind([parent], patience_s=0) == [child]
    os.kill(child, signal.SIGKILL)
    assert left_behind([parent]) == []


def test_a_child_is_killed_as_often_as_its_parent(parent: Started) -> None:
    """The parent goes on, and may start another."""
    luck = random.Random(1)
    while parent.status() is None and len(parent.members()) == 2:
        parent.kill_one(luck)
    child_first = random.Random(1).random() >= 0.5
    assert (parent.wait() == 0) == child_first
    for pid in left_behind([parent], patience_s=0):
        os.kill(pid, signal.SIGKILL)


def test_a_process_that_ends_has_its_status_and_its_log(template: Template, tmp_path: Path) -> None:
    """As if it had been started by itself."""
    started = template.start("worker", environment={}, log=tmp_path / "log")
    assert started.wait() == 2
    assert "TWOFOLD_QUEUE_URL" in started.text()


def test_what_was_started_ends_with_the_template(tmp_path: Path) -> None:
    """Even when the tests are killed: all that the template sees is that its input ends."""
    with Template() as template:
        started = template.start("timeit", "-n1", "-r1", PARENT, environment=dict(os.environ), log=tmp_path / "log")
        wait_until(lambda: len(started.members()) == 2, what="child")
    assert left_behind([started]) == []
