"""A cloud on this machine to play with: bucket, queues, a sample model, a worker; and its data there the next time."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from botocore.exceptions import ClientError

from jobs.cloud.deploy import deploy_worker
from jobs.local.emulator import EmbeddedCloud, create_queues, send_inbox_to
from jobs.progress import Reporter
from jobs.user_error import UserError
from worker.uris import split

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKET: Final = "twofold"
MODEL: Final = "digits"
_CHAMPION: Final = f"models/{MODEL}/champion.json"
_QUEUE: Final = "requests"
#: A worker's open poll is waited for, and the part it is at.
_STOP_S: Final = 35


@dataclass(frozen=True)
class Playground:
    """What runs, and how to reach it."""

    environment: dict[str, str]  #: to export
    images: Path  #: some pictures to begin with
    bucket: str
    worker: "subprocess.Popen[bytes] | None"  #: None: the cloud itself calls the Lambda

    @property
    def inbox_uri(self) -> str:
        """A manifest that is put here is a job."""
        return f"s3://{self.bucket}/inbox/"


@contextmanager
def open_playground(*, keep: Path, port: int, reporter: Reporter, serverless: bool = False) -> Iterator[Playground]:
    """Starts everything, and ends it on the way out; bucket and queues lie in ``keep``.

    ``serverless``: infra/worker.yaml as it is on AWS, whose queue runs the Lambda, in place of a worker.

    Raises UserError when something cannot be started.
    """
    images = keep / "images"
    keep.mkdir(parents=True, exist_ok=True)
    with EmbeddedCloud(port=port, keep=keep / "cloud") as cloud:
        if serverless:
            settings = deploy_embedded(cloud, parameters={"Model": MODEL}, reporter=reporter)
        else:
            settings = _make_queues(cloud, reporter)
        environment = cloud.environment | settings
        bucket = split(settings["TWOFOLD_OUTPUT_URI"])[0]
        if not images.is_dir():
            _write_images(images, reporter)
        if not _exists(cloud.s3(), bucket):
            _train(images, bucket, environment, reporter)
        with _worker(environment, reporter) if not serverless else nullcontext() as worker:
            yield Playground(environment, images, bucket, worker)


def _make_queues(cloud: EmbeddedCloud, reporter: Reporter) -> dict[str, str]:
    s3, sqs = cloud.s3(), cloud.sqs()
    with reporter.step("Starting bucket and queues"):
        s3.create_bucket(Bucket=BUCKET)
        queues = create_queues(sqs, _QUEUE)
        send_inbox_to(s3, sqs, bucket=BUCKET, queue_url=queues.requests_url)
    return {
        "TWOFOLD_QUEUE_URL": queues.requests_url,
        "TWOFOLD_MODEL_URI": f"s3://{BUCKET}/{_CHAMPION}",
        "TWOFOLD_OUTPUT_URI": f"s3://{BUCKET}/predictions/",
    }


def _write_images(images: Path, reporter: Reporter) -> None:
    with reporter.step("Rendering scikit-learn's digits, 3 against 8"):
        from jobs.data import digits  # noqa: PLC0415 - scikit-learn takes a second that a second start need not wait

        draft = images.with_name(f"{images.name}.draft")
        digits.write_digits(draft)
        draft.rename(images)  # whole, or not there


def _train(images: Path, bucket: str, environment: dict[str, str], reporter: Reporter) -> None:
    command = ["train", "run", "--data", str(images), "--output", f"s3://{bucket}/models", "--name", MODEL]
    reporter.say(f"[bold]twofold {' '.join(command)}[/]")
    done = subprocess.run(  # its progress goes straight to the terminal
        [sys.executable, "-m", "jobs.cli", *command, "--image-size", "96"],
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        raise UserError(f"Training ended with exit status {done.returncode}; its reason stands above.")


@contextmanager
def _worker(environment: dict[str, str], reporter: Reporter) -> Iterator["subprocess.Popen[bytes]"]:
    worker = subprocess.Popen(
        [sys.executable, "-m", "worker"],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for us: the worker is told to stop, and the cloud stays until it has
    )
    try:
        yield worker
    finally:
        with reporter.step("Stopping the worker"):
            worker.terminate()
            try:
                worker.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()


def _exists(s3: "S3Client", bucket: str) -> bool:
    try:
        s3.head_object(Bucket=bucket, Key=_CHAMPION)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:  # noqa: PLR2004
            return False
        raise
    return True


def deploy_embedded(cloud: EmbeddedCloud, *, parameters: dict[str, str], reporter: Reporter) -> dict[str, str]:
    """The same stack on the embedded cloud, whose queue then runs the Lambda. Returns a worker's settings."""
    settings = deploy_worker(cloud.client, libraries=None, parameters=parameters, reporter=reporter, poll_s=0.05)
    # ministack keeps the number of a parameter as text, and then cannot compare it: it would never call the function.
    functions = cloud.client("lambda")
    for mapping in functions.list_event_source_mappings()["EventSourceMappings"]:
        limit = int(mapping["ScalingConfig"]["MaximumConcurrency"])
        functions.update_event_source_mapping(UUID=mapping["UUID"], ScalingConfig={"MaximumConcurrency": limit})
    return settings
