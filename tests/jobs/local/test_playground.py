"""``twofold local``: a bucket, queues, a model and a worker keep running, and their data is kept for the next start."""

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
from unittest.mock import patch

import boto3
import psutil  # type: ignore[import-untyped]
import pytest

from jobs.cli import main
from jobs.local.emulator import EmbeddedCloud
from jobs.local.playground import BUCKET, SAMPLE
from tests.conftest import REPOSITORY


def free_port() -> int:
    """Returns a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _clients(environment: dict[str, str]) -> tuple[Any, Any]:
    session, endpoint = boto3.Session("test", "test", region_name="us-east-1"), environment["AWS_ENDPOINT_URL"]
    return session.client("s3", endpoint_url=endpoint), session.client("sqs", endpoint_url=endpoint)


def prepare(keep: Path, models: Path, digit_images: Path, port: int) -> None:
    """Makes the folder that a first start leaves, without the minute that training takes."""
    shutil.copytree(digit_images, keep / "images")
    with EmbeddedCloud(port=port, keep=keep / "cloud") as cloud:
        s3 = cloud.s3()
        s3.create_bucket(Bucket=BUCKET)
        for path in (path for path in (models / SAMPLE).rglob("*") if path.is_file()):
            s3.upload_file(str(path), BUCKET, f"models/{path.relative_to(models).as_posix()}")


@contextmanager
def left_running(command: list[str], **options: Any) -> Iterator[tuple["subprocess.Popen[str]", dict[str, Any]]]:
    """Yields the process and what it printed when it was ready. Ends it afterwards, by force if necessary."""
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


def family_of(process: "subprocess.Popen[Any]") -> list[psutil.Process]:
    """Returns all that a process has started, and what these have started."""
    return list(psutil.Process(process.pid).children(recursive=True))


def assert_ended(family: list[psutil.Process]) -> None:
    """Waits until these processes have ended, each by itself."""
    deadline = time.monotonic() + 60
    while alive := [process for process in family if _is_alive(process)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
def test_a_manifest_in_the_inbox_is_answered_and_the_data_survives_a_restart(
    models: Path, digit_images: Path, tmp_path: Path
) -> None:
    """The printed environment connects to it. It ends on Ctrl-C with exit status 0, and its state is kept."""
    port, keep = free_port(), tmp_path / "local"
    prepare(keep, models, digit_images, port)
    command = [sys.executable, "-m", "jobs.cli", "local", "--keep", str(keep), "--port", str(port), "--json"]
    with left_running(command, cwd=REPOSITORY, env=os.environ | {"TWOFOLD_QUEUE_URL": "nowhere"}) as (running, printed):
        assert printed["environment"]["AWS_ENDPOINT_URL"] == f"http://127.0.0.1:{port}"
        s3, _ = _clients(printed["environment"])
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
        assert printed["environment"]["TWOFOLD_QUEUE_URL"] in sqs.list_queues()["QueueUrls"]


def test_a_taken_port_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With exit status 1 and the option that chooses another."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with socket.create_server(("127.0.0.1", 0)) as taken, patch.dict(os.environ):  # the command removes variables
            port = taken.getsockname()[1]
            assert main(["local", "--keep", str(tmp_path), "--port", str(port)]) == 1
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    message = f"Error: Port {port} is taken, perhaps by another 'twofold local'. Choose another with --port.\n"
    assert capsys.readouterr().err == message
