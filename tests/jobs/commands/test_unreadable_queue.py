"""A queue that a command cannot read: what is in the bucket is shown all the same, and one line says what to check."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from jobs.cli import main
from jobs.wording import program
from tests.conftest import Bench
from tests.desk import Desk
from tests.jobs.commands.conftest import Twofold

Run = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture
def endpoint(ministack: str) -> str:
    """One emulator: no promise here is one of queues."""
    return ministack


@pytest.fixture
def run(
    twofold: Twofold, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """The command: its status, its output, and its lines on standard error. June waits for longer than a job should."""
    (tmp_path / "list.csv").write_text("source_ref\nno URI\n")
    assert twofold("submit", str(tmp_path / "list.csv"), "--job-id", "june")[0] == 0
    monkeypatch.setattr("jobs.batch.status._QUIET", timedelta())

    def run_it(*arguments: str) -> tuple[int, str, list[str]]:
        capsys.readouterr()
        try:
            status = main(["batch", *arguments])
        except SystemExit as ended:
            status = int(ended.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, [line for line in captured.err.splitlines() if not line.isspace()]

    return run_it


def _check(run: Run, desk: Desk, tmp_path: Path, reason: str) -> None:
    """Each command with one job and with all of them. Nothing is known to be lost, so the job waits."""
    once = [f"Refused and lost requests are not known. {reason}"]
    status, output, said = run("status", "june", "--json")
    assert (status, json.loads(output)["state"], said) == (0, "waiting", once)
    status, output, said = run("status", "--json")
    assert (status, [job["state"] for job in json.loads(output)], said) == (0, ["waiting"], once)
    for command in ("cancel", "redrive"):
        status, output, said = run(command, "june")
        assert (status, output, said) == (1, "", [f"Error: {reason}"])
    assert "cancelled" not in desk.names("june")
    job = desk.record("june").job()
    assert job is not None
    desk.handle(job.request(0, shard_uri=desk.folder("june").shard(0)))
    status, output, said = run("status", "june", "--watch", "--json")
    assert (status, json.loads(output)["state"], said) == (1, "complete with failures", [])  # none of it has a score
    status, output, said = run("results", "june", "-o", str(tmp_path / "june.csv"))
    assert (status, "1 row = 0 scored" in output) == (1, True)


def test_a_queue_that_does_not_exist_hides_nothing_but_what_it_holds(
    bench: Bench, desk: Desk, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line names the setting, and does not quote botocore."""
    url = f"{bench.queues.requests_url}-gone"
    monkeypatch.setenv("TWOFOLD_QUEUE_URL", url)
    _check(run, desk, tmp_path, f"There is no queue {url}. Check TWOFOLD_QUEUE_URL.")


def test_a_queue_that_does_not_answer_hides_nothing_but_what_it_holds(
    bench: Bench, desk: Desk, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It neither ends the list nor makes a job stuck."""

    def open_nowhere(session: boto3.Session) -> object:
        config = Config(retries={"total_max_attempts": 1})
        return session.client("sqs", endpoint_url="http://127.0.0.1:9", config=config)  # nobody listens there

    monkeypatch.setattr("jobs.batch.client.open_sqs", open_nowhere)
    local = f"Is '{program()} local' running, if it is a local one?"
    reason = f"The queue {bench.queues.requests_url} does not answer. {local} Check TWOFOLD_QUEUE_URL."
    _check(run, desk, tmp_path, reason)


def test_a_dead_letter_queue_that_does_not_exist_is_named_with_its_own_setting(
    bench: Bench, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The requests that wait are known."""
    url = f"{bench.queues.dead_letter_url}-gone"
    monkeypatch.setenv("TWOFOLD_DEAD_LETTER_URL", url)
    status, output, said = run("status", "june", "--json")
    assert (status, json.loads(output)["state"]) == (0, "waiting")
    (line,) = said
    assert f"Refused and lost requests are not known. There is no queue {url}. " in line
    assert "Check TWOFOLD_DEAD_LETTER_URL" in line
    monkeypatch.setenv("TWOFOLD_QUEUE_URL", f"{bench.queues.requests_url}-gone")
    status, output, said = run("status", "june", "--json")
    assert (status, json.loads(output)["state"]) == (0, "waiting")
    assert [("-gone. Check TWOFOLD_QUEUE_URL." in line, "An error occurred" in line) for line in said[1:]] == [
        (True, False)
    ]
