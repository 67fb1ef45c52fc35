"""The settings of the command line: the worker's own variables, so that both are told once."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from jobs.errors import UserError
from worker.contract import S3Uri


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
