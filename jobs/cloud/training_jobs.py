"""Training jobs in the cloud: sending, following and cancelling them on AWS Batch or Amazon SageMaker."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from botocore.exceptions import ClientError

from jobs.cloud.aws import Client
from jobs.cloud.training_request import Target
from jobs.user_error import UserError
from jobs.wording import program

TrainingState = Literal["waiting", "running", "succeeded", "failed", "cancelled"]
ENDED: Final = ("succeeded", "failed", "cancelled")

#: The state of a job by AWS Batch's status.
BATCH_STATES: Final[dict[str, TrainingState]] = {
    "SUBMITTED": "waiting",
    "PENDING": "waiting",
    "RUNNABLE": "waiting",
    "STARTING": "waiting",
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
}
#: A rule of infra/training.yaml begins with the same words.
CANCELLED: Final = "Cancelled by twofold train cancel"

#: The state of a job by SageMaker's status; an InProgress job waits at first.
SAGEMAKER_STATES: Final[dict[str, TrainingState]] = {
    "Completed": "succeeded",
    "Failed": "failed",
    "Stopped": "cancelled",
    "Stopping": "running",
}
#: The values of SecondaryStatus of an InProgress job before the container starts.
_PREPARING: Final = ("Starting", "Pending", "LaunchingMLInstances", "PreparingTrainingStack", "Downloading")
_SAGEMAKER_LOG: Final = "/aws/sagemaker/TrainingJobs"


@dataclass(frozen=True)
class TrainingStatus:
    """What is known about a job."""

    job: str  #: as ``twofold train status`` takes it: ``batch:ID`` or ``sagemaker:NAME``
    state: TrainingState
    reason: str = ""  #: as AWS words it, if it gives one
    log_stream: str = ""
    seconds: float | None = None  #: run time so far, or in total
    billed_s: float | None = None  #: only from SageMaker, which reports what Spot saved

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self.state in ENDED


class TrainingService(Protocol):
    """A service that runs jobs."""

    def send(self, request: dict[str, Any]) -> str:
        """Starts a job and returns its reference."""

    def status(self, identity: str) -> TrainingStatus:
        """Returns the status of a job. Raises UserError if there is no such job."""

    def cancel(self, identity: str) -> None:
        """Ends a job. What it has saved is kept."""

    def log_group(self) -> str:
        """Returns the CloudWatch log group."""


class BatchJobs:
    """AWS Batch. ``log_group`` is the job definition's."""

    def __init__(self, client: Client, *, log_group: str = "/aws/batch/job") -> None:
        self._client = client
        self._log_group = log_group

    def send(self, request: dict[str, Any]) -> str:
        """Calls ``submit_job``."""
        return f"batch:{self._client.submit_job(**request)['jobId']}"

    def status(self, identity: str) -> TrainingStatus:
        """Calls ``describe_jobs``."""
        found = self._client.describe_jobs(jobs=[identity])["jobs"]
        if not found:
            raise UserError(f"AWS Batch has no job {identity}. It forgets jobs a day after they end.")
        job = found[0]
        reason = "; ".join(filter(None, [job.get("statusReason"), job.get("container", {}).get("reason")]))
        state = BATCH_STATES[job["status"]]
        if state == "failed" and CANCELLED in reason:
            state = "cancelled"
        started, stopped = job.get("startedAt"), job.get("stoppedAt")
        return TrainingStatus(
            job=f"batch:{identity}",
            state=state,
            reason=reason,
            log_stream=job.get("container", {}).get("logStreamName", ""),
            seconds=(stopped - started) / 1000 if started and stopped else None,
        )

    def cancel(self, identity: str) -> None:
        """Calls ``terminate_job``, which also cancels a job that is still waiting."""
        self._client.terminate_job(jobId=identity, reason=CANCELLED)

    def log_group(self) -> str:
        """Returns the log group of the job definition."""
        return self._log_group


class SageMakerJobs:
    """Amazon SageMaker."""

    def __init__(self, client: Client, logs: Client) -> None:
        self._client = client
        self._logs = logs

    def send(self, request: dict[str, Any]) -> str:
        """Calls ``create_training_job``."""
        self._client.create_training_job(**request)
        return f"sagemaker:{request['TrainingJobName']}"

    def status(self, identity: str) -> TrainingStatus:
        """Calls ``describe_training_job``."""
        try:
            job = self._client.describe_training_job(TrainingJobName=identity)
        except ClientError as error:
            if re.search("not found|does not exist|Could not find", str(error)):
                raise UserError(f"SageMaker has no job {identity}. Check its name and AWS_REGION.") from error
            raise
        preparing = job.get("SecondaryStatus") in _PREPARING
        state = SAGEMAKER_STATES.get(job["TrainingJobStatus"]) or ("waiting" if preparing else "running")
        return TrainingStatus(
            job=f"sagemaker:{identity}",
            state=state,
            reason=job.get("FailureReason", ""),
            log_stream=self._stream(identity),
            seconds=job.get("TrainingTimeInSeconds"),
            billed_s=job.get("BillableTimeInSeconds"),
        )

    def cancel(self, identity: str) -> None:
        """Calls ``stop_training_job``, which sends SIGTERM and allows two minutes for saving."""
        self._client.stop_training_job(TrainingJobName=identity)

    def log_group(self) -> str:
        """Returns the log group that all SageMaker jobs share."""
        return _SAGEMAKER_LOG

    def _stream(self, identity: str) -> str:
        """Returns the log stream of the first machine, once it exists."""
        try:
            found = self._logs.describe_log_streams(logGroupName=_SAGEMAKER_LOG, logStreamNamePrefix=f"{identity}/")
        except ClientError:
            return ""
        return next((stream["logStreamName"] for stream in found["logStreams"]), "")


def parse_reference(job: str) -> tuple[Target, str]:
    """Splits ``batch:ID`` or ``sagemaker:NAME``. Raises UserError for anything else."""
    target, _, identity = job.partition(":")
    if target == "batch" and identity:
        return "batch", identity
    if target == "sagemaker" and identity:
        return "sagemaker", identity
    raise UserError(f"{job!r} is not a job. Give batch:ID or sagemaker:NAME, as '{program()} train list' shows it.")


def follow(
    service: TrainingService,
    logs: Client,
    job: str,
    *,
    wait: Callable[[], None],
) -> Iterator[str | TrainingStatus]:
    """Yields log lines as they arrive, and the status whenever the state changes. The final status comes last."""
    _, identity = parse_reference(job)
    tokens: dict[str, str | None] = {}  # by log stream: when Batch tries a job again, it writes to another one
    newest, last = "", None
    while True:
        status = service.status(identity)
        # The one before comes first: its last lines may have arrived since.
        for stream in filter(None, dict.fromkeys([newest, status.log_stream])):
            lines, tokens[stream] = _read_log(logs, service.log_group(), stream, tokens.get(stream))
            yield from lines
        newest = status.log_stream or newest
        if status.state != last:
            yield status
            last = status.state
        if status.ended:
            return
        wait()


def _read_log(logs: Client, group: str, stream: str, token: str | None) -> tuple[list[str], str | None]:
    """Returns all lines of a stream since ``token``, and the next token."""
    lines: list[str] = []
    while True:
        more = {"nextToken": token} if token else {}
        try:
            response = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True, **more)
        except ClientError as error:
            if error.response["Error"]["Code"] == "ResourceNotFoundException":
                return lines, token  # nothing has been logged yet
            raise
        lines += [event["message"].rstrip("\n") for event in response["events"]]
        if response["nextForwardToken"] == token or not response["events"]:
            return lines, response["nextForwardToken"]
        token = response["nextForwardToken"]
