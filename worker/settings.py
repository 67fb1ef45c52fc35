"""The worker's settings, from environment variables that begin with ``TWOFOLD_``.

Region, credentials and endpoint are not here: they come from the AWS SDK's own (``AWS_REGION``, ``AWS_PROFILE``,
``AWS_ENDPOINT_URL`` and so on).
"""

import os
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator

from worker.contract import S3Uri

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


def available_cores() -> int:
    """The cores this process may use, which a container can make fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class WorkerSettings(BaseModel):
    """One field a variable: ``queue_url`` is ``TWOFOLD_QUEUE_URL``. The description is the README's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    queue_url: str = Field(description="the queue of requests")
    dead_letter_url: str | None = Field(
        default=None, description="where a request that can never succeed goes, with its reason"
    )
    model_uri: str | None = Field(default=None, description="the model used when a request names none")
    output_uri: S3Uri | None = Field(default=None, description="where results go when a request says nothing")
    allowed_prefixes: tuple[S3Uri, ...] = Field(
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
    log_level: LogLevel = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR")

    @classmethod
    def read(cls) -> Self:
        """From the environment. A variable that is set to nothing, as templates leave it behind, is not set.

        Not by pydantic-settings, which loads asyncio and more: a twelfth of what a worker imports, by time.
        """
        found = {field: os.environ.get(f"TWOFOLD_{field.upper()}") for field in cls.model_fields}
        return cls.model_validate({field: value for field, value in found.items() if value})

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
