"""``twofold local``: bucket, queues, model and worker left running, and everything there the next time."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest

from jobs.local.emulator import EmbeddedCloud
from jobs.local.playground import BUCKET, MODEL
from tests.conftest import REPOSITORY


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _clients(environment: dict[str, str]) -> tuple[Any, Any]:
    session, endpoint = boto3.Session("test", "test", region_name="us-east-1"), environment["AWS_ENDPOINT_URL"]
    return session.client("s3", endpoint_url=endpoint), session.client("sqs", endpoint_url=endpoint)


def prepare(keep: Path, models: Path, digit_images: Path, port: int) -> None:
    """As a first start leaves it, without the minute that training takes."""
    shutil.copytree(digit_images, keep / "images")
    with EmbeddedCloud(port=port, keep=keep / "cloud") as cloud:
        s3 = cloud.s3()
        s3.create_bucket(Bucket=BUCKET)
        for path in (path for path in (models / MODEL).rglob("*") if path.is_file()):
            s3.upload_file(str(path), BUCKET, f"models/{path.relative_to(models).as_posix()}")


@contextmanager
def left_running(command: list[str], **options: Any) -> Iterator[tuple["subprocess.Popen[str]", dict[str, Any]]]:
    """The process, and what it said when it was ready; killed in the end if it has not ended."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.terminate()
            try:
                process.wait(90)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.mark.slow
def test_it_runs_takes_a_list_in_its_inbox_and_finds_its_data_again(
    models: Path, digit_images: Path, tmp_path: Path
) -> None:
    """What it prints reaches it; it ends with Ctrl-C and exit status 0; bucket and queues outlive it."""
    port, keep = free_port(), tmp_path / "local"
    prepare(keep, models, digit_images, port)
    command = [sys.executable, "-m", "jobs.cli", "local", "--keep", str(keep), "--port", str(port), "--json"]
    with left_running(command, cwd=REPOSITORY, env=os.environ | {"TWOFOLD_QUEUE_URL": "nowhere"}) as (running, said):
        assert said["environment"]["AWS_ENDPOINT_URL"] == f"http://127.0.0.1:{port}"
        s3, _ = _clients(said["environment"])
        s3.put_object(Bucket=BUCKET, Key="inbox/june.csv", Body=b"source_ref\nno URI\n")
        deadline = time.monotonic() + 60
        while not (found := s3.list_objects_v2(Bucket=BUCKET, Prefix="predictions/june").get("Contents", [])):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        assert running.wait(90) == 0
    with EmbeddedCloud(port=port, keep=keep / "cloud") as cloud:
        s3, sqs = _clients(cloud.environment)
        listed = s3.list_objects_v2(Bucket=BUCKET, Prefix="predictions/june")["Contents"]
        assert {item["Key"] for item in found} <= {item["Key"] for item in listed}
        assert said["environment"]["TWOFOLD_QUEUE_URL"] in sqs.list_queues()["QueueUrls"]


def test_a_port_that_is_taken_is_said_to_be(tmp_path: Path) -> None:
    """In words, with exit status 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "jobs.cli", "local", "--keep", str(tmp_path), "--port", str(port)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert f"Port {port} is taken" in done.stderr
    assert "Traceback" not in done.stderr
