"""Requests to a queue, ten at a time, and the answer for each of them looked at."""

import time
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from worker.contract import ClassifyRequest
from worker.errors import ErrorCode, Reject, Retry
from worker.queue import decide

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

#: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html
_BATCH: Final = 10
_TRIES: Final = 5
_PAUSE_S: Final = 0.2


class Outbox:
    """Sends requests to one queue."""

    def __init__(self, *, sqs: "SQSClient", url: str) -> None:
        self._sqs = sqs
        self._url = url

    def send(self, requests: Iterable[ClassifyRequest]) -> None:
        """Every request is on the queue when it returns. Raises Reject or Retry when that is not so."""
        remaining = iter(requests)
        while batch := list(islice(remaining, _BATCH)):
            self._send_batch([request.model_dump_json(exclude_none=True) for request in batch])

    def _send_batch(self, bodies: list[str]) -> None:
        entries: list[Any] = [{"Id": str(place), "MessageBody": body} for place, body in enumerate(bodies)]
        for attempt in range(_TRIES):
            try:
                answer = self._sqs.send_message_batch(QueueUrl=self._url, Entries=entries)
            except (ClientError, BotoCoreError) as error:
                raise decide(error, self._url) from error
            # The call can succeed and an entry in it fail.
            failed = {entry["Id"]: entry for entry in answer.get("Failed", ())}
            if not failed:
                return
            for entry in failed.values():
                if entry["SenderFault"]:
                    reason = f"{entry['Code']}: {entry.get('Message', '')}"
                    raise Reject(ErrorCode.BAD_REQUEST, f"{self._url} refuses a request: {reason}")
            entries = [entry for entry in entries if entry["Id"] in failed]
            time.sleep(_PAUSE_S * 2**attempt)
        raise Retry(ErrorCode.UNAVAILABLE, f"{self._url}: {len(entries)} requests were not taken in {_TRIES} tries")
