"""Jobs that run elsewhere: sent, looked at, followed, ended. The same questions to AWS Batch and to SageMaker."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from botocore.exceptions import ClientError

from jobs.cloud.aws import Client
from jobs.cloud.training_request import Place
from jobs.user_error import UserError

State = Literal["waiting", "running", "succeeded", "failed", "cancelled"]
ENDED: Final = ("succeeded", "failed", "cancelled")
_SAGEMAKER_LOG: Final = "/aws/sagemaker/TrainingJobs"


@dataclass(frozen=True)
class Status:
    """A job, as far as it is known."""

    job: str  #: as ``twofold train status`` takes it: ``batch:ID`` or ``sagemaker:NAME``
    state: State
    reason: str = ""  #: AWS's own words, where there are any
    log_stream: str = ""
    seconds: float | None = None  #: run so far, or in all
    billed_s: float | None = None  #: SageMaker tells what Spot saved

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ENDED


class Remote(Protocol):
    """A place where jobs run."""

    def send(self, request: dict[str, Any]) -> str:
        """Starts a job; returns its reference."""

    def status(self, identity: str) -> Status:
        """Raises UserError where there is no such job."""

    def cancel(self, identity: str) -> None:
        """Ends it. What it has saved stays."""

    def log_group(self) -> str:
        """Of CloudWatch."""


_BATCH_STATES: Final[dict[str, State]] = {
    "SUBMITTED": "waiting",
    "PENDING": "waiting",
    "RUNNABLE": "waiting",
    "STARTING": "waiting",
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
}
_CANCELLED: Final = "Cancelled by twofold train cancel"


class BatchJobs:
    """AWS Batch. ``log_group`` is the job definition's."""

    def __init__(self, client: Client, *, log_group: str = "/aws/batch/job") -> None:
        self._client = client
        self._log_group = log_group

    def send(self, request: dict[str, Any]) -> str:
        """``submit_job``."""
        return f"batch:{self._client.submit_job(**request)['jobId']}"

    def status(self, identity: str) -> Status:
        """``describe_jobs``."""
        found = self._client.describe_jobs(jobs=[identity])["jobs"]
        if not found:
            raise UserError(f"AWS Batch knows no job {identity}: it forgets those that ended over a day ago.")
        job = found[0]
        reason = "; ".join(filter(None, [job.get("statusReason"), job.get("container", {}).get("reason")]))
        state = _BATCH_STATES[job["status"]]
        if state == "failed" and _CANCELLED in reason:
            state = "cancelled"
        started, stopped = job.get("startedAt"), job.get("stoppedAt")
        return Status(
            job=f"batch:{identity}",
            state=state,
            reason=reason,
            log_stream=job.get("container", {}).get("logStreamName", ""),
            seconds=(stopped - started) / 1000 if started and stopped else None,
        )

    def cancel(self, identity: str) -> None:
        """``terminate_job``, which cancels one that waits too."""
        self._client.terminate_job(jobId=identity, reason=_CANCELLED)

    def log_group(self) -> str:
        """The job definition's."""
        return self._log_group


_SAGEMAKER_STATES: Final[dict[str, State]] = {
    "Completed": "succeeded",
    "Failed": "failed",
    "Stopped": "cancelled",
    "Stopping": "running",
}
#: Of an InProgress job, as SecondaryStatus has it, those in which nothing of ours runs yet.
_PREPARING: Final = ("Starting", "Pending", "LaunchingMLInstances", "PreparingTrainingStack", "Downloading")


class SageMakerJobs:
    """Amazon SageMaker."""

    def __init__(self, client: Client, logs: Client) -> None:
        self._client = client
        self._logs = logs

    def send(self, request: dict[str, Any]) -> str:
        """``create_training_job``."""
        self._client.create_training_job(**request)
        return f"sagemaker:{request['TrainingJobName']}"

    def status(self, identity: str) -> Status:
        """``describe_training_job``."""
        try:
            job = self._client.describe_training_job(TrainingJobName=identity)
        except ClientError as error:
            if re.search("not found|does not exist|Could not find", str(error)):
                raise UserError(f"SageMaker knows no job {identity} in this region.") from error
            raise
        preparing = job.get("SecondaryStatus") in _PREPARING
        state = _SAGEMAKER_STATES.get(job["TrainingJobStatus"]) or ("waiting" if preparing else "running")
        return Status(
            job=f"sagemaker:{identity}",
            state=state,
            reason=job.get("FailureReason", ""),
            log_stream=self._stream(identity),
            seconds=job.get("TrainingTimeInSeconds"),
            billed_s=job.get("BillableTimeInSeconds"),
        )

    def cancel(self, identity: str) -> None:
        """``stop_training_job``: SIGTERM, and two minutes to save."""
        self._client.stop_training_job(TrainingJobName=identity)

    def log_group(self) -> str:
        """Always the same."""
        return _SAGEMAKER_LOG

    def _stream(self, identity: str) -> str:
        """The first machine's, once it has written a line."""
        try:
            found = self._logs.describe_log_streams(logGroupName=_SAGEMAKER_LOG, logStreamNamePrefix=f"{identity}/")
        except ClientError:
            return ""
        return next((stream["logStreamName"] for stream in found["logStreams"]), "")


def split_job(job: str) -> tuple[Place, str]:
    """``batch:ID`` or ``sagemaker:NAME`` to the place and the rest. Raises UserError for anything else."""
    place, _, identity = job.partition(":")
    if place == "batch" and identity:
        return "batch", identity
    if place == "sagemaker" and identity:
        return "sagemaker", identity
    raise UserError(f"{job!r} is no job: give batch:ID or sagemaker:NAME, as twofold train submit printed it.")


def follow(
    remote: Remote,
    logs: Client,
    job: str,
    *,
    wait: Callable[[], None],
) -> Iterator[str | Status]:
    """Lines of the log as they come, a Status each time the state changes, and the last Status at the end."""
    _, identity = split_job(job)
    token, last = None, None
    while True:
        status = remote.status(identity)
        lines, token = _read(logs, remote.log_group(), status.log_stream, token)
        yield from lines
        if status.state != last:
            yield status
            last = status.state
        if status.ended:
            return
        wait()


def _read(logs: Client, group: str, stream: str, token: str | None) -> tuple[list[str], str | None]:
    """All lines since ``token``, and the next token; another stream, after a retry, starts at its beginning."""
    if not stream:
        return [], token
    lines: list[str] = []
    while True:
        more = {"nextToken": token} if token else {}
        try:
            answer = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True, **more)
        except ClientError as error:
            if error.response["Error"]["Code"] == "ResourceNotFoundException":
                return lines, token  # not a line yet
            raise
        lines += [event["message"].rstrip("\n") for event in answer["events"]]
        if answer["nextForwardToken"] == token or not answer["events"]:
            return lines, answer["nextForwardToken"]
        token = answer["nextForwardToken"]
