"""LocalStack in a container, where there is Docker. As a process it runs the tests of storage, queue and worker."""

from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from pytest_localstack.session import LocalstackSession

from tests.conftest import Bench, open_bench
from tests.localstack import SETTINGS, VERSION


@pytest.fixture
def container_bench() -> Iterator[Bench]:
    """A bench on a container that pytest-localstack starts. Without Docker, the test is skipped with the reason."""
    try:
        client = docker.from_env()
    except docker.errors.DockerException as error:
        pytest.skip(f"Docker does not answer: {error}")
    session = LocalstackSession(
        client,
        services=["s3", "sqs"],
        region_name="us-east-1",
        localstack_version=VERSION,
        container_env=SETTINGS,
    )
    try:
        with session:
            yield open_bench(session.endpoint_url("s3"))
    except docker.errors.DockerException as error:  # before the test: there is no way to its image
        pytest.skip(f"Docker cannot run LocalStack: {error}")


@pytest.mark.localstack
def test_a_request_becomes_a_csv_on_localstack_in_a_container(
    container_bench: Bench, models: Path, digit_images: Path
) -> None:
    """Storage, queue and one whole loop: model, image, request, worker, rows and an empty queue."""
    image = container_bench.put("images/a.png", next((digit_images / "three").iterdir()).read_bytes())
    container_bench.send({"schema_version": 1, "job_id": "loop", "images": [image]})
    container_bench.drain(TWOFOLD_MODEL_URI=container_bench.put_bundle(models))
    (row,) = container_bench.rows("loop")
    assert row.source_ref == image
    assert container_bench.dead_letters() == []
