"""The stage for both workers: the embedded cloud with images and a trained model in a bucket."""

import csv
import io
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from jobs.config import TrainConfig
from jobs.data import prepare
from jobs.local.demo import BUCKET, CHAMPION_URI, MODEL, MODELS_URI, OUTPUT_URI, upload, uri_of
from jobs.local.emulator import EmbeddedCloud, create_queues
from jobs.local.sample import render_digits, train_sample
from jobs.progress import Reporter
from jobs.user_error import UserError
from worker.batch.job_folder import JobFolder
from worker.contract import ChampionPointer, ClassifyRequest, ManifestRef
from worker.uris import split

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: Images with their P(class 1), in the order of the request.
Answer = list[tuple[str, float]]


@dataclass(frozen=True)
class Stage:
    """A running cloud. ``refs`` are the images in its bucket."""

    cloud: EmbeddedCloud
    s3: "S3Client"
    refs: list[str]

    def keras_model_uri(self) -> str:
        """Returns the URI of the champion's ``model.keras``."""
        champion = ChampionPointer.model_validate_json(self._read(CHAMPION_URI))
        return f"{MODELS_URI}/{MODEL}/{champion.version}/model.keras"

    def make_queue(self, name: str) -> str:
        """Creates a queue with a dead-letter queue, and returns its URL."""
        return create_queues(self.cloud.sqs(), name).requests_url

    def ask(self, queue_url: str, job_id: str, *, images: int) -> None:
        """Puts a request on the queue for that many images, repeating them if there are fewer."""
        lines = (json.dumps({"source-ref": ref}) + "\n" for ref in self._asked(images))
        key = f"manifests/{job_id}.jsonl"
        self.s3.put_object(Bucket=BUCKET, Key=key, Body="".join(lines).encode())
        request = ClassifyRequest(schema_version=1, job_id=job_id, manifest=ManifestRef(uri=f"s3://{BUCKET}/{key}"))
        self.cloud.sqs().send_message(QueueUrl=queue_url, MessageBody=request.model_dump_json(exclude_none=True))

    def events(self, queue_url: str, *, count: int) -> list[dict[str, Any]]:
        """Returns the waiting messages, each as an event of Lambda's poller."""
        sqs = self.cloud.sqs()
        events: list[dict[str, Any]] = []
        while len(events) < count:
            received = sqs.receive_message(
                QueueUrl=queue_url,
                MaxNumberOfMessages=1,
                VisibilityTimeout=900,
                MessageSystemAttributeNames=["ApproximateReceiveCount"],
            )
            for message in received["Messages"]:
                record = {name[0].lower() + name[1:]: value for name, value in message.items()}
                events.append({"Records": [record]})
        return events

    def is_answered(self, job_id: str) -> bool:
        """Returns whether the CSV is in the bucket."""
        bucket, key = split(JobFolder(OUTPUT_URI, job_id).part())
        try:
            self.s3.head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return False
            raise
        return True

    def answer(self, job_id: str, *, images: int) -> Answer:
        """Returns the scores of a request. Raises UserError unless there is one for each image, in order."""
        part = JobFolder(OUTPUT_URI, job_id).part()
        lines = list(csv.DictReader(io.StringIO(self._read(part).decode(), newline="")))
        if [line["source_ref"] for line in lines] != self._asked(images):
            raise UserError(f"{part} does not match the {images:,} images of the request.")
        failed = [line["source_ref"] for line in lines if not line["score"]]
        if failed:
            raise UserError(
                f"{part}: {len(failed):,} images have no score, such as {failed[0]}. Remove them from the data."
            )
        return [(line["source_ref"], float(line["score"])) for line in lines]

    def _asked(self, images: int) -> list[str]:
        return list(islice(cycle(self.refs), images))

    def _read(self, uri: str) -> bytes:
        bucket, key = split(uri)
        return self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()


@contextmanager
def open_stage(data: Path | None, reporter: Reporter) -> Iterator[Stage]:
    """Starts the cloud, uploads the test images and trains. Raises UserError if a step fails."""
    with tempfile.TemporaryDirectory(prefix="twofold-bench-") as folder, EmbeddedCloud() as cloud:
        if data is None:
            reporter.say("Measuring with small images. To use photographs, set --data or TWOFOLD_DATA.")
            data = Path(folder) / "digits"
            render_digits(data, reporter)
        images = prepare.open_dataset(
            TrainConfig(data=str(data), output="", cache=Path(folder) / "cache"), reporter
        ).test
        s3 = cloud.s3()
        s3.create_bucket(Bucket=BUCKET)
        upload(s3, images, reporter)
        options = ("--cache", f"{folder}/cache")
        train_sample(data, MODELS_URI, *options, name=MODEL, environment=cloud.environment, reporter=reporter)
        yield Stage(cloud, s3, [uri_of(image) for image in images])
