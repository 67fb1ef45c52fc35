"""The worker's settings, from environment variables that begin with ``TWOFOLD_``.

Region, credentials and endpoint are not here: they come from the AWS SDK's own (``AWS_REGION``, ``AWS_PROFILE``,
``AWS_ENDPOINT_URL`` and so on).
"""

import os
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, StringConstraints, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from worker.contract import S3Uri

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


def available_cores() -> int:
    """The cores this process may use, which a container can make fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class WorkerSettings(BaseSettings):
    """One field a variable: ``queue_url`` is ``TWOFOLD_QUEUE_URL``. The description is the README's."""

    model_config = SettingsConfigDict(env_prefix="TWOFOLD_", frozen=True, env_ignore_empty=True)

    queue_url: str = Field(description="the queue of requests")
    dead_letter_url: str | None = Field(
        default=None, description="where a request that can never succeed goes, with its reason"
    )
    model_uri: str | None = Field(default=None, description="the model used when a request names none")
    output_uri: S3Uri | None = Field(default=None, description="where results go when a request says nothing")
    allowed_prefixes: Annotated[tuple[S3Uri, ...], NoDecode] = Field(
        default=(), description="comma-separated s3:// prefixes that requests may read from or write to"
    )
    threads: PositiveInt = Field(default_factory=available_cores, description="decoding and scoring threads")
    fetchers: PositiveInt = Field(default=16, description="images read from storage at the same time")
    visibility_s: Annotated[int, Field(ge=3, le=43_200)] = Field(
        default=60, description="lease on a message, kept alive while work goes on"
    )
    stop_s: Annotated[int, Field(ge=1)] = Field(
        default=20, description="time for the current part after a stop signal; then its message goes back"
    )
    notify_arn: (
        Annotated[str, StringConstraints(pattern=r"^arn:[\w-]+:(sns:[^:]+:\d+:[^:]+|events:[^:]+:\d+:event-bus/.+)$")]
        | None
    ) = Field(default=None, description="SNS topic or EventBridge bus that is told when a job is complete")
    log_level: LogLevel = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR")

    @field_validator("allowed_prefixes", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(item.strip() for item in value.split(",") if item.strip()) if isinstance(value, str) else value

    def prefixes(self) -> tuple[str, ...]:
        """``allowed_prefixes``, or else the buckets of ``model_uri`` and ``output_uri``."""
        if self.allowed_prefixes:
            return self.allowed_prefixes
        uris = [uri for uri in (self.model_uri, self.output_uri) if uri and uri.startswith("s3://")]
        return tuple(dict.fromkeys("/".join(uri.split("/")[:3]) + "/" for uri in uris))


def name_settings(error: ValidationError) -> str:
    """What is wrong with the environment, one variable a line, by the name a person would type."""
    fields = WorkerSettings.model_fields
    lines = []
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        field = str(item["loc"][0]) if item["loc"] else ""
        meaning = fields[field].description if field in fields else ""
        lines.append(f"TWOFOLD_{field.upper()} ({meaning}): {item['msg']}")
    return "\n".join(lines)
