"""The container engine of the tests itself."""

import subprocess
from pathlib import Path

import pytest

from tests.images.engine import Container, Image


def test_a_container_that_never_writes_a_line_does_not_hold_up_the_tests() -> None:
    """It is killed, and its log shown. Here it is a shell with a child that stands for process 1."""
    silent = subprocess.Popen(["sh", "-c", "echo starting; sleep 600; true"], stdout=subprocess.PIPE, text=True)
    container = Container(Image("none", Path("/"), {}, 0), silent, [])
    with pytest.raises(AssertionError, match="it ended without 'ready':\nstarting"):
        container.wait_for("ready", timeout_s=0.2)
    assert container.end() == (0, "")
