"""The worker's settings, read from environment variables that begin with ``TWOFOLD_``.

Region, credentials and endpoint come from the AWS SDK's own settings instead: ``AWS_REGION``, ``AWS_PROFILE``,
``AWS_ENDPOINT_URL`` and so on.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, PositiveFloat, PositiveInt, StringConstraints, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from worker.contract import S3Uri, describe, nearest

#: All settings begin with it.
PREFIX: Final = "TWOFOLD_"
#: Values that show the form of a setting.
EXAMPLES: Final = {
    "queue_url": "https://sqs.REGION.amazonaws.com/ACCOUNT/QUEUE",
    "output_uri": "s3://BUCKET/predictions/",
    "model_uri": "s3://BUCKET/models/NAME/champion.json",
}

#: Safe in the search expressions of a dashboard, and in a query of CloudWatch Logs.
_METRICS_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,255}")
_ARN: Final = re.compile(r"arn:[\w-]+:(sns:[^:]+:\d+:[^:]+|events:[^:]+:\d+:event-bus/.+)")

#: The slashes of a prefix that is not a bucket, s3://bucket/prefix, without one at its end.
_IN_BUCKET: Final = 3

#: An AWS account.
AccountId = Annotated[str, StringConstraints(pattern=r"^[0-9]{12}$")]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


def available_cores() -> int:
    """Returns the number of cores this process may use, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class WorkerSettings(BaseSettings):
    """The settings of a worker. Each field is one variable: ``queue_url`` is ``TWOFOLD_QUEUE_URL``."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, env_ignore_empty=True)

    queue_url: str = Field(description="the request queue")
    dead_letter_url: str | None = Field(
        default=None, description="the queue for requests that can never succeed; default: the request queue's own"
    )
    model_uri: str | None = Field(default=None, description="the model for requests that name none")
    output_uri: S3Uri | None = Field(default=None, description="the s3:// output prefix for requests that name none")
    allowed_prefixes: Annotated[tuple[S3Uri, ...], NoDecode] = Field(
        default=(), description="the s3:// prefixes of images and manifests that requests may name, separated by commas"
    )
    model_prefixes: Annotated[tuple[S3Uri, ...], NoDecode] = Field(
        default=(), description="the s3:// prefixes of models that requests may name, separated by commas"
    )
    expected_bucket_owner: AccountId | None = Field(
        default=None, description="the 12 digits of the AWS account that owns every bucket"
    )
    threads: PositiveInt = Field(default_factory=available_cores, description="processes that decode and score")
    fetchers: PositiveInt = Field(default=16, description="images read from storage at once")
    in_flight_mib: Annotated[int, Field(ge=32)] = Field(
        default=128, description="MiB of images that are read and not yet scored"
    )
    image_cpu_s: PositiveFloat = Field(default=10, description="processor seconds to decode one image")
    image_wall_s: PositiveFloat = Field(default=30, description="seconds on the clock to decode and score one image")
    image_memory_mib: Annotated[int, Field(ge=64)] = Field(default=384, description="MiB of memory to decode one image")
    request_s: PositiveFloat = Field(default=600, description="seconds that a request waits for storage")
    visibility_s: Annotated[int, Field(ge=3, le=43_200)] = Field(
        default=60, description="visibility timeout of a message in seconds; extended while the work goes on"
    )
    stop_s: Annotated[int, Field(ge=1)] = Field(
        default=20, description="seconds to finish the current part after a stop signal, before its message goes back"
    )
    cache: Path | None = Field(default=None, description="a folder that keeps models between starts")
    heartbeat: Path | None = Field(default=None, description="a file that the worker touches while it makes progress")
    notify_arn: str | None = Field(
        default=None, description="the SNS topic or EventBridge bus to notify when a job is complete"
    )
    metrics: str | None = Field(
        default=None, description="the name that CloudWatch metrics are filed under; without it a loop prints none"
    )
    log_level: LogLevel = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR")

    @field_validator("allowed_prefixes", "model_prefixes", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(item.strip() for item in value.split(",") if item.strip()) if isinstance(value, str) else value

    @field_validator("metrics")
    @classmethod
    def _plain(cls, name: str | None) -> str | None:
        if name is not None and not _METRICS_NAME.fullmatch(name):
            raise ValueError(f"must be 1 to 255 letters, digits, '.', '_' or '-', not {name!r:.100}")
        return name

    @field_validator("notify_arn")
    @classmethod
    def _of_a_topic_or_bus(cls, arn: str | None) -> str | None:
        if arn is not None and not _ARN.fullmatch(arn):
            raise ValueError(f"must be the ARN of an SNS topic or of an EventBridge bus, not {arn!r:.100}")
        return arn

    def prefixes(self) -> tuple[str, ...]:
        """Returns ``allowed_prefixes``, or by default the buckets of ``model_uri`` and ``output_uri``."""
        if self.allowed_prefixes:
            return self.allowed_prefixes
        uris = [uri for uri in (self.model_uri, self.output_uri) if uri and uri.startswith("s3://")]
        return tuple(dict.fromkeys("/".join(uri.split("/")[:3]) + "/" for uri in uris))

    def model_folders(self) -> tuple[str, ...]:
        """Returns ``model_prefixes``, or by default the folder of the model that ``model_uri`` names, all its versions.

        That is ``s3://shelter/models/pets/`` for ``s3://shelter/models/pets/champion.json``, for the bundle
        ``s3://shelter/models/pets/v1`` and for its ``model.json``; nothing for a local path.
        """
        if self.model_prefixes or self.model_uri is None or not self.model_uri.startswith("s3://"):
            return self.model_prefixes
        folder, _, file = self.model_uri.rstrip("/").rpartition("/")
        if file == "champion.json":
            return (f"{folder}/",)
        bundle = folder if file == "model.json" else f"{folder}/{file}"
        parent = bundle.rpartition("/")[0]
        # A bundle at the top of a bucket has no folder but the bucket, which may hold anything.
        return (f"{bundle if parent.count('/') < _IN_BUCKET else parent}/",)


def explain_settings(error: ValidationError) -> str:
    """Describes what is wrong with the environment, one variable to a line, by the variable's full name."""
    fields = WorkerSettings.model_fields
    lines = []
    for item in error.errors(include_url=False):
        field = str(item["loc"][0]) if item["loc"] else ""
        name, meaning = f"{PREFIX}{field.upper()}", fields[field].description if field in fields else ""
        what = describe(item)
        if item["type"] == "missing":
            what = f"is not set. Set it with: export {name}={EXAMPLES.get(field, 'VALUE')}{misspelt(name)}"
        lines.append(f"{name} ({meaning}) {what}")
    return "\n".join(lines)


def misspelt(name: str) -> str:
    """Returns a question if a variable is set that is nearly ``name``."""
    near = nearest(name, unknown())
    return f" ({near} is set: is that a misspelling?)" if near else ""


def unknown() -> dict[str, str | None]:
    """Returns the variables that are set and look like settings but are none, each with the nearest setting."""
    known = {f"{PREFIX}{field.upper()}" for field in WorkerSettings.model_fields}
    return {name: nearest(name, known) for name in os.environ if name.startswith(PREFIX) and name not in known}
