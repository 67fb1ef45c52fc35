"""A training job as a request to AWS Batch or Amazon SageMaker, or as a command for this machine; and its price.

``build_request`` is pure, and what it returns is what is sent: ``--dry-run`` prints it, and golden files pin it.
"""

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from jobs.cloud.names import PUSH_AND_DEPLOY
from jobs.user_error import UserError
from worker.contract import Name, S3Uri

#: Where a job runs.
Target = Literal["batch", "sagemaker", "here"]

#: SageMaker's rule is the stricter one: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html
JobName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9](-?[a-zA-Z0-9]){0,62}$")]
#: How the names of all jobs begin.
NAME_PREFIX: Final = "twofold-"
_TAG: Final = "twofold"
_VOLUME_GB: Final = 100
#: How long a Spot job may wait for machines, over all interruptions, on top of its time limit.
_WAIT_S: Final = 4 * 3600

#: On-demand list prices in us-east-1, USD an hour, as published in 2025. They rarely change; other regions differ.
#: https://aws.amazon.com/ec2/pricing/on-demand/ and https://aws.amazon.com/sagemaker/pricing/
ON_DEMAND_USD_PER_H: Final = {
    "g4dn.xlarge": 0.526,
    "g5.xlarge": 1.006,
    "g6.xlarge": 0.805,
    "ml.g4dn.xlarge": 0.736,
    "ml.g5.xlarge": 1.408,
}


class TrainingStack(BaseModel):
    """The outputs of the stack of infra/training.yaml, by their names."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    JobQueue: str | None = None
    JobDefinition: str | None = None
    JobLogGroup: str = "/aws/batch/job"
    Image: str | None = None
    SageMakerRole: str | None = None
    Nodes: int = 1


#: Stands for a stack in the request of a dry run, where there is none.
PLACEHOLDERS: Final = TrainingStack(
    JobQueue="JOB_QUEUE", JobDefinition="JOB_DEFINITION", Image="IMAGE", SageMakerRole="SAGEMAKER_ROLE"
)


class TrainingJob(BaseModel):
    """One job. ``options`` are those of ``twofold train run``, by name and without the leading dashes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: Target
    name: JobName
    options: dict[str, str]
    #: The sources of images after the first one, which is among the options.
    more_data: tuple[str, ...] = ()
    stack: TrainingStack = TrainingStack()
    #: Time limit in seconds: of one attempt on Batch, of the job on SageMaker.
    limit_s: Annotated[int, Field(ge=60, le=5 * 24 * 3600)] = 4 * 3600
    #: SageMaker's machine. Batch chooses one of its compute environment's.
    instance_type: str = "ml.g5.xlarge"
    spot: bool = True
    #: How many machines the job runs on.
    nodes: Annotated[int, Field(ge=1, le=16)] = 1

    @property
    def attempts(self) -> int:
        """How often the job may be started, each time with the full time limit: see RetryStrategy in training.yaml."""
        if self.target != "batch":
            return 1
        return 10 if self.nodes == 1 else 3

    @property
    def data(self) -> tuple[str, ...]:
        """All sources of images."""
        return (self.options.get("data", ""), *self.more_data)

    @property
    def bundle_uri(self) -> str:
        """Where the model will be."""
        options = self.options
        return f"{options['output'].rstrip('/')}/{options.get('name', 'model')}/{options['version']}"


class _CloudOptions(BaseModel):
    """The options that must not refer to this machine if the job runs in the cloud."""

    data: tuple[Annotated[str, StringConstraints(pattern=r"^(s3|https)://")], ...]
    output: S3Uri
    name: Name = "model"
    version: Name


def new_name(now: datetime | None = None) -> str:
    """Returns a job name from the current time."""
    return f"{NAME_PREFIX}{(now or datetime.now(UTC)).strftime('%Y%m%dT%H%M%SZ')}"


def build_request(job: TrainingJob) -> dict[str, Any]:
    """Returns the parameters of ``batch.submit_job`` or ``sagemaker.create_training_job``, or the local command.

    Raises UserError if something that the target needs is missing.
    """
    if job.target == "here":
        return {"command": [sys.executable, "-m", "jobs.cli", "train", "run", *_arguments(job, job.options)]}
    for field, value, allowed in (
        *(("--data", source, ("s3://", "https://")) for source in job.data),
        ("--output", job.options.get("output", ""), ("s3://",)),
    ):
        if not value.startswith(allowed):
            raise UserError(f"{field} must be an s3:// URI: a job in the cloud cannot read folders on this machine.")
    given = {name: job.options[name] for name in _CloudOptions.model_fields if name in job.options}
    _CloudOptions.model_validate(given | {"data": job.data})
    return _batch_request(job) if job.target == "batch" else _sagemaker_request(job)


def _batch_request(job: TrainingJob) -> dict[str, Any]:
    """https://docs.aws.amazon.com/batch/latest/APIReference/API_SubmitJob.html ."""
    queue, definition = job.stack.JobQueue, job.stack.JobDefinition
    if not (queue and definition):
        raise UserError(f"There is no job queue yet. {PUSH_AND_DEPLOY}")
    overrides = {"command": _arguments(job, job.options | _checkpoint(job))}
    command: dict[str, Any] = {"containerOverrides": overrides}
    if job.nodes > 1:
        every = {"targetNodes": "0:", "containerOverrides": overrides}
        command = {"nodeOverrides": {"numNodes": job.nodes, "nodePropertyOverrides": [every]}}
    return {
        "jobName": job.name,
        "jobQueue": queue,
        "jobDefinition": definition,
        **command,
        "timeout": {"attemptDurationSeconds": job.limit_s},
        "tags": {_TAG: job.options.get("name", "model")},
        "propagateTags": True,
    }


def _sagemaker_request(job: TrainingJob) -> dict[str, Any]:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html ."""
    image, role = job.stack.Image, job.stack.SageMakerRole
    if not (image and role):
        raise UserError(f"There is no training image or role yet. {PUSH_AND_DEPLOY}")
    data, output = job.options["data"], job.options["output"]
    parameters = {name: value for name, value in job.options.items() if name != "data"}
    channels = []
    if job.more_data:
        parameters["data"] = json.dumps(job.data)
    elif _is_prefix(data):
        source = {"S3DataType": "S3Prefix", "S3Uri": data, "S3DataDistributionType": "FullyReplicated"}
        channels = [{"ChannelName": "training", "DataSource": {"S3DataSource": source}, "InputMode": "File"}]
    else:
        parameters["data"] = data
    limits = {"MaxRuntimeInSeconds": job.limit_s}
    return {
        "TrainingJobName": job.name,
        "AlgorithmSpecification": {"TrainingImage": image, "TrainingInputMode": "File"},
        "RoleArn": role,
        **({"InputDataConfig": channels} if channels else {}),
        # The job itself writes the bundle to --output. This is where SageMaker packs whatever is left in /opt/ml/model.
        "OutputDataConfig": {"S3OutputPath": f"{_bucket(output)}/checkpoints/sagemaker/"},
        "ResourceConfig": {
            "InstanceType": job.instance_type,
            "InstanceCount": job.nodes,
            "VolumeSizeInGB": _VOLUME_GB,
        },
        "StoppingCondition": limits | ({"MaxWaitTimeInSeconds": job.limit_s + _WAIT_S} if job.spot else {}),
        "EnableManagedSpotTraining": job.spot,
        "CheckpointConfig": {
            "S3Uri": f"{_bucket(output)}/checkpoints/{job.name}/",
            "LocalPath": "/opt/ml/checkpoints",
        },
        "HyperParameters": parameters,
        "Tags": [{"Key": _TAG, "Value": job.options.get("name", "model")}],
    }


def _checkpoint(job: TrainingJob) -> dict[str, str]:
    """Returns the option for unfinished work, so that another machine can resume it. All jobs share the features."""
    if "checkpoint" in job.options:
        return {}
    return {"checkpoint": f"{_bucket(job.options['output'])}/checkpoints"}


def _bucket(uri: str) -> str:
    return "/".join(uri.split("/")[:3])


def _is_prefix(data: str) -> bool:
    """Whether a channel can hold the images. Of an archive or a list it would hold the file itself."""
    return data.startswith("s3://") and "." not in data.rpartition("/")[2]


def _arguments(job: TrainingJob, options: dict[str, str]) -> list[str]:
    values = {name: job.data if name == "data" else (value,) for name, value in options.items()}
    return [part for name, given in values.items() for value in given for part in (f"--{name}", value)]


@dataclass(frozen=True)
class Quote:
    """The most that an attempt of a job can cost: its full time limit on the most expensive machine that it may get."""

    instance_types: tuple[str, ...]
    limit_s: int
    machines: int = 1
    attempts: int = 1
    spot_usd_per_h: float | None = None  #: current Spot price of the same machine, if it is known

    @property
    def usd_per_h(self) -> float | None:
        """The on-demand price of all machines together; None if the price of any type is unknown."""
        known = [ON_DEMAND_USD_PER_H.get(kind) for kind in self.instance_types]
        prices = [price for price in known if price is not None]
        return max(prices) * self.machines if prices and len(prices) == len(known) else None

    def lines(self) -> list[str]:
        """Returns what a user reads before agreeing to the cost."""
        again = f"That is one attempt. If its machine is taken back, another goes on: up to {self.attempts} in all."
        return [*self._of_one(), *([again] if self.attempts > 1 else [])]

    def _of_one(self) -> list[str]:
        hours = self.limit_s / 3600
        lines = [f"On {' or '.join(self.instance_types)}, for {hours:.1f} h at most."]
        price = self.usd_per_h
        if price is None:
            lines.append("The price is not known here. See https://aws.amazon.com/ec2/pricing/on-demand/")
            return lines
        lines.append(f"On demand ${price:.2f} an hour in us-east-1, so ${price * hours:.2f} at most.")
        if self.spot_usd_per_h is not None:
            spot = self.spot_usd_per_h * self.machines
            saved = max(0.0, 1 - spot / price)
            lines.append(f"On Spot ${spot:.2f} an hour now, {saved:.0%} less: ${spot * hours:.2f} at most.")
        return lines
