"""The settings, the storage and the queues of ``twofold batch``."""

import re
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from jobs.batch.closing import Closer, Closing
from jobs.batch.dead_letters import DeadLetter, DeadLetters, LettersRead
from jobs.batch.queue_trouble import QUEUE, explain
from jobs.batch.s3_objects import S3Objects
from jobs.batch.status import StatusReader
from jobs.folder_settings import check_emulator, missing
from jobs.unsure_band import Band
from jobs.user_error import UserError
from worker.aws.clients import open_s3, open_session, open_sqs, open_storage
from worker.aws.failures import BOTO_ERRORS
from worker.aws.notifications import open_notifier
from worker.aws.queue import Outbox, Queue
from worker.aws.storage import Storage
from worker.batch.job_folder import JobFolder, JobRecord
from worker.contract import ClassifyRequest, Job, S3Uri
from worker.errors import TwofoldError
from worker.settings import AccountId

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_sqs.literals import QueueAttributeFilterType

    from worker.batch.plan import ModelChoice, Planner

#: https://docs.aws.amazon.com/general/latest/gr/sqs-service.html
_AWS_HOSTS: Final = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")


#: The beginning of what is said where the queue cannot be read. All else is shown.
_UNREADABLE: Final = "Refused and lost requests are not known."

#: The messages of a queue: those that can be received, those with a worker, and those to be tried later.
_NUMBERS: "Final[list[QueueAttributeFilterType]]" = [
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
]


class BatchSettings(BaseSettings):
    """The environment of ``twofold batch``. An option takes precedence over its variable."""

    model_config = SettingsConfigDict(env_prefix="TWOFOLD_", frozen=True, env_ignore_empty=True)

    queue_url: str | None = Field(default=None, description="the request queue")
    dead_letter_url: str | None = Field(default=None, description="the dead-letter queue")
    model_uri: str | None = Field(default=None, description="the model for jobs that do not name one")
    output_uri: S3Uri | None = Field(default=None, description="the folder of all jobs")
    notify_arn: str | None = Field(
        default=None, description="the topic or bus to notify of a job that is completed here"
    )
    expected_bucket_owner: AccountId | None = Field(default=None, description="the AWS account that owns every bucket")

    @field_validator("notify_arn")
    @classmethod
    def _of_a_topic_or_bus(cls, arn: str | None) -> str | None:
        if arn is not None and not re.match(r"arn:[^:]+:(sns|events):", arn):
            raise ValueError(f"must be the ARN of an SNS topic or of an EventBridge bus, not {arn!r:.100}")
        return arn

    def needed_queue(self) -> str:
        """Returns the URL of the queue. Raises UserError when it is not set."""
        if self.queue_url is None:
            raise UserError(missing(self.unset()))
        return self.queue_url

    def needed_output(self) -> str:
        """Returns the folder of all jobs. Raises UserError when it is not set."""
        if self.output_uri is None:
            raise UserError(missing(self.unset()))
        return self.output_uri

    def unset(self) -> dict[str, str]:
        """Returns the settings that commands need and that are not set, with what they mean."""
        needed = {name: str(type(self).model_fields[name].description) for name in ("queue_url", "output_uri")}
        return {name: meaning for name, meaning in needed.items() if getattr(self, name) is None}


class _Notices:
    """Lines on standard error. Each is said once, however often what it is about is found."""

    def __init__(self) -> None:
        self._said: set[str] = set()
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        with self._lock:
            if text not in self._said:
                self._said.add(text)
                print(text, file=sys.stderr)


@dataclass(frozen=True)
class BatchClient:
    """The queue and the bucket, for those who submit jobs."""

    settings: BatchSettings
    session: "boto3.Session"
    storage: Storage
    _notices: _Notices = field(default_factory=_Notices, init=False, compare=False)

    @classmethod
    def open(cls, *, output_uri: str | None) -> Self:
        """Opens a client with the settings of the environment. ``output_uri`` takes precedence over its variable.

        Raises UserError if they are those of an emulator that does not run.
        """
        settings = BatchSettings(output_uri=output_uri) if output_uri else BatchSettings()
        try:
            session = open_session()
        except ValueError as error:
            if settings.unset():  # all that is missing is named at once
                raise UserError(missing(settings.unset(), also=str(error))) from error
            raise
        check_emulator()
        return cls(settings, session, open_storage(session, bucket_owner=settings.expected_bucket_owner))

    def objects(self) -> S3Objects:
        """Returns what copies and tags objects."""
        return S3Objects(open_s3(self.session, bucket_owner=self.settings.expected_bucket_owner))

    def record(self, job_id: str) -> JobRecord:
        """Returns the record of a job, which may not exist."""
        return JobRecord(JobFolder(self.settings.needed_output(), job_id), self.storage)

    def model_uri(self) -> str | None:
        """Returns the model of the settings, or None if other machines cannot read it."""
        uri = self.settings.model_uri
        return uri if uri and uri.startswith("s3://") else None

    def pinned_model_uri(self) -> str | None:
        """Returns the bundle that ``model_uri`` names now, or None when it cannot be read from here."""
        from worker.scoring.models import pinned  # noqa: PLC0415 - LiteRT takes a moment to load

        try:
            uri = self.model_uri()
            return None if uri is None else pinned(uri, storage=self.storage)
        except TwofoldError:
            return None

    def planner(self) -> "Planner":
        """Returns a planner that sends to the queue."""
        from worker.batch.plan import Planner  # noqa: PLC0415 - see above

        return Planner(storage=self.storage, send=self.send)

    def send(self, requests: Iterable[ClassifyRequest]) -> None:
        """Sends requests to the queue. Raises UserError where it cannot be used."""
        url = self.settings.needed_queue()
        try:
            Outbox(sqs=open_sqs(self.session), url=url).send(requests)
        except TwofoldError as error:
            raise UserError(explain(error, url, QUEUE)) from error

    def check(self) -> None:
        """Raises UserError when the queue or the output cannot be used."""
        from jobs.batch import preflight  # noqa: PLC0415 - see above

        preflight.check_queue(open_sqs(self.session), self.settings.needed_queue())
        preflight.check_output(self.settings.needed_output(), self.storage)

    def choose_model(
        self, uri: str | None, *, threshold: float | None = None, unsure: Band | None = None
    ) -> "ModelChoice":
        """Returns the bundle that ``uri`` or else the settings name.

        Raises UserError when it cannot be used, or not with this threshold and this band of unsure scores.
        """
        from jobs.batch import preflight  # noqa: PLC0415 - see above
        from worker.batch.plan import ModelChoice  # noqa: PLC0415

        named = uri or self.model_uri()
        if named is None:
            return ModelChoice()
        return preflight.choose_model(named, self.storage, threshold=threshold, unsure=unsure)

    def is_emulated(self) -> bool:
        """Returns whether the queue is on an emulator, which costs nothing."""
        url = self.settings.queue_url or open_sqs(self.session).meta.endpoint_url
        return not (urlsplit(url).hostname or "").endswith(_AWS_HOSTS)

    def dead_letters(self) -> DeadLetters | None:
        """Returns the dead-letter queue, or None when no queue is set.

        Raises UserError when the queue cannot be read, or names none.
        """
        sqs, url = open_sqs(self.session), self.settings.dead_letter_url
        if url is None and self.settings.queue_url is not None:
            asked = self.settings.queue_url
            try:
                url = Queue.open(sqs=sqs, url=asked, dead_letter_url=None, visibility_s=60).dead_letter_url
            except TwofoldError as error:
                raise UserError(explain(error, asked, QUEUE)) from error
        return None if url is None else DeadLetters(sqs=sqs, url=url)

    def letters(self) -> LettersRead | None:
        """Returns all dead letters. None: no queue is set, or it cannot be read, as standard error then says once."""
        try:
            found = self._dead_letters
            return found.all() if found else None
        except UserError as error:
            self._notices.say(f"{_UNREADABLE} {error}")
            return None

    @cached_property
    def _dead_letters(self) -> DeadLetters | None:
        return self.dead_letters()

    def status_reader(self, job_id: str) -> StatusReader:
        """Returns a reader of the job's status."""
        return StatusReader(
            self.record(job_id), dead_letters=_LettersNow(self), closer=self.closer(), pending=self.pending
        )

    def pending(self) -> int | None:
        """Returns how many requests the queue holds, of all jobs and roughly.

        None: no queue is set, or it cannot be read, as standard error then says once.
        """
        url = self.settings.queue_url
        if url is None:
            return None
        try:
            answer = open_sqs(self.session).get_queue_attributes(QueueUrl=url, AttributeNames=_NUMBERS)
        except BOTO_ERRORS as error:
            self._notices.say(f"{_UNREADABLE} {explain(error, url, QUEUE)}")
            return None
        return sum(int(number) for number in answer["Attributes"].values())

    def closer(self) -> Closer:
        """Returns what completes a job whose workers did not."""
        arn = self.settings.notify_arn
        return Closer(notify=open_notifier(self.session, arn) if arn else None)

    def close(self, job_id: str) -> Closing | None:
        """Completes a job whose workers wrote all parts and no more. Returns None where there is nothing to do."""
        record = self.record(job_id)
        newest = None if record.is_complete(record.job()) else max((at for _, at in record.parts()), default=None)
        return None if newest is None or record.is_cancelled() else self.closer().close(record, newest=newest)


@dataclass(frozen=True)
class _LettersNow:
    """The dead letters as they are when they are asked for, as far as they can be read."""

    client: BatchClient

    def of(self, folder: JobFolder, job: Job | None) -> list[DeadLetter]:
        letters = self.client.letters()
        return letters.of(folder, job) if letters else []
