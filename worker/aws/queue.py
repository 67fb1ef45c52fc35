"""SQS: requests received, kept hidden, acknowledged, released and rejected; and requests sent.

A worker holds one message at a time, so that no message waits while its lease runs out.
"""

import json
import re
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
_DEFAULT_MAX_RECEIVES: Final = 10
#: The attribute that counts how often a message was replaced by a fresh copy of itself.
_RENEWED: Final = "renewed"
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
    renewed: int = 0  #: how often it was replaced by a fresh copy, whose receives count from zero


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

    def over(self, sqs: "SQSClient") -> Self:
        """Returns the same queue over another client, such as one with shorter timeouts."""
        return type(self)(
            sqs=sqs,
            url=self._url,
            dead_letter_url=self.dead_letter_url,
            max_receives=self.max_receives,
            visibility_s=self.visibility_s,
        )

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

    def is_last_try(self, message: Message) -> bool:
        """Returns whether what fails now must not be tried again: there are no more receives, or only one.

        A worker that is killed uses up a receive. After the last one SQS moves the message without a reason, so that
        one is kept for a worker that is killed in the last try.
        """
        return message.receive_count >= self.max_receives - 1

    def is_last_receive(self, message: Message) -> bool:
        """Returns whether SQS moves the message to the dead-letter queue instead of delivering it once more."""
        return message.receive_count >= self.max_receives

    def receive(self, *, wait_s: int) -> Message | None:
        """Receives the next message, or returns None after ``wait_s`` seconds (0 to 20) without one."""
        with _deciding(self._url):
            answer = self._sqs.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=1,
                WaitTimeSeconds=wait_s,
                VisibilityTimeout=self.visibility_s,
                MessageSystemAttributeNames=["ApproximateReceiveCount"],
                MessageAttributeNames=[_RENEWED],
            )
        for item in answer.get("Messages", ()):
            return Message(
                message_id=item["MessageId"],
                receipt_handle=item["ReceiptHandle"],
                body=item["Body"],
                receive_count=int(item["Attributes"]["ApproximateReceiveCount"]),
                renewed=renewals(item.get("MessageAttributes"), value="StringValue"),
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

    def renew(self, message: Message) -> None:
        """Sends a fresh copy of the message, whose receives count from zero. The old one is still to be deleted.

        Should both be delivered, the second one finds the part that answers the first.
        """
        with _deciding(self._url):
            self._sqs.send_message(
                QueueUrl=self._url,
                MessageBody=message.body,
                MessageAttributes={_RENEWED: {"DataType": "Number", "StringValue": str(message.renewed + 1)}},
            )

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


def renewals(attributes: Any, *, value: str) -> int:  # noqa: ANN401 - of SQS or of Lambda
    """Returns how often a message was renewed; ``value`` is the name of an attribute's text, which Lambda spells lower.

    Anyone can send such an attribute. 0 for nonsense.
    """
    text = ((attributes or {}).get(_RENEWED) or {}).get(value) or ""
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else 0


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
