"""The emulator of AWS services."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.local.emulator import EmbeddedCloud, create_queues
from jobs.user_error import UserError
from tests.conftest import REPOSITORY, Bench

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


def test_it_ends_with_its_parent_even_if_that_is_killed() -> None:
    """SIGKILL leaves the parent no chance to clean up, and still nothing keeps running."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as parent:
        assert parent.stdout
        _, pid = parent.stdout.readline().split()
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    deadline = time.monotonic() + 10
    while _alive(int(pid)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_it_listens_only_on_loopback(ministack: str) -> None:
    """It cannot be reached from the network."""
    port = int(ministack.rpartition(":")[2])
    addresses = {item[4][0] for item in socket.getaddrinfo(socket.gethostname(), port, socket.AF_INET)}
    for address in addresses - {"127.0.0.1"}:
        with socket.socket() as probe:
            probe.settimeout(1)
            assert probe.connect_ex((str(address), port)) != 0


def test_a_failed_start_is_reported_with_the_end_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the reason is."""
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho no space left; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(UserError, match=r"did not start\. Its log ends with:\nno space left"), EmbeddedCloud():
        pass


def test_dead_letters_are_kept_longer_than_requests(ministack_bench: Bench) -> None:
    """The age of a dead letter counts from when it was first sent."""

    def retention_s(url: str) -> int:
        answer = ministack_bench.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["MessageRetentionPeriod"])
        return int(answer["Attributes"]["MessageRetentionPeriod"])

    queues = ministack_bench.queues
    assert retention_s(queues.dead_letter_url) == 14 * 24 * 3600 > retention_s(queues.requests_url)


def test_queues_that_an_earlier_version_created_get_todays_attributes(ministack_bench: Bench) -> None:
    """A playground is kept for the next start, and SQS refuses to create an existing queue with others."""
    sqs, name = ministack_bench.sqs, f"{ministack_bench.bucket}-kept"
    create_queues(sqs, name, max_receives=5, visibility_s=30)
    queues = create_queues(sqs, name)
    answer = sqs.get_queue_attributes(QueueUrl=queues.requests_url, AttributeNames=["All"])["Attributes"]
    assert json.loads(answer["RedrivePolicy"])["maxReceiveCount"] == 10
    assert answer["VisibilityTimeout"] == "60"
