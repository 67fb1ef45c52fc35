"""The whole loop on one machine: train, drop a manifest on the queue, let a worker answer, read the CSV."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from jobs.config import TrainConfig
from jobs.data import digits, prepare
from jobs.data.dataset import Dataset, LabelledImage
from jobs.local.emulator import EmbeddedCloud, Queues, create_queues
from jobs.progress import Reporter
from jobs.user_error import UserError
from worker import predictions
from worker.batch.job_folder import from_metadata, part_uri
from worker.contract import ClassifyRequest, ManifestRef, PartReport, PredictionRow
from worker.uris import split

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKET: Final = "twofold-demo"
MODEL: Final = "demo"
JOB: Final = "demo"
_OUTPUT: Final = f"s3://{BUCKET}/predictions/"
_CHAMPION: Final = f"s3://{BUCKET}/models/{MODEL}/champion.json"


@dataclass(frozen=True)
class Outcome:
    """What the loop came to."""

    rows: list[PredictionRow]
    report: PartReport
    accuracy: float  #: of the CSV's labels, a failed row counting as wrong
    evaluation: dict[str, Any]  #: of the training job
    worker_s: float  #: the worker's process, start to end
    files: dict[str, Path]  #: where the CSV, the model and the manifest lie


def run(*, data: Path | None, keep: Path, reporter: Reporter) -> Outcome:
    """Runs the loop, and leaves images, model bundle, manifest and CSV in the folder ``keep``.

    Raises UserError when a step fails or the CSV is not what was asked for.
    """
    if data is not None and keep.resolve() == data.resolve():
        raise UserError(f"--keep {keep} is the folder of the pictures: choose another for what the demo makes.")
    if data is None:
        data = keep / "images"
        with reporter.step("Rendering scikit-learn's digits, 3 against 8"):
            digits.write_digits(data)
    splits = prepare.open_dataset(TrainConfig(data=str(data), output="", cache=keep / "cache"), reporter)
    asked = splits.test
    with EmbeddedCloud() as cloud:
        s3 = cloud.s3()
        with reporter.step("Making a bucket and two queues"):
            s3.create_bucket(Bucket=BUCKET)
            queues = create_queues(cloud.sqs(), "requests")
        upload(s3, asked, reporter)
        train(cloud, data, reporter, cache=keep / "cache")
        with reporter.step("Dropping a manifest on the queue"):
            manifest = _write_manifest(s3, asked)
            request = ClassifyRequest(schema_version=1, job_id=JOB, manifest=ManifestRef(uri=manifest))
            cloud.sqs().send_message(QueueUrl=queues.requests_url, MessageBody=request.model_dump_json())
        started = time.monotonic()
        with reporter.step(f"A worker classifies {len(asked):,} images"):
            _work(cloud, queues)
        worker_s = time.monotonic() - started
        with reporter.step("Reading the CSV back"):
            part = part_uri(_OUTPUT, JOB)
            metadata = _head(s3, part)
            rows = predictions.from_csv(_get(s3, part))
            _download(s3, keep)
    answer = from_metadata(metadata, part)
    files = {
        "csv": keep / split(part)[1],
        "model": keep / "models" / MODEL / answer.model_version,
        "manifest": keep / split(manifest)[1],
    }
    evaluation = json.loads((files["model"] / "evaluation.json").read_text())
    return Outcome(rows, answer, _accuracy(rows, splits), evaluation, worker_s, files)


def upload(s3: "S3Client", images: list[LabelledImage], reporter: Reporter) -> None:
    """Puts each image under its ``uri_of``."""

    def put(image: LabelledImage) -> None:
        bucket, key = split(uri_of(image))
        s3.put_object(Bucket=bucket, Key=key, Body=image.path.read_bytes())

    with reporter.step("Uploading the test images", total=len(images)) as advance, ThreadPoolExecutor(4) as pool:
        for _ in pool.map(put, images):
            advance(1)


def train(cloud: EmbeddedCloud, data: Path, reporter: Reporter, *, cache: Path) -> None:
    """Trains the model ``MODEL`` as a process of its own, its bundle going to the bucket."""
    output = f"s3://{BUCKET}/models"
    command = ["train", "run", "--data", str(data), "--output", output, "--name", MODEL, "--cache", str(cache)]
    reporter.say(f"[bold]twofold {' '.join(command)}[/]")
    done = subprocess.run(  # its progress goes straight to the terminal
        [sys.executable, "-m", "jobs.cli", *command],
        env=os.environ | cloud.environment,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        raise UserError(f"Training ended with exit status {done.returncode}; its reason stands above.")


def _write_manifest(s3: "S3Client", images: list[LabelledImage]) -> str:
    lines = "".join(json.dumps({"source-ref": uri_of(image)}) + "\n" for image in images)
    key = f"manifests/{JOB}.jsonl"
    s3.put_object(Bucket=BUCKET, Key=key, Body=lines.encode())
    return f"s3://{BUCKET}/{key}"


def _work(cloud: EmbeddedCloud, queues: Queues) -> None:
    settings = {
        "TWOFOLD_QUEUE_URL": queues.requests_url,
        "TWOFOLD_MODEL_URI": _CHAMPION,
        "TWOFOLD_OUTPUT_URI": _OUTPUT,
    }
    done = subprocess.run(
        [sys.executable, "-m", "worker", "--drain"],
        env=os.environ | cloud.environment | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UserError(f"The worker ended with exit status {done.returncode}:\n{done.stderr[-2000:]}")
    waiting = cloud.sqs().receive_message(QueueUrl=queues.dead_letter_url, MessageAttributeNames=["All"])
    for message in waiting.get("Messages", ()):
        raise UserError(f"The request was refused: {message['MessageAttributes']['error_message'].get('StringValue')}")


def _accuracy(rows: list[PredictionRow], splits: Dataset) -> float:
    """Checks that the CSV answers exactly what was asked, and compares its labels with the folders'."""
    asked = splits.test
    if [row.source_ref for row in rows] != [uri_of(image) for image in asked]:
        raise UserError(f"{len(asked)} images were asked for, and the CSV's {len(rows)} rows are not those.")
    return float(np.mean([row.label == splits.labels[image.label] for row, image in zip(rows, asked, strict=True)]))


def uri_of(image: LabelledImage) -> str:
    """Where an image of the dataset lies in the bucket."""
    return f"s3://{BUCKET}/images/{image.ref}"


def _head(s3: "S3Client", uri: str) -> dict[str, str]:
    bucket, key = split(uri)
    return s3.head_object(Bucket=bucket, Key=key)["Metadata"]


def _get(s3: "S3Client", uri: str) -> bytes:
    bucket, key = split(uri)
    return s3.get_object(Bucket=bucket, Key=key)["Body"].read()


def _download(s3: "S3Client", keep: Path) -> None:
    """Models, manifest and predictions, under the same names."""
    for prefix in ("models/", "manifests/", "predictions/"):
        for item in s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", ()):
            path = keep / item["Key"]
            path.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(BUCKET, item["Key"], str(path))
