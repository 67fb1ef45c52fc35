"""The notice of EC2 that a Spot machine is taken back."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from jobs.training import spot_notice
from jobs.training.interruption import EXIT_STATUS
from jobs.training.spot_notice import ENDPOINT, wait_before_leaving, watching
from tests.conftest import REPOSITORY
from tests.metadata import Metadata, metadata_service

JOB = """
import os, time
from jobs.training.interruption import Interruption
from jobs.training.spot_notice import watching
interruption = Interruption()
with interruption.listening(), watching(os.environ, say=print, every_s=0.05):
    with interruption.deferred():
        print("working", flush=True)
        input()
        print("saved", flush=True)
    time.sleep(60)
    print("the job continues")
"""


@pytest.fixture
def service() -> Iterator[Metadata]:
    with metadata_service() as found:
        yield found


def _wait_for(service: Metadata, *, status: int, times: int = 1) -> None:
    deadline = time.monotonic() + 30
    while sum(found == status for _, found in service.asked) < times:
        assert time.monotonic() < deadline, service.asked
        time.sleep(0.01)


def _start(service: Metadata, code: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {ENDPOINT: service.url, "PYTHONUNBUFFERED": "1"},
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_job_that_hears_the_notice_saves_and_leaves_with_75(service: Metadata) -> None:
    """The step that must be saved runs to its end first, as after SIGTERM, and a line says why."""
    job = _start(service, JOB)
    assert job.stdout
    assert job.stdout.readline() == "working\n"
    _wait_for(service, status=404)
    service.announce()
    heard = job.stdout.readline()
    printed, errors = job.communicate("go on\n", timeout=60)
    assert heard.startswith("AWS takes this Spot machine back at ")
    assert (printed, job.returncode) == ("saved\n", EXIT_STATUS), errors
    assert errors == "Interrupted. Finished work is saved: run the same command again to resume.\n"


def test_every_request_carries_a_token_and_an_old_one_is_renewed(service: Metadata) -> None:
    """Version 1 of the service, which needs none, is switched off on the machines of the stack."""
    with watching({ENDPOINT: service.url}, say=print, every_s=0.01):
        _wait_for(service, status=404)
        service.token = "second"
        _wait_for(service, status=401)
        before = len(service.asked)
        _wait_for(service, status=404, times=[status for _, status in service.asked].count(404) + 2)
    assert service.asked[0] == ("/latest/api/token", 200)
    assert ("/latest/api/token", 200) in service.asked[before - 1 :]
    assert sum(status == 401 for _, status in service.asked) == 1


def _watchers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "spot"}


def test_a_service_that_does_not_answer_disturbs_nothing() -> None:
    """The job goes on, and is not kept from its end. Here each connection is closed without an answer."""
    before = _watchers()
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        server.settimeout(30)
        with watching({ENDPOINT: url}, say=print, every_s=0.01):
            for _ in range(3):
                server.accept()[0].close()
            assert _watchers() - before


def test_a_notice_becomes_a_signal_even_if_it_cannot_be_printed(service: Metadata) -> None:
    """Standard output may be closed."""
    job = _start(service, JOB.replace("say=print", "say=lambda _: 1 / 0"))
    assert job.stdout
    assert job.stdout.readline() == "working\n"
    _wait_for(service, status=404)
    service.announce()
    printed, errors = job.communicate("go on\n", timeout=60)
    assert (printed, job.returncode) == ("saved\n", EXIT_STATUS), errors


@pytest.mark.parametrize(("before", "at_start"), [(503, True), (404, False)], ids=["no answer", "no notice"])
def test_only_an_answer_shows_that_there_was_no_notice_at_the_start(
    service: Metadata, monkeypatch: pytest.MonkeyPatch, before: int, *, at_start: bool
) -> None:
    """The service may be slow when the machine is about to end: such a job uses up an attempt within seconds."""
    found, left = [], threading.Event()

    def noted(_ends: datetime, *, now: datetime, at_start: bool) -> float:
        found.append((now.tzinfo, at_start))
        return 0.0

    monkeypatch.setattr(spot_notice, "wait_before_leaving", noted)
    monkeypatch.setattr(os, "kill", lambda *_: left.set())
    service.is_away = before == 503
    with watching({ENDPOINT: service.url}, say=print, every_s=0.01):
        _wait_for(service, status=before, times=2)
        service.announce()
        service.is_away = False
        assert left.wait(30)
    assert found == [(UTC, at_start)]


@pytest.mark.parametrize(
    "environment", [{}, {ENDPOINT: "http://127.0.0.1:9", "AWS_EC2_METADATA_DISABLED": "true"}], ids=["elsewhere", "off"]
)
def test_nothing_is_asked_away_from_batch_or_if_it_is_forbidden(environment: dict[str, str]) -> None:
    """A laptop sends nothing to an address that may belong to anyone."""
    before = _watchers()
    with watching(environment, say=print):
        assert not _watchers() - before


def test_a_job_that_starts_on_a_machine_that_ends_does_not_use_up_its_attempts() -> None:
    """Batch may start the next attempt there: it works until half a minute before the end, and leaves then."""
    now = datetime.now(UTC)
    assert wait_before_leaving(now + timedelta(seconds=100), now=now, at_start=True) == 70
    assert wait_before_leaving(now + timedelta(seconds=10), now=now, at_start=True) == 0
    assert wait_before_leaving(now + timedelta(seconds=100), now=now, at_start=False) == 0
