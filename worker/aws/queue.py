"""SQS: receive, extend, acknowledge, release, reject. One message at a time, so that none waits on a running lease."""

import json
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Self

from botocore.exceptions import BotoCoreError, ClientError

from worker.contract import ClassifyRequest
from worker.errors import PASSING_CODES, ErrorCode, Reject, Retry

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


log = logging.getLogger(__name__)

#: Longest poll: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
MAX_POLL_S: Final = 20
#: A message stays received for 12 hours in all, extensions included: same page, "Message visibility timeout".
MAX_LEASE_S: Final = 12 * 3600
#: An attribute's value counts towards the message's size; the reason is a line, not a log.
_MAX_REASON: Final = 1000

_LOST: Final = frozenset(
    {
        "ReceiptHandleIsInvalid",
        "MessageNotInflight",
        "AWS.SimpleQueueService.MessageNotInflight",
        "InvalidParameterValue",
    }
)


_NO_QUEUE: Final = frozenset({"QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"})


class LeaseLost(Exception):
    """The message is visible again, or gone: its receipt handle no longer counts."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message as received. The body is untouched: whatever it holds, the message can still be refused."""

    message_id: str
    receipt_handle: str
    body: str
    receive_count: int


class Queue:
    """A request queue and its dead-letter queue."""

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
        """Looks up the redrive policy. Raises Reject when there is no dead-letter queue to be found."""
        try:
            policy = json.loads(_attributes(sqs, url).get("RedrivePolicy", "{}"))
            target = policy.get("deadLetterTargetArn")
            if dead_letter_url is None and target:
                account, name = target.split(":")[-2:]
                answer = sqs.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)
                dead_letter_url = answer["QueueUrl"]
        except (ClientError, BotoCoreError) as error:
            raise decide(error, url) from error
        if dead_letter_url is None:
            raise Reject(
                ErrorCode.NOT_FOUND, f"{url} has no redrive policy: give it one, or set TWOFOLD_DEAD_LETTER_URL"
            )
        return cls(
            sqs=sqs,
            url=url,
            dead_letter_url=dead_letter_url,
            # Without a policy SQS brings a message back for ever; some receive must be the last all the same.
            max_receives=int(policy.get("maxReceiveCount", 5)),
            visibility_s=visibility_s,
        )

    def receive(self, *, wait_s: int) -> Message | None:
        """The next message, or None after ``wait_s`` seconds (0 to 20) without one."""
        try:
            answer = self._sqs.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=1,
                WaitTimeSeconds=wait_s,
                VisibilityTimeout=self.visibility_s,
                MessageSystemAttributeNames=["ApproximateReceiveCount"],
            )
        except (ClientError, BotoCoreError) as error:
            raise decide(error, self._url) from error
        for item in answer.get("Messages", ()):
            return Message(
                message_id=item["MessageId"],
                receipt_handle=item["ReceiptHandle"],
                body=item["Body"],
                receive_count=int(item["Attributes"]["ApproximateReceiveCount"]),
            )
        return None

    def extend(self, message: Message, *, seconds: int) -> None:
        """Hides the message for ``seconds`` from now. Raises LeaseLost, or Retry."""
        try:
            self._sqs.change_message_visibility(
                QueueUrl=self._url, ReceiptHandle=message.receipt_handle, VisibilityTimeout=seconds
            )
        except (ClientError, BotoCoreError) as error:
            if _code(error) in _LOST:
                raise LeaseLost(str(error)) from error
            raise decide(error, self._url) from error

    def release(self, message: Message, *, delay_s: int) -> None:
        """Gives the message back, to be received again after ``delay_s`` seconds."""
        self.extend(message, seconds=delay_s)

    def acknowledge(self, message: Message) -> None:
        """Deletes the message: its work is done, and written. Raises LeaseLost, or Retry."""
        try:
            self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message.receipt_handle)
        except (ClientError, BotoCoreError) as error:
            if _code(error) in _LOST:
                raise LeaseLost(str(error)) from error
            raise decide(error, self._url) from error

    def reject(self, message: Message, reason: Reject) -> None:
        """Sends the message to the dead-letter queue with its reason, then acknowledges it. Raises as these do."""
        values = {
            "error_code": reason.code.value,
            "error_message": reason.message[:_MAX_REASON] or "-",
            "message_id": message.message_id,
        }
        try:
            self._sqs.send_message(
                QueueUrl=self.dead_letter_url,
                MessageBody=message.body,
                MessageAttributes={
                    name: {"DataType": "String", "StringValue": _xml_safe(value)} for name, value in values.items()
                },
            )
        except (ClientError, BotoCoreError) as error:
            raise decide(error, self.dead_letter_url) from error
        self.acknowledge(message)

    def is_empty(self) -> bool:
        """True when nothing waits, is delayed, or is held by a worker. SQS calls its counts approximate."""
        names = (
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        )
        try:
            counts = _attributes(self._sqs, self._url)
        except (ClientError, BotoCoreError) as error:
            raise decide(error, self._url) from error
        return all(int(counts.get(name, 0)) == 0 for name in names)


def _attributes(sqs: "SQSClient", url: str) -> dict[str, str]:
    answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    return {str(name): value for name, value in answer.get("Attributes", {}).items()}


def _code(error: Exception) -> str:
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def decide(error: ClientError | BotoCoreError, url: str) -> Reject | Retry:
    """An error of SQS as a decision: no answer, 5xx and throttling pass, anything else (no such queue) does not."""
    message = f"{url}: {error}"
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        if status < 500 and _code(error) not in PASSING_CODES:  # noqa: PLR2004
            missing = _code(error) in _NO_QUEUE
            return Reject(ErrorCode.NOT_FOUND if missing else ErrorCode.ACCESS_DENIED, message)
    return Retry(ErrorCode.UNAVAILABLE, message)


def _xml_safe(text: str) -> str:
    """Only what SQS takes in an attribute: https://www.w3.org/TR/REC-xml/#charsets ; the rest as escapes."""
    return "".join(
        c if c in "\t\n\r" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff" else ascii(c)[1:-1]
        for c in text
    )


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
