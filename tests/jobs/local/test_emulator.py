"""The embedded cloud."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from jobs.local.emulator import EmbeddedCloud, create_queues
from jobs.user_error import UserError
from tests.conftest import REPOSITORY

PARENT = """
import sys, time
from jobs.local.emulator import EmbeddedCloud
with EmbeddedCloud() as cloud:
    print(cloud.endpoint_url, cloud._process.pid, flush=True)
    time.sleep(60)
"""


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_ends_with_its_parent_even_one_that_is_killed() -> None:
    """SIGKILL gives the parent no chance to clean up; nothing keeps running all the same."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as parent:
        assert parent.stdout
        _, pid = parent.stdout.readline().split()
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    deadline = time.monotonic() + 10
    while _alive(int(pid)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_it_listens_on_loopback_alone(ministack: str) -> None:
    """Nobody on the network can reach it."""
    port = int(ministack.rpartition(":")[2])
    addresses = {item[4][0] for item in socket.getaddrinfo(socket.gethostname(), port, socket.AF_INET)}
    for address in addresses - {"127.0.0.1"}:
        with socket.socket() as probe:
            probe.settimeout(1)
            assert probe.connect_ex((str(address), port)) != 0


def test_its_start_failing_is_said_with_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that is taken, a package that is missing: the log's end is in the message."""
    monkeypatch.setenv("PYTHONPATH", "/nonexistent")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(UserError, match="did not start"), EmbeddedCloud():
        pass


def test_queues_keep_dead_letters_longer_than_requests() -> None:
    """A dead letter's age counts from its first sending (GUARANTEES.md G15)."""
    with EmbeddedCloud() as cloud:
        sqs = cloud.sqs()
        queues = create_queues(sqs, "q")

        def kept_s(url: str) -> int:
            answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["MessageRetentionPeriod"])
            return int(answer["Attributes"]["MessageRetentionPeriod"])

        assert kept_s(queues.dead_letter_url) == 14 * 24 * 3600 > kept_s(queues.requests_url)
