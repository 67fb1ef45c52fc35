"""The peer of the Lambda: the same handler with boto3, Pillow and Keras, as you would write it from their tutorials.

The model is loaded on import, images are scored in batches, and failed messages are reported.
"""

import json
import os
from typing import Any

from tests.bench.peer_worker import answer, load_model

MODEL = load_model(os.environ["TWOFOLD_MODEL_URI"])
OUTPUT_URI = os.environ["TWOFOLD_OUTPUT_URI"]


def handler(event: dict[str, Any], _context: object) -> dict[str, list[dict[str, str]]]:
    """Answers the messages of an SQS event."""
    failures = []
    for record in event["Records"]:
        try:
            answer(MODEL, json.loads(record["body"]), OUTPUT_URI)
        except Exception as error:  # noqa: BLE001 - as in the tutorials
            print(f"{record['messageId']}: {error}")
            failures.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failures}
