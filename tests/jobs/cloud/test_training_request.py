"""A training job as a request, pinned by golden files; what botocore and moto say of it; and what a person is told."""

import json
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from botocore.validate import ParamValidator
from moto.server import ThreadedMotoServer

from jobs.cli import main
from jobs.cloud.aws import in_words, next_step
from jobs.cloud.training_jobs import BatchJobs, SageMakerJobs, Status, follow, split_job
from jobs.cloud.training_request import Cloud, Place, Quote, Submission, build_request
from jobs.user_error import UserError

GOLDEN = Path(__file__).parent / "golden"
CLOUD = Cloud(
    JobQueue="arn:aws:batch:us-east-1:123456789012:job-queue/twofold",
    JobDefinition="arn:aws:batch:us-east-1:123456789012:job-definition/twofold:1",
    Image="123456789012.dkr.ecr.us-east-1.amazonaws.com/twofold/train@sha256:" + "0" * 64,
    SageMakerRole="arn:aws:iam::123456789012:role/twofold-sagemaker",
)
OPTIONS = {
    "version": "20261124T090000Z",
    "data": "s3://shelter/datasets/pets/",
    "output": "s3://shelter/models",
    "name": "pets",
    "image-size": "224",
}


def submission(place: Place, **fields: Any) -> Submission:
    known = {"name": "twofold-20261124T090000Z", "options": OPTIONS, "cloud": CLOUD}
    return Submission.model_validate(known | fields | {"place": place})


CASES = {
    "batch": submission("batch"),
    "batch-many-nodes": submission("batch", nodes=2),
    "sagemaker": submission("sagemaker"),
    "sagemaker-on-demand-archive": submission(
        "sagemaker", spot=False, options=OPTIONS | {"data": "https://example.com/pets.zip"}
    ),
    "here": submission("here", options=OPTIONS | {"data": "pets/", "output": "models/"}),
}
OPERATIONS = {"batch": "SubmitJob", "sagemaker": "CreateTrainingJob"}


@pytest.mark.parametrize("case", CASES)
def test_a_request_is_what_the_golden_file_says(case: str) -> None:
    """A change of what is sent is seen, and meant."""
    request = json.loads(json.dumps(build_request(CASES[case])).replace(sys.executable, "python"))
    assert request == json.loads((GOLDEN / f"{case}.json").read_text())


@pytest.mark.parametrize("case", [case for case in CASES if case != "here"])
def test_botocore_finds_the_request_valid(case: str) -> None:
    """Names, types, lengths and required fields, by the service's own model."""
    place = CASES[case].place
    model = botocore.session.get_session().get_service_model(place)
    shape = model.operation_model(OPERATIONS[place]).input_shape
    assert shape
    assert ParamValidator().validate(build_request(CASES[case]), shape).generate_report() == ""


def test_the_request_is_the_same_each_time() -> None:
    """Pure: no clock, no environment, no network."""
    assert build_request(CASES["batch"]) == build_request(CASES["batch"])


@pytest.mark.parametrize(
    ("place", "fields", "said"),
    [
        ("batch", {"cloud": Cloud()}, "no job queue yet: twofold cloud push"),
        ("sagemaker", {"cloud": Cloud()}, "no training image or role yet"),
        ("batch", {"options": OPTIONS | {"data": "pets/"}}, "--data must be an s3:// address"),
        ("sagemaker", {"options": OPTIONS | {"output": "models/"}}, "--output must be an s3:// address"),
    ],
)
def test_what_is_missing_is_told_before_anything_is_sent(place: Place, fields: dict[str, Any], said: str) -> None:
    """With the next step."""
    with pytest.raises(UserError, match=said):
        build_request(submission(place, **fields))


def test_a_job_on_spot_keeps_its_work_where_the_next_machine_finds_it() -> None:
    """On Batch by the option, on SageMaker by its own folder."""
    command = build_request(CASES["batch"])["containerOverrides"]["command"]
    assert command[command.index("--checkpoint") + 1] == "s3://shelter/checkpoints"
    assert build_request(CASES["sagemaker"])["CheckpointConfig"]["S3Uri"].startswith("s3://shelter/checkpoints/")
    limits = build_request(CASES["sagemaker"])["StoppingCondition"]
    assert limits["MaxWaitTimeInSeconds"] >= limits["MaxRuntimeInSeconds"]


@dataclass(frozen=True)
class Account:
    """moto, with a job queue in it; its Batch runs nothing."""

    clients: dict[str, Any]
    cloud: Cloud

    endpoint_url: str

    def jobs(self) -> int:
        """How many were sent to Batch."""
        listed = self.clients["batch"].list_jobs(jobQueue=self.cloud.JobQueue, jobStatus="SUCCEEDED")
        return len(listed["jobSummaryList"])


@pytest.fixture(scope="module")
def built_account() -> Iterator[Account]:
    """A moto of this module's own: its Batch is told to run no containers, and ends each job at once, well."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    told = json.dumps({"batch": {"use_docker": False}}).encode()
    urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/config", data=told, method="POST"))
    session: Any = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")
    clients = {name: session.client(name, endpoint_url=url) for name in ("batch", "sagemaker", "logs", "iam")}
    role = clients["iam"].create_role(RoleName="machines", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    machines = clients["batch"].create_compute_environment(
        computeEnvironmentName="machines", type="UNMANAGED", state="ENABLED", serviceRole=role
    )
    order = [{"order": 1, "computeEnvironment": machines["computeEnvironmentArn"]}]
    queue = clients["batch"].create_job_queue(
        jobQueueName="jobs", state="ENABLED", priority=1, computeEnvironmentOrder=order
    )
    container = {"image": "train", "vcpus": 1, "memory": 128, "command": ["--help"]}
    definition = clients["batch"].register_job_definition(
        jobDefinitionName="train", type="container", containerProperties=container
    )
    arns = {"JobQueue": queue["jobQueueArn"], "JobDefinition": definition["jobDefinitionArn"]}
    yield Account(clients, CLOUD.model_copy(update=arns), url)
    server.stop()


@pytest.fixture
def account(built_account: Account, monkeypatch: pytest.MonkeyPatch) -> Account:
    """The account, and an environment that leads to it."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    environment = {"AWS_ENDPOINT_URL": built_account.endpoint_url, "AWS_REGION": "us-east-1"}
    for name, value in (environment | {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}).items():
        monkeypatch.setenv(name, value)
    return built_account


def test_batch_takes_the_request_and_the_job_is_followed_to_its_end(account: Account) -> None:
    """Sent, looked at, and its state told once each time it changes."""
    remote = BatchJobs(account.clients["batch"])
    job = remote.send(build_request(submission("batch", cloud=account.cloud)))
    assert job.startswith("batch:")
    told = list(follow(remote, account.clients["logs"], job, wait=lambda: None))
    states = [status.state for status in told if isinstance(status, Status)]
    assert states[-1] == "succeeded"
    assert len(states) == len(set(states))


def test_sagemaker_takes_the_request_and_tells_how_the_job_stands(account: Account) -> None:
    """And where it failed or was stopped."""
    remote = SageMakerJobs(account.clients["sagemaker"], account.clients["logs"])
    job = remote.send(build_request(submission("sagemaker")))
    assert job == "sagemaker:twofold-20261124T090000Z"
    status = remote.status("twofold-20261124T090000Z")
    assert (status.job, status.state) == (job, "succeeded")
    with pytest.raises(UserError, match="knows no job"):
        remote.status("another")


def test_a_job_that_batch_does_not_know_is_told_as_that(account: Account) -> None:
    """It forgets them after a day."""
    with pytest.raises(UserError, match="knows no job"):
        BatchJobs(account.clients["batch"]).status("none")


@dataclass
class Scripted:
    """A job whose states are known beforehand."""

    statuses: list[Status]

    def send(self, request: dict[str, Any]) -> str:
        return "batch:1"

    def status(self, identity: str) -> Status:
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]

    def cancel(self, identity: str) -> None:
        pass

    def log_group(self) -> str:
        return "jobs"


def test_every_line_of_the_log_comes_once_and_in_order_until_the_end(account: Account) -> None:
    """Those that were written before anybody looked, and those that come while the job runs."""
    logs = account.clients["logs"]
    logs.create_log_group(logGroupName="jobs")
    logs.create_log_stream(logGroupName="jobs", logStreamName="s")
    written = iter(range(100))

    def write() -> None:
        events = [{"timestamp": 1_795_000_000_000 + n, "message": f"line {n}"} for n in (next(written), next(written))]
        logs.put_log_events(logGroupName="jobs", logStreamName="s", logEvents=events)

    write()
    running, ended = Status("batch:1", "running", log_stream="s"), Status("batch:1", "failed", log_stream="s")
    remote = Scripted([Status("batch:1", "waiting"), running, running, ended])
    told = list(follow(remote, logs, "batch:1", wait=write))
    assert [line for line in told if isinstance(line, str)] == [f"line {n}" for n in range(8)]
    assert [status.state for status in told if isinstance(status, Status)] == ["waiting", "running", "failed"]


def test_a_job_that_has_written_no_line_yet_has_no_log(account: Account) -> None:
    """CloudWatch knows no such group or stream, which is no error."""
    remote = Scripted([Status("batch:1", "succeeded", log_stream="never")])
    assert [type(told) for told in follow(remote, account.clients["logs"], "batch:1", wait=lambda: None)] == [Status]


def _command(account: Account, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The command as typed, with what the stack would tell."""
    monkeypatch.setattr("jobs.commands.train_remote._POLL_S", 0.01)
    monkeypatch.setattr("jobs.commands.train_remote._cloud", lambda *_: account.cloud)
    try:
        return main(["train", *arguments])
    except SystemExit as left:
        return int(left.code or 0)


SUBMIT = ("submit", "--data", "s3://shelter/datasets/pets/", "--output", "s3://shelter/models", "--name", "pets")


def test_a_dry_run_prints_the_request_and_sends_nothing(
    account: Account, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options that submit does not know are those of the job."""
    sent = account.jobs()
    assert _command(account, monkeypatch, *SUBMIT, "--image-size=224", "--dry-run") == 0
    command = json.loads(capsys.readouterr().out)["containerOverrides"]["command"]
    assert command[command.index("--image-size") + 1] == "224"
    assert account.jobs() == sent


def test_price_and_limit_are_told_and_a_no_sends_nothing(
    account: Account, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody is surprised by a bill."""
    sent = account.jobs()
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    assert _command(account, monkeypatch, *SUBMIT, "--limit", "2") == 1
    said = capsys.readouterr().err
    assert "for 2.0 h at most" in said
    assert "On demand $1.01 an hour" in said
    assert "Nothing was sent." in said
    assert account.jobs() == sent


def test_with_yes_the_job_is_sent_followed_and_its_model_named(
    account: Account, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a script reads it; exit status 0 says that it succeeded."""
    assert _command(account, monkeypatch, *SUBMIT, "--yes", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["bundle"].startswith("s3://shelter/models/pets/20")
    assert _command(account, monkeypatch, "status", told["job"], "--json") == 0
    assert json.loads(capsys.readouterr().out)["state"] == "succeeded"
    assert _command(account, monkeypatch, "logs", told["job"]) == 0


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ((*SUBMIT, "--image-size", "100"), 2, "image_size"),
        ((*SUBMIT, "--image-sice", "224"), 2, "image_sice"),
        ((*SUBMIT, "--on", "azure"), 2, "batch, sagemaker, here"),
        (("status", "pets"), 1, "give batch:ID or sagemaker:NAME"),
        (("cancel", "batch:"), 1, "give batch:ID or sagemaker:NAME"),
    ],
)
def test_a_wrong_option_is_told_here_and_not_when_a_machine_has_started(
    account: Account,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    status: int,
    said: str,
) -> None:
    """In words, and with the exit status of a wrong option."""
    assert _command(account, monkeypatch, *arguments) == status
    assert said in capsys.readouterr().err


def test_without_a_stack_the_next_step_is_told(
    account: Account, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stack is asked for its queue, and there is none."""
    assert main(["train", *SUBMIT, "--dry-run"]) == 1
    assert "twofold cloud push, then twofold cloud deploy" in capsys.readouterr().err


def _error(code: str, message: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "Operation")


@pytest.mark.parametrize(
    ("error", "step"),
    [
        (_error("ResourceLimitExceeded", "The account-level service limit 'ml.g5.xlarge for training' is 0"), "Quotas"),
        (_error("ClientException", "Job queue arn:… does not exist"), "twofold cloud deploy"),
        (_error("ClientException", "JobDefinition twofold:3 not found"), "twofold cloud deploy"),
        (_error("ValidationException", "Could not assume role arn:aws:iam::1:role/x"), "A role is missing"),
        (_error("RepositoryNotFoundException", "no repository"), "twofold cloud push"),
        (_error("AccessDeniedException", "User: x is not authorized to perform: batch:SubmitJob"), "lacks this right"),
        (_error("ExpiredToken", "The security token included in the request is expired"), "aws sso login"),
        (_error("ThrottlingException", "Rate exceeded"), "try again in a minute"),
        (_error("ResourceInUse", "Training job names must be unique"), "another --name"),
        (NoCredentialsError(), "aws configure sso"),
        (EndpointConnectionError(endpoint_url="https://batch.mars-1.amazonaws.com"), "Is the region right"),
    ],
)
def test_an_error_of_aws_is_told_in_words_with_the_next_step(error: Any, step: str) -> None:
    """What was tried, what AWS said, and what to do."""
    said = str(in_words(error, "Submitting the job"))
    assert said.startswith("Submitting the job")
    assert step in said


@pytest.mark.parametrize(
    ("reason", "step"),
    [
        ("CannotPullContainerError: manifest unknown", "twofold cloud push"),
        ("Host EC2 (instance i-0abc) terminated.", "Spot took the machine back"),
        ("OutOfMemoryError: Container killed due to memory usage", "a smaller --image-size"),
        ("MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT", "MaximumVcpus"),
        ("CapacityError: Unable to provision requested ML compute capacity", "try later"),
    ],
)
def test_the_reason_of_a_failed_job_has_a_next_step_too(reason: str, step: str) -> None:
    """As AWS Batch and SageMaker word it."""
    assert step in (next_step(reason) or "")


def test_what_a_job_can_cost_at_most_is_limit_times_the_dearest_machine() -> None:
    """And what Spot takes off it."""
    quote = Quote(("g4dn.xlarge", "g5.xlarge"), limit_s=7200, spot_usd_per_h=0.503)
    assert quote.lines() == [
        "On g4dn.xlarge or g5.xlarge, for 2.0 h at most.",
        "On demand $1.01 an hour in us-east-1, so $2.01 at most.",
        "On Spot $0.50 an hour now, 50% less: $1.01 at most.",
    ]
    assert Quote(("g5.xlarge", "p5.48xlarge"), limit_s=3600).usd_per_h is None


@pytest.mark.parametrize("job", ["", "pets", "batch:", "here:1", "sagemaker"])
def test_what_is_no_job_is_refused(job: str) -> None:
    """As submit prints it, and no other way."""
    with pytest.raises(UserError, match="is no job"):
        split_job(job)
