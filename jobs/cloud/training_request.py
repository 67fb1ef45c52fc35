"""A training job as a request: to AWS Batch, to Amazon SageMaker, or to this machine.

``build_request`` is pure, and what it returns is what is sent: ``--dry-run`` prints it, golden files pin it.
"""

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from jobs.user_error import UserError
from worker.contract import Name, S3Uri

Place = Literal["batch", "sagemaker", "here"]

#: SageMaker's names are the narrower: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html
JobName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9](-?[a-zA-Z0-9]){0,62}$")]
_TAG: Final = "twofold"
_VOLUME_GB: Final = 100
#: How much longer than it may run a job on Spot may wait for machines, all interruptions together.
_WAIT_S: Final = 4 * 3600


class Cloud(BaseModel):
    """What infra/training.yaml made, as its outputs name it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    JobQueue: str | None = None
    JobDefinition: str | None = None
    JobLogGroup: str = "/aws/batch/job"
    Image: str | None = None
    SageMakerRole: str | None = None
    Nodes: int = 1


class Submission(BaseModel):
    """One job. ``options`` are those of ``twofold train run``, by their names and without the dashes in front."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    place: Place
    name: JobName
    options: dict[str, str]
    cloud: Cloud = Cloud()
    #: Of one attempt, seconds.
    limit_s: Annotated[int, Field(ge=60, le=5 * 24 * 3600)] = 4 * 3600
    #: Batch: the machines of its job definition, as the stack has them. SageMaker: one.
    instance_type: str = "ml.g5.xlarge"
    spot: bool = True
    #: Machines that one job runs on.
    nodes: Annotated[int, Field(ge=1, le=16)] = 1

    @property
    def bundle_uri(self) -> str:
        """Where the model will be."""
        options = self.options
        return f"{options['output'].rstrip('/')}/{options.get('name', 'model')}/{options['version']}"


class _Remote(BaseModel):
    """What a job elsewhere can reach: nothing of this machine."""

    data: Annotated[str, StringConstraints(pattern=r"^(s3|https)://")]
    output: S3Uri
    name: Name = "model"
    version: Name


def new_name(now: datetime | None = None) -> str:
    """A name that no job has had."""
    return f"twofold-{(now or datetime.now(UTC)).strftime('%Y%m%dT%H%M%SZ')}"


def build_request(job: Submission) -> dict[str, Any]:
    """The parameters of ``batch.submit_job`` or ``sagemaker.create_training_job``; here, the command.

    Raises UserError where something is missing that the place needs.
    """
    if job.place == "here":
        return {"command": [sys.executable, "-m", "jobs.cli", "train", "run", *_arguments(job.options)]}
    for name, field in (("data", "--data"), ("output", "--output")):
        if not job.options.get(name, "").startswith(("s3://", "https://") if name == "data" else "s3://"):
            raise UserError(f"{field} must be an s3:// address: a job in the cloud reads no folder of this machine.")
    _Remote.model_validate({name: value for name, value in job.options.items() if name in _Remote.model_fields})
    return _for_batch(job) if job.place == "batch" else _for_sagemaker(job)


def _for_batch(job: Submission) -> dict[str, Any]:
    """https://docs.aws.amazon.com/batch/latest/APIReference/API_SubmitJob.html ."""
    queue, definition = job.cloud.JobQueue, job.cloud.JobDefinition
    if not (queue and definition):
        raise UserError("There is no job queue yet: twofold cloud push, then twofold cloud deploy.")
    overrides = {"command": _arguments(job.options | _kept(job))}
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


def _for_sagemaker(job: Submission) -> dict[str, Any]:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html ."""
    image, role = job.cloud.Image, job.cloud.SageMakerRole
    if not (image and role):
        raise UserError("There is no training image or role yet: twofold cloud push, then twofold cloud deploy.")
    data, output = job.options["data"], job.options["output"]
    parameters = {name: value for name, value in job.options.items() if name != "data"}
    channels = []
    if data.startswith("s3://"):
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
        # The bundle goes to the option output, where it is a bundle; this is where SageMaker packs what is left over.
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


def _kept(job: Submission) -> dict[str, str]:
    """Where unfinished work is kept, so that another machine goes on with it; features are there for every job."""
    if "checkpoint" in job.options:
        return {}
    return {"checkpoint": f"{_bucket(job.options['output'])}/checkpoints"}


def _bucket(uri: str) -> str:
    return "/".join(uri.split("/")[:3])


def _arguments(options: dict[str, str]) -> list[str]:
    return [part for name, value in options.items() for part in (f"--{name}", value)]


ON_DEMAND_USD_PER_H: Final = {
    "g4dn.xlarge": 0.526,
    "g5.xlarge": 1.006,
    "g6.xlarge": 0.805,
    "ml.g4dn.xlarge": 0.736,
    "ml.g5.xlarge": 1.408,
}


@dataclass(frozen=True)
class Quote:
    """What a job can cost at most: the whole of its time limit, on the dearest machine it may be given."""

    instance_types: tuple[str, ...]
    limit_s: int
    machines: int = 1
    spot_usd_per_h: float | None = None  #: of the same machine now, where it can be asked for

    @property
    def usd_per_h(self) -> float | None:
        """Of all machines together, on demand; None where the price of one is not known here."""
        known = [ON_DEMAND_USD_PER_H.get(kind) for kind in self.instance_types]
        prices = [price for price in known if price is not None]
        return max(prices) * self.machines if prices and len(prices) == len(known) else None

    def lines(self) -> list[str]:
        """For a person, before they say yes."""
        hours = self.limit_s / 3600
        said = [f"On {' or '.join(self.instance_types)}, for {hours:.1f} h at most."]
        price = self.usd_per_h
        if price is None:
            said.append("Its price is not known here: see https://aws.amazon.com/ec2/pricing/on-demand/")
            return said
        said.append(f"On demand ${price:.2f} an hour in us-east-1, so ${price * hours:.2f} at most.")
        if self.spot_usd_per_h is not None:
            spot = self.spot_usd_per_h * self.machines
            saved = max(0.0, 1 - spot / price)
            said.append(f"On Spot ${spot:.2f} an hour now, {saved:.0%} less: ${spot * hours:.2f} at most.")
        return said
