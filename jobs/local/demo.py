"""The demo: train a model, put a manifest on a queue, let a worker classify the images, and read the CSV."""

import json
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from jobs.config import TrainConfig
from jobs.data import prepare
from jobs.data.dataset import Dataset, LabelledImage
from jobs.local import tether
from jobs.local.emulator import EmbeddedCloud, Queues, apart, create_queues
from jobs.local.sample import render_digits, train_sample
from jobs.progress import Reporter
from jobs.user_error import UserError
from worker import predictions
from worker.batch.job_folder import JobFolder, from_metadata
from worker.contract import ClassifyRequest, ManifestRef, PartReport, PredictionRow
from worker.uris import split

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKET: Final = "twofold-demo"
MODEL: Final = "demo"
MODELS_URI: Final = f"s3://{BUCKET}/models"
CHAMPION_URI: Final = f"{MODELS_URI}/{MODEL}/champion.json"
OUTPUT_URI: Final = f"s3://{BUCKET}/predictions/"
JOB: Final = "demo"


@dataclass(frozen=True)
class DemoResult:
    """The CSV that the worker wrote, and how good and how fast it was."""

    rows: list[PredictionRow]
    report: PartReport
    accuracy: float  #: of the CSV's labels; a failed row counts as wrong
    evaluation: dict[str, Any]  #: of the training job
    worker_s: float  #: duration of the worker's process
    files: dict[str, Path]  #: the local copies of the CSV, the model and the manifest


def run(*, data: Sequence[Path] | None, keep: Path, weights: str, reporter: Reporter) -> DemoResult:
    """Runs the demo, and leaves images, model bundle, manifest and CSV in the folder ``keep``.

    ``data`` are folders, archives or labelled lists on this machine.
    ``weights`` are those of the backbone, as in ``twofold train run``.

    Raises UserError if a step fails or the CSV does not match the manifest.
    """
    if any(keep.resolve() == source.resolve() for source in data or ()):
        raise UserError(f"--keep {keep} is the folder of the images. Choose another folder for the demo's files.")
    if not data:
        data = [keep / "images"]
        render_digits(data[0], reporter)
    cache, sources = keep / "cache", tuple(str(source.resolve()) for source in data)
    dataset = prepare.open_dataset(TrainConfig(data=sources, output="", cache=cache), reporter)
    with apart(), EmbeddedCloud() as cloud:
        s3 = cloud.s3()
        with reporter.step("Creating a bucket and two queues"):
            s3.create_bucket(Bucket=BUCKET)
            queues = create_queues(cloud.sqs(), "requests")
        upload(s3, dataset.test, reporter)
        _train(sources, cache, weights, environment=os.environ | cloud.environment, reporter=reporter)
        with reporter.step("Putting a manifest on the queue"):
            manifest = _write_manifest(s3, dataset.test)
            request = ClassifyRequest(schema_version=1, job_id=JOB, manifest=ManifestRef(uri=manifest))
            cloud.sqs().send_message(QueueUrl=queues.requests_url, MessageBody=request.model_dump_json())
        started = time.monotonic()
        with reporter.step(f"Classifying {len(dataset.test):,} images in a worker"):
            _run_worker(cloud, queues)
        worker_s = time.monotonic() - started
        with reporter.step("Reading the CSV"):
            part = JobFolder(OUTPUT_URI, JOB).part()
            metadata, body = _get(s3, part)
            _download(s3, keep)
    rows, report = predictions.from_csv(body), from_metadata(metadata, part)
    model = keep / "models" / MODEL / report.model_version
    files = {"csv": keep / split(part)[1], "model": model, "report": model / "report.html"}
    files["manifest"] = keep / split(manifest)[1]
    evaluation = json.loads((model / "evaluation.json").read_text())
    return DemoResult(rows, report, _accuracy(rows, dataset), evaluation, worker_s, files)


def _train(
    sources: tuple[str, ...], cache: Path, weights: str, *, environment: dict[str, str], reporter: Reporter
) -> None:
    """Trains in an empty folder: the settings of the user's own, in ``twofold.toml``, are not for the demo."""
    named = str(Path(weights).resolve()) if Path(weights).is_file() else weights
    options = ("--cache", str(cache.resolve()), "--weights", named)
    with tempfile.TemporaryDirectory() as empty:
        train_sample(
            sources,
            MODELS_URI,
            *options,
            name=MODEL,
            environment=environment,
            reporter=reporter,
            folder=Path(empty),
        )


def upload(s3: "S3Client", images: list[LabelledImage], reporter: Reporter) -> None:
    """Uploads each image to its ``uri_of``."""

    def put(image: LabelledImage) -> None:
        bucket, key = split(uri_of(image))
        s3.put_object(Bucket=bucket, Key=key, Body=image.path.read_bytes())

    with reporter.step("Uploading the test images", total=len(images)) as advance, ThreadPoolExecutor(4) as pool:
        for _ in pool.map(put, images):
            advance(1)


def uri_of(image: LabelledImage) -> str:
    """Returns the URI of an image in the bucket. A name in a labelled list may lead out of any folder."""
    name = "/".join(part for part in image.ref.split("/") if part not in {"", ".", ".."})
    return f"s3://{BUCKET}/images/{name if name == image.ref else f'{image.sha256[:16]}/{name}'}"


def _write_manifest(s3: "S3Client", images: list[LabelledImage]) -> str:
    lines = "".join(json.dumps({"source-ref": uri_of(image)}) + "\n" for image in images)
    key = f"manifests/{JOB}.jsonl"
    s3.put_object(Bucket=BUCKET, Key=key, Body=lines.encode())
    return f"s3://{BUCKET}/{key}"


def _run_worker(cloud: EmbeddedCloud, queues: Queues) -> None:
    settings = {
        "TWOFOLD_QUEUE_URL": queues.requests_url,
        "TWOFOLD_MODEL_URI": CHAMPION_URI,
        "TWOFOLD_MODEL_PREFIXES": MODELS_URI,
        "TWOFOLD_OUTPUT_URI": OUTPUT_URI,
    }
    with tempfile.TemporaryFile() as log:
        worker = tether.start("worker", "--drain", environment=os.environ | cloud.environment | settings, stderr=log)
        try:
            status = worker.wait()
        finally:
            tether.end(worker, within_s=0)
        if status:
            log.seek(0)
            printed = log.read().decode(errors="replace")[-2000:]
            raise UserError(f"The worker ended with exit status {status}:\n{printed}")
    dead = cloud.sqs().receive_message(QueueUrl=queues.dead_letter_url, MessageAttributeNames=["All"])
    for message in dead.get("Messages", ()):
        reason = message["MessageAttributes"]["error_message"].get("StringValue")
        raise UserError(f"The worker rejected the request: {reason}")


def _get(s3: "S3Client", uri: str) -> tuple[dict[str, str], bytes]:
    """Returns the metadata and the content of an object."""
    bucket, key = split(uri)
    found = s3.get_object(Bucket=bucket, Key=key)
    return found["Metadata"], found["Body"].read()


def _download(s3: "S3Client", keep: Path) -> None:
    """Copies models, manifest and predictions to ``keep`` under the same names."""
    for prefix in ("models/", "manifests/", "predictions/"):
        for item in s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", ()):
            path = keep / item["Key"]
            path.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(BUCKET, item["Key"], str(path))


def _accuracy(rows: list[PredictionRow], dataset: Dataset) -> float:
    """Checks that the CSV has the rows that the manifest asked for, and compares its labels with the folders'."""
    asked = dataset.test
    if [row.source_ref for row in rows] != [uri_of(image) for image in asked]:
        raise UserError(f"The {len(rows)} rows of the CSV do not match the {len(asked)} images of the manifest.")
    labels = [dataset.labels[image.label] for image in asked]
    return float(np.mean([row.label == label for row, label in zip(rows, labels, strict=True)]))
