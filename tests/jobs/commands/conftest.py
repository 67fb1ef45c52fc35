"""``twofold batch`` in this process, and a worker that answers what it sends."""

import signal
from collections.abc import Callable

import pytest

from jobs.cli import main
from jobs.signals import STOPPING
from tests.conftest import Bench
from tests.desk import Desk
from worker.delivery import settle

Twofold = Callable[..., tuple[int, str]]
Work = Callable[[], None]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Twofold:
    """The command in this process. Returns its exit status and its output, and its messages if it failed."""

    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        before = {number: signal.getsignal(number) for number in STOPPING}
        try:
            status = main(["batch", *arguments])
        except SystemExit as error:
            status = int(error.code or 0)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        captured = capsys.readouterr()
        return status, captured.out if status == 0 else captured.out + captured.err

    return run


@pytest.fixture
def twofold(bench: Bench, desk: Desk, monkeypatch: pytest.MonkeyPatch, command: Twofold) -> Twofold:
    """The command with the settings of a queue, a bucket and a model."""
    settings = {"QUEUE_URL": bench.queues.requests_url, "OUTPUT_URI": bench.output_uri}
    settings["MODEL_URI"] = f"s3://{bench.bucket}/models/digits/champion.json"
    for name, value in (bench.environment | {f"TWOFOLD_{key}": value for key, value in settings.items()}).items():
        monkeypatch.setenv(name, value)
    return command


@pytest.fixture
def work(bench: Bench, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Work:
    """A worker that handles the messages of the queue until it is empty, without waiting for more."""

    def run() -> None:
        queue = bench.queue(monkeypatch)
        while message := queue.receive(wait_s=0):
            last_try = queue.is_last_try(message)
            outcome = desk.dispatch.handle(message.body, last_try=last_try, cancelled=lambda: False)
            settle(queue, message, outcome)

    return run
