"""Ctrl-C, SIGTERM and a closed terminal: one line says what stopped, what goes on, and what to type next."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.signals import STOPPING, Stopped, if_stopped, listening, stop
from jobs.wording import program
from tests.conftest import Bench, Trainer


@pytest.mark.parametrize(
    "number", [signal.SIGINT, *(pytest.param(number, marks=pytest.mark.slow) for number in STOPPING[1:])]
)
def test_a_job_goes_on_when_its_waiting_is_interrupted(
    number: signal.Signals, trainer: Trainer, ministack_bench: Bench, few_digits: Path
) -> None:
    """``submit --wait``: the line names the command that waits for it again."""
    bench = ministack_bench
    settings = {"TWOFOLD_QUEUE_URL": bench.queues.requests_url, "TWOFOLD_OUTPUT_URI": bench.output_uri}
    command = ("batch", "submit", str(few_digits), "--job-id", "june", "--wait")
    run = trainer.start(*command, **bench.environment, **settings)
    run.wait_for("request sent")
    os.kill(run.pid, number)
    assert run.wait() == 128 + number
    *_, last, command_line = run.stderr.splitlines()
    assert last == "The job goes on. To wait for it again:"
    assert command_line == f"  {program()} batch status june --watch"
    assert bench.keys("predictions/june/job.json")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGHUP, 129)])
def test_an_interrupted_training_says_how_to_resume(
    number: signal.Signals, status: int, trainer: Trainer, few_digits: Path, tmp_path: Path
) -> None:
    """In one line, and nothing after it."""
    places = (f"--data={few_digits}", f"--output={tmp_path}/models", f"--cache={tmp_path}/cache")
    run = trainer.start("train", "run", *places, "--image-size=32")
    run.wait_for("✓ Hashing the images")
    os.kill(run.pid, number)
    assert run.wait() == status
    *_, last = run.stderr.splitlines()
    assert last == "Interrupted. Finished work is saved: run the same command again to resume."


@pytest.fixture
def handlers() -> Iterator[None]:
    """Restores the handlers of this process."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOPPING)
@pytest.mark.usefixtures("handlers")
def test_a_second_signal_ends_the_process_at_once(number: signal.Signals) -> None:
    """Whatever is still being cleaned up. A terminal that is closed may send SIGHUP twice, which must not do that."""
    for known in STOPPING:
        signal.signal(known, signal.SIG_DFL)  # a shell's background jobs ignore SIGINT
    with pytest.raises(Stopped) as stopped, listening():
        os.kill(os.getpid(), number)
    assert stopped.value.status == 128 + number
    left = (signal.SIG_DFL, signal.SIG_DFL, signal.SIG_IGN)
    assert tuple(map(signal.getsignal, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))) == left


@pytest.mark.usefixtures("handlers")
def test_a_command_that_nohup_started_survives_its_terminal() -> None:
    """What is ignored stays ignored; what is not is restored afterwards."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    before = signal.getsignal(signal.SIGTERM)
    with listening():
        os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGTERM) is stop
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_innermost_block_says_what_goes_on() -> None:
    """And a command without one says what holds for all."""
    assert str(Stopped(signal.SIGINT)) == "Stopped. Run the same command again to go on."
    with pytest.raises(Stopped, match=r"^The job goes on\.$"), if_stopped("outer"), if_stopped("The job goes on."):
        raise Stopped(signal.SIGINT)
