"""What the ``batch`` commands share: settings, storage, queues, put together once."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from jobs.batch.dead_letters import DeadLetters
from jobs.batch.status import StatusReader
from jobs.user_error import UserError
from worker.aws.clients import open_session, open_sqs, open_storage
from worker.aws.queue import Outbox, Queue
from worker.aws.storage import Storage
from worker.batch.job_folder import JobFolder, JobRecord
from worker.batch.plan import Planner
from worker.contract import ClassifyRequest, S3Uri
from worker.errors import TwofoldError

if TYPE_CHECKING:
    import boto3


class BatchSettings(BaseSettings):
    """What ``twofold batch`` takes from the environment; an option goes before it."""

    model_config = SettingsConfigDict(env_prefix="TWOFOLD_", frozen=True, env_ignore_empty=True)

    queue_url: str | None = Field(default=None, description="the queue of requests")
    dead_letter_url: str | None = Field(default=None, description="the queue of requests that were refused")
    model_uri: str | None = Field(default=None, description="the model used when a job names none")
    output_uri: S3Uri | None = Field(default=None, description="where jobs lie")

    def needed_queue(self) -> str:
        """The queue. Raises UserError, with the next step, when nothing says which."""
        if self.queue_url is None:
            raise UserError("Which queue? Set TWOFOLD_QUEUE_URL, as for the worker.")
        return self.queue_url

    def needed_output(self) -> str:
        """Where jobs lie. Raises UserError, with the next step, when nothing says so."""
        if self.output_uri is None:
            raise UserError("Where do jobs lie? Give --output s3://bucket/prefix/, or set TWOFOLD_OUTPUT_URI.")
        return self.output_uri


@dataclass(frozen=True)
class BatchClient:
    """Where jobs are handed in and asked after."""

    settings: BatchSettings
    session: "boto3.Session"
    storage: Storage

    @classmethod
    def open(cls, *, output_uri: str | None) -> Self:
        """From the environment; an option goes before it."""
        settings = BatchSettings(output_uri=output_uri) if output_uri else BatchSettings()
        session = open_session()
        return cls(settings, session, open_storage(session))

    def record(self, job_id: str) -> JobRecord:
        """The record of a job, whether or not there is one."""
        return JobRecord(JobFolder(self.settings.needed_output(), job_id), self.storage)

    def model_uri(self) -> str | None:
        """The model of the settings, where another machine could read it too."""
        uri = self.settings.model_uri
        return uri if uri and uri.startswith("s3://") else None

    def pinned_model_uri(self) -> str | None:
        """The bundle that it stands for now; None where there is none, or it cannot be read from here."""
        from worker.scoring.models import pinned  # noqa: PLC0415 - LiteRT takes a moment that most commands need not wait

        try:
            uri = self.model_uri()
            return None if uri is None else pinned(uri, storage=self.storage)
        except TwofoldError:
            return None

    def planner(self) -> Planner:
        """Writes jobs down and sends them."""
        return Planner(storage=self.storage, send=self.send)

    def send(self, requests: Iterable[ClassifyRequest]) -> None:
        """Puts requests on the queue."""
        Outbox(sqs=open_sqs(self.session), url=self.settings.needed_queue()).send(requests)

    def dead_letters(self) -> DeadLetters | None:
        """The queue of refused requests; None where nothing says which it is."""
        sqs = open_sqs(self.session)
        url = self.settings.dead_letter_url
        if url is None and self.settings.queue_url is not None:
            queue = Queue.open(sqs=sqs, url=self.settings.queue_url, dead_letter_url=None, visibility_s=60)
            url = queue.dead_letter_url
        return None if url is None else DeadLetters(sqs=sqs, url=url)

    def status_reader(self, job_id: str) -> StatusReader:
        """Looks at a job."""
        return StatusReader(self.record(job_id), dead_letters=self.dead_letters())
