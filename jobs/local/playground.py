"""The playground of ``twofold local``: a bucket, queues, a sample model and a worker, all kept for the next start."""

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
from jobs.local.sample import render_digits, train_sample
from jobs.progress import Reporter
from worker.uris import split

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKET: Final = "twofold"
MODEL: Final = "digits"
_CHAMPION: Final = f"models/{MODEL}/champion.json"
_QUEUE: Final = "requests"
#: Time for the worker to end its open poll and the current part.
_STOP_S: Final = 35


@dataclass(frozen=True)
class Playground:
    """What is running, and how to connect to it."""

    environment: dict[str, str]  #: to export
    images: Path  #: some images to start with
    bucket: str
    worker: "subprocess.Popen[bytes] | None"  #: None: the emulator itself calls the Lambda

    @property
    def inbox_uri(self) -> str:
        """The prefix where every new manifest starts a job."""
        return f"s3://{self.bucket}/inbox/"


@contextmanager
def open_playground(*, keep: Path, port: int, reporter: Reporter, serverless: bool = False) -> Iterator[Playground]:
    """Starts everything, and stops it on exit. The bucket and the queues are stored in ``keep``.

    With ``serverless``, infra/worker.yaml is deployed as on AWS, and the queue runs the Lambda instead of a worker.

    Raises UserError if something cannot be started.
    """
    images = keep / "images"
    keep.mkdir(parents=True, exist_ok=True)
    with EmbeddedCloud(port=port, keep=keep / "cloud") as cloud:
        if serverless:
            settings = deploy_embedded(cloud, parameters={"Model": MODEL}, reporter=reporter)
        else:
            settings = _create_resources(cloud, reporter)
        environment = cloud.environment | settings
        bucket = split(settings["TWOFOLD_OUTPUT_URI"])[0]
        if not images.is_dir():
            draft = images.with_name(f"{images.name}.draft")
            render_digits(draft, reporter)
            draft.rename(images)  # so that the folder is complete if it exists
        if not _has_champion(cloud.s3(), bucket):
            output = f"s3://{bucket}/models"
            train_sample(images, output, "--image-size", "96", name=MODEL, environment=environment, reporter=reporter)
        with _worker(environment, reporter) if not serverless else nullcontext() as worker:
            yield Playground(environment, images, bucket, worker)


def deploy_embedded(cloud: EmbeddedCloud, *, parameters: dict[str, str], reporter: Reporter) -> dict[str, str]:
    """Deploys the worker's stack to the emulator, whose queue then runs the Lambda. Returns a worker's settings."""
    settings = deploy_worker(cloud.client, libraries=None, parameters=parameters, reporter=reporter, poll_s=0.05)
    # ministack stores the number in a parameter as text and cannot compare it, so it would never call the function.
    functions = cloud.client("lambda")
    for mapping in functions.list_event_source_mappings()["EventSourceMappings"]:
        limit = int(mapping["ScalingConfig"]["MaximumConcurrency"])
        functions.update_event_source_mapping(UUID=mapping["UUID"], ScalingConfig={"MaximumConcurrency": limit})
    return settings


def _create_resources(cloud: EmbeddedCloud, reporter: Reporter) -> dict[str, str]:
    """Creates the bucket and the queues, and returns a worker's settings."""
    s3, sqs = cloud.s3(), cloud.sqs()
    with reporter.step("Creating a bucket and two queues"):
        s3.create_bucket(Bucket=BUCKET)
        queues = create_queues(sqs, _QUEUE)
        send_inbox_to(s3, sqs, bucket=BUCKET, queue_url=queues.requests_url)
    return {
        "TWOFOLD_QUEUE_URL": queues.requests_url,
        "TWOFOLD_MODEL_URI": f"s3://{BUCKET}/{_CHAMPION}",
        "TWOFOLD_MODEL_PREFIXES": f"s3://{BUCKET}/models/",
        "TWOFOLD_OUTPUT_URI": f"s3://{BUCKET}/predictions/",
    }


def _has_champion(s3: "S3Client", bucket: str) -> bool:
    try:
        s3.head_object(Bucket=bucket, Key=_CHAMPION)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:  # noqa: PLR2004
            return False
        raise
    return True


@contextmanager
def _worker(environment: dict[str, str], reporter: Reporter) -> Iterator["subprocess.Popen[bytes]"]:
    worker = subprocess.Popen(
        [sys.executable, "-m", "worker"],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C must not reach the worker: it is stopped below, while the emulator still runs
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
