"""Nothing outlives a command: not its emulator, not its worker, not a training job, however it ends.

Real processes in a real terminal. The kernel ends the terminal as it does when a window is closed. The walk through the
README, which is in the normal run, ends by closing the terminal of ``twofold local``.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Final

import pytest

from jobs.wording import program
from tests.conftest import REPOSITORY, Bench
from tests.jobs.local.test_playground import assert_ended, family_of, free_port
from tests.terminal import Terminal

CTRL_C: Final = "Ctrl-C"
CLOSED: Final = "the terminal is closed"
Ending = signal.Signals | str

#: All that a person or a machine may do to a command; SIGKILL is what the kernel does when memory runs out.
PLAIN: Final = os.environ | {"PYTHONPATH": str(REPOSITORY)}
ENDINGS: Final[list[Ending]] = [CTRL_C, CLOSED, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL]


def _command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "jobs.cli", *map(str, arguments)]


def _end(terminal: Terminal, how: Ending) -> int:
    """Ends the command, waits for all that it has started, and returns its exit status."""
    family = family_of(terminal.process)
    if how == CTRL_C:
        terminal.press_ctrl_c()
    elif how == CLOSED:
        terminal.close()
    else:
        assert isinstance(how, signal.Signals)
        terminal.process.send_signal(how)
    status = terminal.process.wait(120)
    assert_ended(family)
    return status


def _said(terminal: Terminal, how: Ending) -> str | None:
    """Returns what it said in the end, unless nobody was there to read it."""
    if how in (CLOSED, signal.SIGKILL):
        return None
    terminal.close()
    return " ".join(terminal.text.split())  # which breaks lines at 80 columns


def _local(models: Path, tmp_path: Path) -> Terminal:
    options = ("--model", models, "--keep", tmp_path / "local", "--port", str(free_port()))
    return Terminal(_command("local", *options), cwd=tmp_path, env=PLAIN)


@pytest.mark.slow
@pytest.mark.parametrize("how", ENDINGS)
def test_nothing_of_twofold_local_outlives_it(how: Ending, models: Path, tmp_path: Path) -> None:
    """The emulator, the worker, and the processes that decode for it."""
    with _local(models, tmp_path) as terminal:
        terminal.wait_for("twofold.toml? ")
        terminal.type("n\n")
        terminal.wait_for("starts a job as well")
        status = _end(terminal, how)
        said = _said(terminal, how)
    assert status == (-signal.SIGKILL if how == signal.SIGKILL else 0)
    kept = tmp_path / "local"
    assert said is None or said.endswith(
        f"Everything has stopped. {kept} keeps its data: run the same command to go on."
    )
    assert (kept / "cloud/state").is_dir()  # also after SIGKILL: the emulator stores it when its parent has gone


@pytest.mark.slow
@pytest.mark.parametrize("how", [CTRL_C, CLOSED, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_nothing_of_the_demo_outlives_it(how: Ending, tmp_path: Path) -> None:
    """The emulator and the training job."""
    with Terminal(_command("demo", "--keep", tmp_path), cwd=REPOSITORY) as terminal:
        terminal.wait_for("Starting TensorFlow")
        _end(terminal, how)
        said = _said(terminal, how)
    assert said is None or said.endswith(
        "The training has stopped. What it finished is saved: run the same command again to go on."
    )


@pytest.mark.slow
@pytest.mark.parametrize("how", [CTRL_C, CLOSED, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
@pytest.mark.parametrize("command", ["run", "submit --on here"])
def test_nothing_of_a_training_outlives_it(command: str, how: Ending, few_digits: Path, tmp_path: Path) -> None:
    """The processes that decode images, wherever it was started from; only ``--detach`` lets it go on."""
    places = ("--data", few_digits, "--output", tmp_path / "models", "--cache", tmp_path / "cache")
    with Terminal(_command("train", *command.split(), *places), cwd=tmp_path, env=PLAIN) as terminal:
        terminal.wait_for("Training the head")
        _end(terminal, how)
        said = _said(terminal, how)
    assert said is None or said.endswith("Interrupted. Finished work is saved: run the same command again to resume.")


@pytest.mark.slow
@pytest.mark.parametrize("how", ENDINGS)
def test_a_job_goes_on_without_the_terminal_that_submitted_it(
    how: Ending, ministack_bench: Bench, few_digits: Path
) -> None:
    """``submit --wait`` has started nothing that could outlive it."""
    bench = ministack_bench
    settings = {"TWOFOLD_QUEUE_URL": bench.queues.requests_url, "TWOFOLD_OUTPUT_URI": bench.output_uri}
    command = _command("batch", "submit", few_digits, "--job-id", "june", "--wait")
    with Terminal(command, cwd=REPOSITORY, env=os.environ | bench.environment | settings) as terminal:
        terminal.wait_for("request sent")
        _end(terminal, how)
        said = _said(terminal, how)
    assert said is None or said.endswith(f"{program()} batch status june --watch")  # after what goes on
    assert bench.keys("predictions/june/job.json")
