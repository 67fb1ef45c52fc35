"""The dead-letter queue: which requests were refused, and why. Reading it leaves the messages in it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from jobs.batch.queue_trouble import DEAD_LETTERS, explain
from jobs.user_error import UserError
from worker import messages
from worker.aws.failures import BOTO_ERRORS
from worker.batch.job_folder import JobFolder
from worker.contract import ClassifyRequest, Job
from worker.errors import ErrorCode

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

#: How long messages are hidden while they are read. They become visible right afterwards, or after this time.
_HIDDEN_S: Final = 30
_MOST: Final = 1000
_BATCH: Final = 10
#: SQS itself moves a message that was received too often, and gives no reason. The codes are those of requests, so that
#: scripts need no other; the message says what happened.
_LOST: Final = (
    "ended by repeated worker loss: every worker that received the request was lost before it could answer or refuse "
    "it. Look in the worker's log for what ended it, such as too little memory; then redrive the job"
)
#: A short poll asks only some of the servers of SQS. After this many empty answers the queue counts as empty.
_EMPTY: Final = 2


def is_in(request: ClassifyRequest, output_uri: str) -> bool:
    """Returns whether a request writes to ``output_uri``: one that names no prefix writes to the worker's own."""
    return request.output_uri is None or request.output_uri.rstrip("/") == output_uri.rstrip("/")


def is_of(request: ClassifyRequest, folder: JobFolder, job: Job | None) -> bool:
    """Returns whether a request is one of the job in ``folder``, and not of an earlier job of that name.

    ``job`` is its ``job.json``. Where there is none, nothing says which edition of the name it is.
    """
    if request.job_id != folder.job_id or not is_in(request, folder.output_uri):
        return False
    return job is None or request.edition == job.edition


@dataclass(frozen=True)
class DeadLetter:
    """A message that was refused, or whose workers were lost. ``requests`` is empty when its body cannot be read."""

    receipt_handle: str
    body: str
    requests: tuple[ClassifyRequest, ...]
    error_code: str
    error_message: str

    def concerns(self, folder: JobFolder, job: Job | None) -> bool:
        """Returns whether the message asks for images of that job."""
        return any(is_of(request, folder, job) for request in self.requests)

    def is_of(self, folder: JobFolder, job: Job | None) -> bool:
        """Returns whether the message asks for images of that job and of no other."""
        return bool(self.requests) and all(is_of(request, folder, job) for request in self.requests)


class Letters(Protocol):
    """Refused requests, by job."""

    def of(self, folder: JobFolder, job: Job | None) -> list[DeadLetter]:
        """Returns the refused requests of the job in a folder. None: it has no ``job.json``."""


@dataclass(frozen=True)
class LettersRead:
    """The dead letters of all jobs, as they were read at one time."""

    letters: tuple[DeadLetter, ...]

    def of(self, folder: JobFolder, job: Job | None) -> list[DeadLetter]:
        """Returns the refused requests of a job."""
        return [letter for letter in self.letters if letter.concerns(folder, job)]

    def requests(self) -> Iterator[ClassifyRequest]:
        """Yields all refused requests."""
        return (request for letter in self.letters for request in letter.requests)


class DeadLetters:
    """Reads a dead-letter queue. Every method raises UserError where the queue cannot be used."""

    def __init__(self, *, sqs: "SQSClient", url: str) -> None:
        self._sqs = sqs
        self._url = url

    def of(self, folder: JobFolder, job: Job | None) -> list[DeadLetter]:
        """Returns the refused requests of a job, among the first 1,000 messages or so. All stay in the queue."""
        return self.all().of(folder, job)

    def all(self) -> LettersRead:
        """Returns the refused requests of all jobs. The same holds for them."""
        letters = self._read()
        self._show([letter.receipt_handle for letter in letters])
        return LettersRead(tuple(letters))

    def take(self, folder: JobFolder, job: Job | None) -> list[DeadLetter]:
        """Returns the same, and keeps them hidden. Call ``remove`` once their requests are sent again."""
        letters = self._read()
        self._show([letter.receipt_handle for letter in letters if not letter.concerns(folder, job)])
        return [letter for letter in letters if letter.concerns(folder, job)]

    def remove(self, letters: list[DeadLetter]) -> None:
        """Deletes messages whose requests were sent again."""
        for letter in letters:
            self._call("delete_message", ReceiptHandle=letter.receipt_handle)

    def _read(self) -> list[DeadLetter]:
        letters: list[DeadLetter] = []
        empty, ends = 0, time.monotonic() + _HIDDEN_S / 2
        while empty < _EMPTY and len(letters) < _MOST and time.monotonic() < ends:
            answer = self._call(
                "receive_message",
                MaxNumberOfMessages=_BATCH,
                VisibilityTimeout=_HIDDEN_S,
                MessageAttributeNames=["error_code", "error_message"],
            )
            found = [_letter(message) for message in answer.get("Messages", ())]
            empty = 0 if found else empty + 1
            letters += found
        return letters

    def _show(self, handles: list[str]) -> None:
        for batch in _batches(handles):
            entries = [
                {"Id": str(place), "ReceiptHandle": handle, "VisibilityTimeout": 0}
                for place, handle in enumerate(batch)
            ]
            self._call("change_message_visibility_batch", Entries=entries)  # one that fails is visible in half a minute

    def _call(self, name: str, **arguments: Any) -> Any:  # noqa: ANN401 - three answers of boto3
        try:
            return getattr(self._sqs, name)(QueueUrl=self._url, **arguments)
        except BOTO_ERRORS as error:
            raise UserError(explain(error, self._url, DEAD_LETTERS)) from error


def _letter(message: Any) -> DeadLetter:  # noqa: ANN401 - of boto3
    try:
        requests = messages.read(message["Body"])
    except ValueError:
        requests = ()
    reason = {name: value.get("StringValue", "") for name, value in message.get("MessageAttributes", {}).items()}
    return DeadLetter(
        receipt_handle=message["ReceiptHandle"],
        body=message["Body"],
        requests=requests,
        error_code=reason.get("error_code", ErrorCode.UNAVAILABLE.value),
        error_message=reason.get("error_message", _LOST),
    )


def _batches(handles: list[str]) -> Iterator[list[str]]:
    return (handles[place : place + _BATCH] for place in range(0, len(handles), _BATCH))
