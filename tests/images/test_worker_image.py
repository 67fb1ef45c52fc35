"""The worker's image: built by pip on Debian with Python 3.13, and run as ECS and Lambda run it."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Bench
from tests.images.engine import USER, Container, Image
from tests.infra.templates import load
from tests.worker.test_runtime import Call, Function, Reply, serve

pytestmark = pytest.mark.image

#: Seconds after the start of the interpreter: it has no handler yet, it imports, it opens the queue, it polls.
INSTANTS_S = (0.0, 0.0, 0.0, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.0, 1.5, 2.5, 4.0)


@pytest.fixture
def settings(ministack_bench: Bench, models: Path) -> dict[str, str]:
    """The environment of a worker in a container."""
    return ministack_bench.environment | {
        "TWOFOLD_QUEUE_URL": ministack_bench.queues.requests_url,
        "TWOFOLD_MODEL_URI": ministack_bench.put_bundle(models),
        "TWOFOLD_OUTPUT_URI": ministack_bench.output_uri,
    }


@pytest.fixture
def asked(ministack_bench: Bench, digit_images: Path) -> dict[str, Any]:
    """A request for one image."""
    image = ministack_bench.put("in/a.png", next(digit_images.rglob("*.png")).read_bytes())
    return {"schema_version": 1, "job_id": "job", "images": [image]}


@pytest.fixture
def worker(worker_image: Image, settings: dict[str, str]) -> Iterator[Container]:
    """A worker that is ready."""
    container = worker_image.start(environment=settings)
    container.wait_for("ready")
    yield container
    container.kill()
    container.end()


def test_the_image_adds_at_most_160_mb_to_its_base(
    worker_image: Image, base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is pulled at each start of a task, and before the first call of a function."""
    own = Image.open(base)
    added = worker_image.size_bytes - own.size_bytes
    subprocess.run(["buildah", "rm", base.replace("/", "-").replace(":", "-")], check=True, capture_output=True)
    with capsys.disabled():
        print(f"\nworker image: {worker_image.size_bytes / 1e6:.0f} MB, of which its base {own.size_bytes / 1e6:.0f}")
    assert added <= 160_000_000


def test_the_image_answers_a_queue_with_nothing_writable_but_tmp(
    worker_image: Image, ministack_bench: Bench, settings: dict[str, str], asked: dict[str, Any]
) -> None:
    """As user 10001, from the queue to the CSV."""
    ministack_bench.send(asked)
    status, log = worker_image.start("worker", "--drain", environment=settings).end()
    assert status == 0, log
    assert [row.label in {"three", "eight"} for row in ministack_bench.rows("job")] == [True]
    places = "find / -writable -not -type l -not -path '/proc/*' -not -path '/dev/*' 2>/dev/null; id -u"
    _, found = worker_image.start("-c", places, entry=["sh"]).end()
    assert found.split() == ["/tmp", str(USER)]


def test_the_health_check_passes_while_the_worker_makes_progress_and_fails_when_it_hangs(
    worker: Container, worker_image: Image
) -> None:
    """The command of the Dockerfile, run in the container as its user."""
    kind, *check = worker_image.config["Healthcheck"]["Test"]
    assert kind == "CMD"
    deadline = time.monotonic() + 60
    while worker.run(*check) != 0:
        assert time.monotonic() < deadline, "never healthy"
    os.kill(worker.pid, signal.SIGSTOP)
    assert worker.run("touch", "--date=10 minutes ago", "/tmp/heartbeat") == 0
    assert worker.run(*check) == 1


@pytest.mark.parametrize("after_s", INSTANTS_S)
def test_a_stop_signal_at_any_instant_ends_process_1(
    worker_image: Image, settings: dict[str, str], after_s: float
) -> None:
    """From the first instruction of the interpreter on: the kernel drops a signal that process 1 has no handler for."""
    container = worker_image.start(environment=settings)
    container.wait_for_python()
    time.sleep(after_s)
    os.kill(container.pid, signal.SIGTERM)
    status, log = container.end(60)
    assert (status, "Traceback" in log) == (0, False), log


def test_a_stop_signal_to_a_worker_with_a_message_leaves_no_request_unanswered(
    worker: Container, worker_image: Image, ministack_bench: Bench, settings: dict[str, str], asked: dict[str, Any]
) -> None:
    """What it has not answered comes back to the queue, and another worker answers it."""
    ministack_bench.send(asked)
    os.kill(worker.pid, signal.SIGTERM)
    status, log = worker.end(60)
    assert status == 0, log
    assert worker_image.start("worker", "--drain", environment=settings).end()[0] == 0
    assert [row.error_code for row in ministack_bench.rows("job")] == [None]


def test_the_image_answers_calls_of_lambda(
    worker_image: Image, ministack_bench: Bench, settings: dict[str, str], asked: dict[str, Any], tmp_path: Path
) -> None:
    """With the entry point of the template, Lambda's own runtime client, and a runtime API in this test."""
    own = load("worker.yaml")["Resources"]["Function"]["Properties"]["ImageConfig"]["Fn::If"][1]
    with serve() as api:
        lambda_own = {"AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{api.port}", "AWS_LAMBDA_FUNCTION_NAME": "twofold"}
        lambda_own |= {"AWS_LAMBDA_FUNCTION_VERSION": "1", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769"}
        container = worker_image.start(*own["Command"], entry=own["EntryPoint"], environment=settings | lambda_own)
        try:
            records = Function(api, ministack_bench, tmp_path).records(asked)
            assert api.ask(Call({"Records": records})) == Reply("response", {"batchItemFailures": []})
        finally:
            container.kill()
            print(container.end()[1])
    assert [row.label in {"three", "eight"} for row in ministack_bench.rows("job")] == [True]
