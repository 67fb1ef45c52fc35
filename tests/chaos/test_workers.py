"""Processes that are started and killed."""

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.workers import Started, Template, left_behind, wait_until

#: A process with a child that does not care whether its parent lives.
PARENT = "import subprocess; subprocess.run(['sleep', '60'], start_new_session=True)"


@pytest.fixture(scope="module")
def template() -> Iterator[Template]:
    with Template() as template:
        yield template


@pytest.fixture
def parent(template: Template, tmp_path: Path) -> Started:
    started = template.start("timeit", "-n1", "-r1", PARENT, environment=dict(os.environ), log=tmp_path / "log")
    wait_until(started.descendants, what="child")
    return started


def test_a_process_that_outlives_the_one_that_started_it_is_found(parent: Started) -> None:
    """Even if it has a session of its own."""
    (child,) = parent.descendants()
    parent.kill()
    assert parent.wait() == -signal.SIGKILL
    assert left_behind([parent], patience_s=0) == [child]
    child.kill()
    assert left_behind([parent]) == []


@pytest.mark.parametrize(("seed", "status"), [(1, -signal.SIGKILL), (2, 0)])
def test_one_of_a_process_and_its_children_is_killed(parent: Started, seed: int, status: int) -> None:
    """As luck will have it. A parent goes on without its child."""
    parent.kill_one(random.Random(seed))
    assert parent.wait() == status
    for process in left_behind([parent], patience_s=0):
        process.kill()


def test_a_process_that_ends_has_its_status_and_its_log(template: Template, tmp_path: Path) -> None:
    """As if it had been started by itself."""
    started = template.start("worker", environment={}, log=tmp_path / "log")
    assert started.wait() == 2
    assert "TWOFOLD_QUEUE_URL" in started.text()


def test_what_was_started_ends_with_the_template(tmp_path: Path) -> None:
    """Even when the tests are killed: all that the template sees is that its input ends."""
    child = "import subprocess; subprocess.run(['sleep', '60'])"
    with Template() as template:
        started = template.start("timeit", "-n1", "-r1", child, environment=dict(os.environ), log=tmp_path / "log")
        wait_until(started.descendants, what="child")
    assert left_behind([started]) == []
