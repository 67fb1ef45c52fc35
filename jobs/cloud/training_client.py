"""The training jobs of an account: the stack that runs them, the services, a list of all jobs, and the Spot price."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from jobs.cloud.aws import Client, Connect, explained, open_aws
from jobs.cloud.names import training_stack_name
from jobs.cloud.stack import Stacks
from jobs.cloud.training_jobs import BATCH_STATES, SAGEMAKER_STATES, BatchJobs, SageMakerJobs, TrainingService
from jobs.cloud.training_request import NAME_PREFIX, Target, TrainingStack
from jobs.user_error import UserError

#: Jobs of each service in a list, the newest ones.
_LISTED: Final = 50


@dataclass(frozen=True)
class ListedJob:
    """A job in the list of all."""

    job: str  #: as ``twofold train status`` takes it
    state: str
    created_at: datetime


def find_stack(stack_name: str) -> tuple[TrainingStack, str | None]:
    """Returns what the stack for training runs, and the name of its bucket; both empty if there is no stack."""
    outputs = Stacks(open_aws()("cloudformation")).outputs(training_stack_name(stack_name)) or {}
    return TrainingStack.model_validate(outputs), outputs.get("Bucket")


def open_service(target: Target, *, log_group: str) -> tuple[TrainingService, Client]:
    """Returns the service that runs jobs of this kind, and a client for their logs."""
    connect = open_aws()
    logs = connect("logs")
    if target == "batch":
        return BatchJobs(connect("batch"), log_group=log_group), logs
    return SageMakerJobs(connect("sagemaker"), logs), logs


def all_jobs(connect: Connect, stack: TrainingStack) -> list[ListedJob]:
    """Returns the jobs that ``twofold train submit`` has sent, the newest first.

    AWS Batch forgets a job a day after it ends.
    """
    found = [*_of_sagemaker(connect("sagemaker"))]
    if stack.JobQueue:
        found += _of_batch(connect("batch"), stack.JobQueue)
    return sorted(found, key=lambda job: job.created_at, reverse=True)


def _of_batch(batch: Client, queue: str) -> Iterator[ListedJob]:
    # Without a status, Batch lists only jobs that are running.
    for status, state in BATCH_STATES.items():
        listed = batch.list_jobs(jobQueue=queue, jobStatus=status, maxResults=_LISTED)["jobSummaryList"]
        for job in listed:
            created_at = datetime.fromtimestamp(job["createdAt"] / 1000, UTC)
            yield ListedJob(f"batch:{job['jobId']}", state, created_at)


def _of_sagemaker(sagemaker: Client) -> Iterator[ListedJob]:
    query = {"NameContains": NAME_PREFIX, "SortBy": "CreationTime", "SortOrder": "Descending", "MaxResults": _LISTED}
    for job in sagemaker.list_training_jobs(**query)["TrainingJobSummaries"]:
        state = SAGEMAKER_STATES.get(job["TrainingJobStatus"], "running")
        yield ListedJob(f"sagemaker:{job['TrainingJobName']}", state, job["CreationTime"].astimezone(UTC))


def spot_usd_per_h(types: tuple[str, ...]) -> float | None:
    """Returns the lowest current Spot price of the most expensive type; None if it is not available."""
    history = []
    with suppress(UserError), explained("Reading the Spot prices"):
        query = {"InstanceTypes": list(types), "ProductDescriptions": ["Linux/UNIX"], "MaxResults": 100}
        history = open_aws()("ec2").describe_spot_price_history(**query)["SpotPriceHistory"]
    lowest: dict[str, float] = {}
    for item in history:
        price = float(item["SpotPrice"])
        lowest[item["InstanceType"]] = min(price, lowest.get(item["InstanceType"], price))
    return max(lowest.values(), default=None)
