"""SQS: requests received, kept hidden, acknowledged, released and rejected; and requests sent.

A worker holds one message at a time, so that no message waits while its lease runs out.
"""

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Self

from worker.aws.failures import BOTO_ERRORS, from_messaging, from_receipt
from worker.contract import ClassifyRequest
from worker.errors import ErrorCode, Reject, Retry

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

#: Longest poll: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
MAX_POLL_S: Final = 20
#: SQS keeps a message hidden for 12 hours at most, extensions included: same page, "Message visibility timeout".
MAX_LEASE_S: Final = 12 * 3600
#: How many receives a queue without a redrive policy gives a message. SQS itself would deliver it forever.
_DEFAULT_MAX_RECEIVES: Final = 5
#: Characters of a rejection's reason. An attribute counts towards the size of its message.
_MAX_REASON: Final = 1000

#: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html
_BATCH: Final = 10
_TRIES: Final = 5
_PAUSE_S: Final = 0.2


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message as received. The body is untouched, so the message can be rejected whatever it holds."""

    message_id: str
    receipt_handle: str
    body: str
    receive_count: int


class Queue:
    """A request queue and its dead-letter queue.

    Every method raises Retry where SQS does not answer, and Reject where it refuses.
    """

    def __init__(
        self, *, sqs: "SQSClient", url: str, dead_letter_url: str, max_receives: int, visibility_s: int
    ) -> None:
        self._sqs = sqs
        self._url = url
        self.dead_letter_url = dead_letter_url
        self.max_receives = max_receives
        self.visibility_s = visibility_s

    @classmethod
    def open(cls, *, sqs: "SQSClient", url: str, dead_letter_url: str | None, visibility_s: int) -> Self:
        """Opens a queue and reads its redrive policy. Raises Reject where nothing names a dead-letter queue."""
        with _deciding(url):
            policy = json.loads(_attributes(sqs, url).get("RedrivePolicy", "{}"))
            target = policy.get("deadLetterTargetArn")
            if dead_letter_url is None and target:
                account, name = target.split(":")[-2:]
                answer = sqs.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)
                dead_letter_url = answer["QueueUrl"]
        if dead_letter_url is None:
            raise Reject(
                ErrorCode.NOT_FOUND,
                f"{url} has no dead-letter queue: give it a redrive policy, or set TWOFOLD_DEAD_LETTER_URL",
            )
        return cls(
            sqs=sqs,
            url=url,
            dead_letter_url=dead_letter_url,
            max_receives=int(policy.get("maxReceiveCount", _DEFAULT_MAX_RECEIVES)),
            visibility_s=visibility_s,
        )

    def receive(self, *, wait_s: int) -> Message | None:
        """Receives the next message, or returns None after ``wait_s`` seconds (0 to 20) without one."""
        with _deciding(self._url):
            answer = self._sqs.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=1,
                WaitTimeSeconds=wait_s,
                VisibilityTimeout=self.visibility_s,
                MessageSystemAttributeNames=["ApproximateReceiveCount"],
            )
        for item in answer.get("Messages", ()):
            return Message(
                message_id=item["MessageId"],
                receipt_handle=item["ReceiptHandle"],
                body=item["Body"],
                receive_count=int(item["Attributes"]["ApproximateReceiveCount"]),
            )
        return None

    def extend(self, message: Message, *, seconds: int) -> None:
        """Hides the message for ``seconds`` from now. Raises LeaseLost where it is visible again, or deleted."""
        with self._holding():
            self._sqs.change_message_visibility(
                QueueUrl=self._url, ReceiptHandle=message.receipt_handle, VisibilityTimeout=seconds
            )

    def release(self, message: Message, *, delay_s: int) -> None:
        """Gives the message back, to be received again after ``delay_s`` seconds. Raises LeaseLost."""
        self.extend(message, seconds=delay_s)

    def acknowledge(self, message: Message) -> None:
        """Deletes the message: its work is done and written. Raises LeaseLost."""
        with self._holding():
            self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message.receipt_handle)

    def reject(self, message: Message, reason: Reject) -> None:
        """Sends the message to the dead-letter queue with its reason, then deletes it. Raises LeaseLost."""
        values = {
            "error_code": reason.code.value,
            "error_message": reason.message[:_MAX_REASON] or "-",
            "message_id": message.message_id,
        }
        with _deciding(self.dead_letter_url):
            self._sqs.send_message(
                QueueUrl=self.dead_letter_url,
                MessageBody=message.body,
                MessageAttributes={
                    name: {"DataType": "String", "StringValue": _xml_safe(value)} for name, value in values.items()
                },
            )
        self.acknowledge(message)

    def is_empty(self) -> bool:
        """Returns True when no message waits, is delayed, or is held by a worker. SQS calls its counts approximate."""
        names = (
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        )
        with _deciding(self._url):
            counts = _attributes(self._sqs, self._url)
        return all(int(counts.get(name, 0)) == 0 for name in names)

    @contextmanager
    def _holding(self) -> Iterator[None]:
        """Turns what boto3 raises about a receipt handle into LeaseLost, Reject or Retry."""
        try:
            yield
        except BOTO_ERRORS as error:
            raise from_receipt(error, self._url) from error


class Outbox:
    """Sends requests to one queue."""

    def __init__(self, *, sqs: "SQSClient", url: str) -> None:
        self._sqs = sqs
        self._url = url

    def send(self, requests: Iterable[ClassifyRequest]) -> None:
        """Sends the requests, ten at a time. Raises Reject or Retry unless every one of them is on the queue."""
        remaining = iter(requests)
        while batch := list(islice(remaining, _BATCH)):
            self._send_batch([request.model_dump_json(exclude_none=True) for request in batch])

    def _send_batch(self, bodies: list[str]) -> None:
        entries: list[Any] = [{"Id": str(place), "MessageBody": body} for place, body in enumerate(bodies)]
        for attempt in range(_TRIES):
            with _deciding(self._url):
                answer = self._sqs.send_message_batch(QueueUrl=self._url, Entries=entries)
            # The call can succeed while an entry in it fails.
            failed = {entry["Id"]: entry for entry in answer.get("Failed", ())}
            if not failed:
                return
            for entry in failed.values():
                if entry["SenderFault"]:
                    reason = f"{entry['Code']}: {entry.get('Message', '')}"
                    raise Reject(ErrorCode.BAD_REQUEST, f"{self._url} refuses a request: {reason}")
            entries = [entry for entry in entries if entry["Id"] in failed]
            time.sleep(_PAUSE_S * 2**attempt)
        raise Retry(ErrorCode.UNAVAILABLE, f"{self._url}: {len(entries)} requests were not accepted in {_TRIES} tries")


@contextmanager
def _deciding(url: str) -> Iterator[None]:
    """Turns what boto3 raises within the block into Reject or Retry."""
    try:
        yield
    except BOTO_ERRORS as error:
        raise from_messaging(error, url) from error


def _attributes(sqs: "SQSClient", url: str) -> dict[str, str]:
    answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    return {str(name): value for name, value in answer.get("Attributes", {}).items()}


def _xml_safe(text: str) -> str:
    """Escapes what SQS refuses in an attribute: all but the characters of https://www.w3.org/TR/REC-xml/#charsets ."""
    return "".join(
        c if c in "\t\n\r" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff" else ascii(c)[1:-1]
        for c in text
    )
