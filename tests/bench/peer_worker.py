"""The peer: a queue worker with boto3, Pillow and Keras, as you would write it from their tutorials.

It reads the same messages and the same variables: ``TWOFOLD_QUEUE_URL``, ``TWOFOLD_MODEL_URI`` (of ``model.keras``) and
``TWOFOLD_OUTPUT_URI``. It is a fair opponent: the model and the clients are created once, and images are scored in
batches. With ``--drain`` it stops when the queue is empty.
"""

import csv
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import boto3
import numpy as np
import tensorflow as tf
from PIL import Image

IMAGE_SIZE: Final = (160, 160)
BATCH_SIZE: Final = 32
THRESHOLD: Final = 0.5

s3 = boto3.client("s3")
sqs = boto3.client("sqs")


def main() -> None:
    """Receives, answers and deletes messages."""
    queue_url = os.environ["TWOFOLD_QUEUE_URL"]
    output_uri = os.environ["TWOFOLD_OUTPUT_URI"]
    model = load_model(os.environ["TWOFOLD_MODEL_URI"])
    while True:
        response = sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=1, WaitTimeSeconds=20)
        messages = response.get("Messages", [])
        if not messages and "--drain" in sys.argv:
            return
        for message in messages:
            answer(model, json.loads(message["Body"]), output_uri)
            sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])


def load_model(uri: str) -> Any:
    """Downloads a Keras model and loads it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        s3.download_file(*split(uri), str(path))
        return tf.keras.models.load_model(path)


def answer(model: Any, request: dict[str, Any], output_uri: str) -> None:
    """Scores the images of a request's manifest and writes the CSV."""
    manifest = download(request["manifest"]["uri"]).decode()
    refs = [json.loads(line)["source-ref"] for line in manifest.splitlines()]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["source_ref", "label", "score"])
    for ref, score in zip(refs, predict(model, refs), strict=True):
        writer.writerow([ref, int(score >= THRESHOLD), score])
    bucket, key = split(f"{output_uri.rstrip('/')}/{request['job_id']}/parts/part-00000.csv")
    s3.put_object(Bucket=bucket, Key=key, Body=text.getvalue().encode())


def predict(model: Any, refs: list[str]) -> Iterator[float]:
    """Yields P(class 1) of each image, scored in batches."""
    for start in range(0, len(refs), BATCH_SIZE):
        batch = np.stack([load_image(ref) for ref in refs[start : start + BATCH_SIZE]])
        yield from model.predict(batch, verbose=0)[:, 0].tolist()


def load_image(ref: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Returns ``(160, 160, 3)`` uint8 RGB. The model does the scaling."""
    image = Image.open(io.BytesIO(download(ref)))
    return np.asarray(image.convert("RGB").resize(IMAGE_SIZE))


def download(uri: str) -> bytes:
    """Returns the content of an object."""
    bucket, key = split(uri)
    return s3.get_object(Bucket=bucket, Key=key)["Body"].read()


def split(uri: str) -> tuple[str, str]:
    """``s3://bucket/key`` -> ``("bucket", "key")``."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


if __name__ == "__main__":
    main()
