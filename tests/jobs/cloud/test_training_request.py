"""Training jobs in the cloud: the request, pinned by golden files, and the commands that send and follow it."""

import json
import os
import re
import signal
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from botocore.validate import ParamValidator
from moto.server import ThreadedMotoServer

from jobs.cli import main
from jobs.cloud.aws import as_user_error, next_step
from jobs.cloud.names import PUSH_AND_DEPLOY
from jobs.cloud.training_jobs import BatchJobs, SageMakerJobs, TrainingStatus, follow, parse_reference
from jobs.cloud.training_request import Quote, Target, TrainingJob, TrainingStack, build_request
from jobs.config import TrainConfig
from jobs.user_error import UserError
from tests.conftest import Trainer

GOLDEN = Path(__file__).parent / "golden"
STACK = TrainingStack(
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


def training_job(target: Target, **fields: Any) -> TrainingJob:
    known = {"name": "twofold-20261124T090000Z", "options": OPTIONS, "stack": STACK}
    return TrainingJob.model_validate(known | fields | {"target": target})


CASES = {
    "batch": training_job("batch"),
    "batch-many-nodes": training_job("batch", nodes=2),
    "sagemaker": training_job("sagemaker"),
    "sagemaker-on-demand-archive": training_job(
        "sagemaker", spot=False, options=OPTIONS | {"data": "https://example.com/pets.zip"}
    ),
    "here": training_job("here", options=OPTIONS | {"data": "pets/", "output": "models/"}),
}
OPERATIONS = {"batch": "SubmitJob", "sagemaker": "CreateTrainingJob"}


@pytest.mark.parametrize("case", CASES)
def test_a_request_matches_its_golden_file(case: str) -> None:
    """What is sent never changes by accident."""
    request = json.loads(json.dumps(build_request(CASES[case])).replace(sys.executable, "python"))
    assert request == json.loads((GOLDEN / f"{case}.json").read_text())


@pytest.mark.parametrize("case", [case for case in CASES if case != "here"])
def test_botocore_accepts_the_request(case: str) -> None:
    """The service's own model checks names, types, lengths and required fields."""
    target = CASES[case].target
    model = botocore.session.get_session().get_service_model(target)
    shape = model.operation_model(OPERATIONS[target]).input_shape
    assert shape
    assert ParamValidator().validate(build_request(CASES[case]), shape).generate_report() == ""


def test_building_a_request_is_pure() -> None:
    """It uses no clock, no environment and no network."""
    assert build_request(CASES["batch"]) == build_request(CASES["batch"])


@pytest.mark.parametrize(
    ("target", "fields", "message"),
    [
        pytest.param(
            "batch", {"stack": TrainingStack()}, r"no job queue yet\. Run '.*twofold cloud push'", id="no job queue"
        ),
        pytest.param(
            "sagemaker",
            {"stack": TrainingStack()},
            r"no training image or role yet\. Run '.*twofold cloud push'",
            id="no image",
        ),
        pytest.param("batch", {"options": OPTIONS | {"data": "pets/"}}, "--data must be an s3:// URI", id="local data"),
        pytest.param(
            "sagemaker",
            {"options": OPTIONS | {"output": "models/"}},
            "--output must be an s3:// URI",
            id="local output",
        ),
    ],
)
def test_anything_missing_is_reported_before_the_request_is_sent(
    target: Target, fields: dict[str, Any], message: str
) -> None:
    """With the next step."""
    with pytest.raises(UserError, match=message):
        build_request(training_job(target, **fields))


def test_a_spot_job_saves_its_work_where_the_next_machine_finds_it() -> None:
    """On Batch through an option, on SageMaker through its checkpoint folder."""
    command = build_request(CASES["batch"])["containerOverrides"]["command"]
    assert command[command.index("--checkpoint") + 1] == "s3://shelter/checkpoints"
    assert build_request(CASES["sagemaker"])["CheckpointConfig"]["S3Uri"].startswith("s3://shelter/checkpoints/")
    limits = build_request(CASES["sagemaker"])["StoppingCondition"]
    assert limits["MaxWaitTimeInSeconds"] >= limits["MaxRuntimeInSeconds"]


@dataclass(frozen=True)
class Account:
    """A moto server with a job queue. Its Batch runs nothing."""

    clients: dict[str, Any]
    stack: TrainingStack
    endpoint_url: str

    def jobs(self) -> int:
        """Counts the jobs that were sent to Batch."""
        listed = self.clients["batch"].list_jobs(jobQueue=self.stack.JobQueue, jobStatus="SUCCEEDED")
        return len(listed["jobSummaryList"])


@pytest.fixture(scope="module")
def built_account() -> Iterator[Account]:
    """A separate moto server. Its Batch starts no containers, and every job succeeds at once."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    config = json.dumps({"batch": {"use_docker": False}}).encode()
    urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/config", data=config, method="POST"))
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
    yield Account(clients, STACK.model_copy(update=arns), url)
    server.stop()


@pytest.fixture
def account(built_account: Account, monkeypatch: pytest.MonkeyPatch) -> Account:
    """The account, with the environment that connects to it."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    environment = {"AWS_ENDPOINT_URL": built_account.endpoint_url, "AWS_REGION": "us-east-1"}
    for name, value in (environment | {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}).items():
        monkeypatch.setenv(name, value)
    return built_account


def test_a_batch_job_is_sent_and_followed_to_its_end(account: Account) -> None:
    """Each state is reported once."""
    service = BatchJobs(account.clients["batch"])
    job = service.send(build_request(training_job("batch", stack=account.stack)))
    assert job.startswith("batch:")
    events = list(follow(service, account.clients["logs"], job, wait=lambda: None))
    states = [event.state for event in events if isinstance(event, TrainingStatus)]
    assert states[-1] == "succeeded"
    assert len(states) == len(set(states))


def test_a_sagemaker_job_is_sent_and_its_status_read(account: Account) -> None:
    """A job that does not exist is an error."""
    service = SageMakerJobs(account.clients["sagemaker"], account.clients["logs"])
    job = service.send(build_request(training_job("sagemaker")))
    assert job == "sagemaker:twofold-20261124T090000Z"
    status = service.status("twofold-20261124T090000Z")
    assert (status.job, status.state) == (job, "succeeded")
    with pytest.raises(UserError, match="has no job another"):
        service.status("another")


def test_a_job_that_batch_has_forgotten_is_reported(account: Account) -> None:
    """Batch forgets jobs a day after they end."""
    with pytest.raises(UserError, match="has no job none"):
        BatchJobs(account.clients["batch"]).status("none")


@dataclass
class Scripted:
    """A service with one job that goes through the given states."""

    statuses: list[TrainingStatus]

    def send(self, request: dict[str, Any]) -> str:
        return "batch:1"

    def status(self, identity: str) -> TrainingStatus:
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]

    def cancel(self, identity: str) -> None:
        pass

    def log_group(self) -> str:
        return "jobs"


def test_every_log_line_is_printed_once_and_in_order(account: Account) -> None:
    """Lines from before the command started, and lines that arrive while the job runs."""
    logs = account.clients["logs"]
    logs.create_log_group(logGroupName="jobs")
    logs.create_log_stream(logGroupName="jobs", logStreamName="s")
    written = iter(range(100))

    def write() -> None:
        events = [{"timestamp": 1_795_000_000_000 + n, "message": f"line {n}"} for n in (next(written), next(written))]
        logs.put_log_events(logGroupName="jobs", logStreamName="s", logEvents=events)

    write()
    waiting = TrainingStatus("batch:1", "waiting")
    running = TrainingStatus("batch:1", "running", log_stream="s")
    ended = TrainingStatus("batch:1", "failed", log_stream="s")
    events = list(follow(Scripted([waiting, running, running, ended]), logs, "batch:1", wait=write))
    assert [line for line in events if isinstance(line, str)] == [f"line {n}" for n in range(8)]
    states = [event.state for event in events if isinstance(event, TrainingStatus)]
    assert states == ["waiting", "running", "failed"]


def test_a_job_that_is_tried_again_is_followed_in_its_new_log(account: Account) -> None:
    """Batch gives each attempt a stream of its own, whose first lines must not be skipped, nor the old one's last."""
    logs = account.clients["logs"]
    logs.create_log_group(logGroupName="attempts")

    def write(stream: str, *lines: str) -> None:
        events = [{"timestamp": 1_795_000_000_000, "message": line} for line in lines]
        logs.put_log_events(logGroupName="attempts", logStreamName=stream, logEvents=events)

    def steps() -> Iterator[None]:
        logs.create_log_stream(logGroupName="attempts", logStreamName="first")
        write("first", "one", "two")
        yield  # the first attempt is read, then the machine is taken away
        write("first", "interrupted")
        yield  # it waits for another machine
        logs.create_log_stream(logGroupName="attempts", logStreamName="second")
        write("second", "three")
        write("first", "late")
        yield
        write("second", "four")
        yield

    @dataclass
    class Attempts(Scripted):
        def log_group(self) -> str:
            return "attempts"

    step = steps()
    next(step)
    states = [
        TrainingStatus("batch:1", "running", log_stream="first"),
        TrainingStatus("batch:1", "waiting"),
        TrainingStatus("batch:1", "running", log_stream="second"),
        TrainingStatus("batch:1", "succeeded", log_stream="second"),
    ]
    events = list(follow(Attempts(states), logs, "batch:1", wait=lambda: next(step)))
    lines = [event for event in events if isinstance(event, str)]
    assert lines == ["one", "two", "interrupted", "late", "three", "four"]


def test_a_job_without_log_lines_is_not_an_error(account: Account) -> None:
    """CloudWatch has no such group or stream until the first line is written."""
    status = TrainingStatus("batch:1", "succeeded", log_stream="never")
    events = follow(Scripted([status]), account.clients["logs"], "batch:1", wait=lambda: None)
    assert list(events) == [status]


def _command(account: Account, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Runs the command with the outputs that the stack would have, and returns its exit status."""
    monkeypatch.setattr("jobs.commands.train_remote._POLL_S", 0.01)
    monkeypatch.setattr("jobs.cloud.training_client.find_stack", lambda _: (account.stack, None))
    try:
        return main(["train", *arguments])
    except SystemExit as ended:
        return int(ended.code or 0)


SUBMIT = ("submit", "--data", "s3://shelter/datasets/pets/", "--output", "s3://shelter/models", "--name", "pets")


def test_a_dry_run_prints_the_request_and_sends_nothing(
    account: Account, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options that submit does not have belong to the job."""
    sent = account.jobs()
    assert _command(account, monkeypatch, *SUBMIT, "--image-size=224", "--dry-run") == 0
    command = json.loads(capsys.readouterr().out)["containerOverrides"]["command"]
    assert command[command.index("--image-size") + 1] == "224"
    assert account.jobs() == sent


def test_the_price_and_the_limit_are_shown_and_answering_no_sends_nothing(
    account: Account, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bill must not be a surprise."""
    sent = account.jobs()
    monkeypatch.setattr("jobs.commands.train_remote.confirm", lambda *_, **__: False)
    assert _command(account, monkeypatch, *SUBMIT, "--limit", "2") == 1
    printed = capsys.readouterr().err
    assert "for 2.0 h at most" in printed
    assert "On demand $1.01 an hour" in printed
    assert "That is one attempt." in printed
    assert "Nothing was sent." in printed
    assert account.jobs() == sent


def test_with_yes_the_job_is_sent_and_followed_and_its_bundle_named(
    account: Account, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In JSON for scripts. Exit status 0 means that the job succeeded."""
    assert _command(account, monkeypatch, *SUBMIT, "--yes", "--json") == 0
    sent = json.loads(capsys.readouterr().out)
    assert sent["bundle"].startswith("s3://shelter/models/pets/20")
    assert _command(account, monkeypatch, "status", sent["job"], "--json") == 0
    assert json.loads(capsys.readouterr().out)["state"] == "succeeded"
    assert _command(account, monkeypatch, "logs", sent["job"]) == 0


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        pytest.param((*SUBMIT, "--image-size", "100"), 2, "use 96 or 128", id="impossible value"),
        pytest.param((*SUBMIT, "--image-sice", "224"), 2, "--image-size", id="misspelt option"),
        pytest.param(
            (*SUBMIT, "--on", "azure"), 2, "must be batch, sagemaker or here, not 'azure'", id="unknown target"
        ),
        pytest.param(("status", "pets"), 1, "Give batch:ID or sagemaker:NAME", id="not a reference"),
        pytest.param(("cancel", "batch:"), 1, "Give batch:ID or sagemaker:NAME", id="reference without an ID"),
    ],
)
def test_a_wrong_option_is_reported_before_a_machine_starts(
    account: Account,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    status: int,
    message: str,
) -> None:
    """The exit status is that of a wrong option."""
    assert _command(account, monkeypatch, *arguments) == status
    assert message in capsys.readouterr().err


def test_without_a_stack_the_error_says_how_to_deploy_one(
    account: Account, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The job queue is an output of the stack."""
    assert main(["train", *SUBMIT, "--yes"]) == 1
    assert f"There is no job queue yet. {PUSH_AND_DEPLOY}" in capsys.readouterr().err


def _without_an_account(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(folder / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.mark.parametrize("target", ["batch", "sagemaker"])
def test_a_dry_run_needs_no_account(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The names of what a stack would have are in capitals, and the reason is on standard error."""
    _without_an_account(monkeypatch, tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["train", "submit", "--on", target, "--data", "s3://shelter/pets/", "--image-size", "224", "--dry-run"])
    assert ended.value.code == 0
    printed = capsys.readouterr()
    assert re.search(r'"(jobQueue|TrainingImage)": "(JOB_QUEUE|IMAGE)"', printed.out)
    assert "224" in printed.out
    assert printed.err.startswith("The names in capitals, and s3://bucket, stand for what is not there yet. ")
    assert "AWS_REGION" in printed.err


def test_an_account_without_a_stack_is_enough_for_a_dry_run(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which says how to create the stack."""
    with pytest.raises(SystemExit) as ended:
        main(["train", *SUBMIT, "--dry-run"])
    printed = capsys.readouterr()
    assert (ended.value.code, json.loads(printed.out)["jobQueue"]) == (0, "JOB_QUEUE")
    assert PUSH_AND_DEPLOY in printed.err


def test_submit_lists_all_options_that_it_passes_on(capsys: pytest.CaptureFixture[str]) -> None:
    """In a group of their own, since they are those of ``train run``."""
    with pytest.raises(SystemExit):
        main(["train", "submit", "--help"])
    own, _, through = capsys.readouterr().out.partition("Options of 'train run', which are passed on:")
    options = {f"--{name.replace('_', '-')}" for name in TrainConfig.model_fields}
    assert options <= set(re.findall(r"--[a-z0-9-]+", own + through))
    assert "--fine-tune INTEGER" in through


def test_every_option_of_training_is_passed_on(
    account: Account, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it was given, before or after the options of submit."""
    given = ("--seed", "7", "--threshold", "recall>=0.99", "--l2=0.5")
    assert _command(account, monkeypatch, "submit", *given[:2], *SUBMIT[1:], *given[2:], "--dry-run") == 0
    command = json.loads(capsys.readouterr().out)["containerOverrides"]["command"]
    pairs = dict(zip(command[::2], command[1::2], strict=True))
    assert (pairs["--seed"], pairs["--threshold"], pairs["--l2"]) == ("7", "recall>=0.99", "0.5")
    assert "--augment" not in pairs


def test_the_jobs_of_both_services_are_listed(
    account: Account, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the names that the other commands take, the newest first."""
    sent = [BatchJobs(account.clients["batch"]).send(build_request(training_job("batch", stack=account.stack)))]
    listed = SageMakerJobs(account.clients["sagemaker"], account.clients["logs"])
    sent.append(listed.send(build_request(training_job("sagemaker", name="twofold-20261124T100000Z"))))
    assert _command(account, monkeypatch, "list", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert set(sent) <= {row["job"] for row in rows}
    assert [row["created_at"] for row in rows] == sorted((row["created_at"] for row in rows), reverse=True)
    assert _command(account, monkeypatch, "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[-1] for line in lines} == {row["job"] for row in rows}
    assert max(map(len, lines)) <= 80


def test_a_detached_job_on_this_machine_goes_on_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command returns at once, and says how to follow the job and how to stop it."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["train", "submit", "--on", "here", "--data", "pets", "--output", "models", "--detach", "--json"])
    started = json.loads(capsys.readouterr().out)
    assert (ended.value.code, started["bundle"].startswith("models/model/20")) == (0, True)
    assert os.getsid(started["process"]) == started["process"]  # closing the terminal does not reach it
    os.kill(started["process"], signal.SIGKILL)
    os.waitpid(started["process"], 0)
    assert Path(started["log"]).parent == tmp_path


@pytest.mark.slow
def test_a_job_on_this_machine_ends_with_its_command_and_the_same_command_resumes_it(
    trainer: Trainer, few_digits: Path, tmp_path: Path
) -> None:
    """Without ``--detach`` the job is this process. It says to run the same command again."""
    places = (f"--data={few_digits}", f"--output={tmp_path}/models", f"--cache={tmp_path}/cache")
    command = ("train", "submit", "--on", "here", *places, "--image-size=32")
    interrupted = trainer.start(*command)
    interrupted.wait_for("✓ Training the head")
    os.kill(interrupted.pid, signal.SIGHUP)
    assert interrupted.wait() == 128 + signal.SIGHUP
    resumed = trainer.start(*command)
    assert resumed.wait() == 0, resumed.stderr
    assert "resuming version" in resumed.stderr


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
        (
            _error("AccessDeniedException", "User: x is not authorized to perform: batch:SubmitJob"),
            "lacks this permission",
        ),
        (_error("ExpiredToken", "The security token included in the request is expired"), "aws sso login"),
        (_error("ThrottlingException", "Rate exceeded"), "Try again in a minute"),
        (_error("ResourceInUse", "Training job names must be unique"), "another --name"),
        (NoCredentialsError(), "aws configure sso"),
        (EndpointConnectionError(endpoint_url="https://batch.mars-1.amazonaws.com"), "Check the region"),
    ],
)
def test_an_aws_error_becomes_a_message_with_the_next_step(error: Any, step: str) -> None:
    """It says what was tried, what AWS answered, and what to do."""
    message = str(as_user_error(error, "Submitting the job"))
    assert message.startswith("Submitting the job")
    assert step in message


@pytest.mark.parametrize(
    ("reason", "step"),
    [
        ("CannotPullContainerError: manifest unknown", "twofold cloud push"),
        ("Host EC2 (instance i-0abc) terminated.", "Spot took the machine back"),
        ("OutOfMemoryError: Container killed due to memory usage", "a smaller --image-size"),
        ("MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT", "MaximumVcpus"),
        ("CapacityError: Unable to provision requested ML compute capacity", "Try again later"),
    ],
)
def test_the_reason_for_a_failed_job_has_a_next_step(reason: str, step: str) -> None:
    """The reasons are worded as AWS Batch and SageMaker word them."""
    assert step in (next_step(reason) or "")


def test_the_highest_cost_is_the_limit_times_the_most_expensive_machine() -> None:
    """The quote also says how much Spot saves."""
    quote = Quote(("g4dn.xlarge", "g5.xlarge"), limit_s=7200, spot_usd_per_h=0.503)
    assert quote.lines() == [
        "On g4dn.xlarge or g5.xlarge, for 2.0 h at most.",
        "On demand $1.01 an hour in us-east-1, so $2.01 at most.",
        "On Spot $0.50 an hour now, 50% less: $1.01 at most.",
    ]
    assert Quote(("g5.xlarge", "p5.48xlarge"), limit_s=3600).usd_per_h is None
    again = "That is one attempt. If its machine is taken back, another goes on: up to 10 in all."
    assert replace(quote, attempts=10).lines() == [*quote.lines(), again]


@pytest.mark.parametrize("job", ["", "pets", "batch:", "here:1", "sagemaker"])
def test_a_malformed_job_reference_is_refused(job: str) -> None:
    """Only the form that submit prints is accepted."""
    with pytest.raises(UserError, match="is not a job"):
        parse_reference(job)
