"""The worker's stack on the embedded cloud: the template is deployed unchanged, and its queue runs the Lambda."""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobs import folder_settings
from jobs.cloud import lambda_zip, removal
from jobs.cloud.deploy import deploy_worker
from jobs.cloud.stack import Stacks
from jobs.local.emulator import EmbeddedCloud
from jobs.local.playground import deploy_embedded
from jobs.progress import Reporter
from jobs.user_error import UserError
from jobs.wording import program
from tests.console import on_terminal
from tests.jobs.commands.test_cloud import connect_to, exit_status
from worker.predictions import from_csv
from worker.uris import split


@dataclass(frozen=True)
class DeployedStack:
    """A deployed stack, and what a test does with it."""

    cloud: EmbeddedCloud
    settings: dict[str, str]

    @property
    def bucket(self) -> str:
        return split(self.settings["TWOFOLD_OUTPUT_URI"])[0]

    def put(self, key: str, body: bytes) -> str:
        self.cloud.s3().put_object(Bucket=self.bucket, Key=key, Body=body)
        return f"s3://{self.bucket}/{key}"

    def parts(self) -> dict[str, list[dict[str, Any]]]:
        """Returns the rows of each part in the bucket, by job."""
        s3 = self.cloud.s3()
        listed = s3.list_objects_v2(Bucket=self.bucket, Prefix="predictions/").get("Contents", ())
        keys = [item["Key"] for item in listed if "/parts/part-" in item["Key"]]
        return {
            key.split("/")[1]: [
                row.model_dump() for row in from_csv(s3.get_object(Bucket=self.bucket, Key=key)["Body"].read())
            ]
            for key in keys
        }

    def dead_letters(self) -> list[Any]:
        answer = self.cloud.sqs().receive_message(
            QueueUrl=self.settings["TWOFOLD_DEAD_LETTER_URL"],
            MaxNumberOfMessages=10,
            MessageAttributeNames=["All"],
            VisibilityTimeout=0,
        )
        return list(answer.get("Messages", ()))

    def waiting(self) -> int:
        attributes = self.cloud.sqs().get_queue_attributes(
            QueueUrl=self.settings["TWOFOLD_QUEUE_URL"], AttributeNames=["All"]
        )["Attributes"]
        return sum(int(value) for name, value in attributes.items() if name.startswith("ApproximateNumber"))


@pytest.fixture(scope="module")
def cloud(ministack: str) -> Iterator[EmbeddedCloud]:
    """A client of the running emulator, without the stacks of this module afterwards."""
    running = EmbeddedCloud(port=int(ministack.rpartition(":")[2]))
    yield running
    for name in ("twofold", "command", "asked-for", "offered"):
        running.client("cloudformation").delete_stack(StackName=name)


@pytest.fixture
def stack(cloud: EmbeddedCloud, bundle: Path) -> DeployedStack:
    """infra/worker.yaml deployed with a zip, with the digits model in its bucket."""
    parameters = {"Model": "digits", "TimeoutS": "60", "AlarmEmail": "someone@example.com"}
    settings = deploy_embedded(cloud, parameters=parameters, reporter=Reporter(quiet=True))
    deployed = DeployedStack(cloud, settings)
    deployed.put("models/digits/champion.json", (bundle.parent / "champion.json").read_bytes())
    for name in ("model.json", "model.tflite"):
        deployed.put(f"models/digits/{bundle.name}/{name}", (bundle / name).read_bytes())
    return deployed


def _wait(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline, "the Lambda did not answer within a minute"
        time.sleep(0.1)


def test_the_queue_runs_the_lambda_and_a_poison_message_delays_no_other(
    stack: DeployedStack, digit_images: Path
) -> None:
    """Manifests on the queue and in the inbox become CSV files. Poison goes to the dead-letter queue with a reason."""
    images = sorted(digit_images.rglob("*.png"))[:4]
    refs = [stack.put(f"images/{index}.png", image.read_bytes()) for index, image in enumerate(images)]
    lines = "".join(json.dumps({"source-ref": ref}) + "\n" for ref in [*refs, f"s3://{stack.bucket}/images/none.png"])
    manifest = stack.put("manifests/autumn.jsonl", lines.encode())
    bodies = [
        json.dumps({"schema_version": 1, "job_id": "before", "images": refs[:1]}),
        "<html>not a request</html>",
        json.dumps({"schema_version": 1, "job_id": "autumn", "manifest": {"uri": manifest}}),
    ]
    entries: Any = [{"Id": str(index), "MessageBody": body} for index, body in enumerate(bodies)]
    stack.cloud.sqs().send_message_batch(QueueUrl=stack.settings["TWOFOLD_QUEUE_URL"], Entries=entries)
    stack.put("inbox/dropped.csv", "\n".join(["source_ref", *refs]).encode())

    _wait(lambda: len(stack.parts()) >= 3 and stack.dead_letters() and not stack.waiting())

    parts = stack.parts()
    dropped = parts.pop(next(job for job in parts if "dropped" in job))
    assert [row["source_ref"] for row in dropped] == refs
    assert [row["source_ref"] for row in parts["before"]] == refs[:1]
    assert [row["error_code"] for row in parts["autumn"]] == [None] * 4 + ["not_found"]
    assert {row["label"] for row in dropped} <= {"three", "eight"}
    (letter,) = stack.dead_letters()
    assert letter["Body"] == bodies[1]
    assert letter["MessageAttributes"]["error_code"]["StringValue"] == "bad_request"


def test_the_command_prints_the_settings_and_updates_an_existing_stack(
    cloud: EmbeddedCloud, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Parameters that are not given keep their values, and the bucket stays the same."""
    build = lambda_zip.build
    monkeypatch.setattr(lambda_zip, "build", lambda *, libraries: build(libraries=None))
    connect_to(cloud.endpoint_url, monkeypatch)
    deploy = ("deploy", "--stack", "command")
    assert exit_status(*deploy, "--parameter", "Model=pets", "--parameter", "TimeoutS=60") == 0
    first = capfd.readouterr()
    assert exit_status(*deploy, "--parameter", "TimeoutS=120") == 0
    second = capfd.readouterr()
    resources = cloud.client("cloudformation").describe_stack_resources(StackName="command")["StackResources"]
    (name,) = [r["PhysicalResourceId"] for r in resources if r["ResourceType"] == "AWS::Lambda::Function"]
    function = cloud.client("lambda").get_function_configuration(FunctionName=name)
    assert f"run '{program()} cloud push' and then this command again" in first.err
    assert "/models/pets/champion.json" in second.out
    assert [line for line in first.out.splitlines() if "OUTPUT" in line] == [
        line for line in second.out.splitlines() if "OUTPUT" in line
    ]
    assert function["Timeout"] == 120


def _deploy(cloud: EmbeddedCloud, name: str) -> DeployedStack:
    settings = deploy_worker(
        cloud.client, name=name, libraries=None, parameters={}, reporter=Reporter(quiet=True), poll_s=0.05
    )
    deployed = DeployedStack(cloud, settings)
    deployed.put("models/model/champion.json", b"{}")
    return deployed


def _exists(cloud: EmbeddedCloud, bucket: str) -> bool:
    return bucket in {item["Name"] for item in cloud.s3().list_buckets()["Buckets"]}


def test_the_status_says_what_is_deployed_and_all_of_it_can_be_destroyed(
    cloud: EmbeddedCloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stack, its bucket, the queues, the model, and how to train."""
    connect_to(cloud.endpoint_url, monkeypatch)
    stack = ("--stack", "looked-at")
    assert exit_status("status", *stack) == 1
    assert "There is no stack looked-at in us-east-1" in capsys.readouterr().err
    deployed = _deploy(cloud, "looked-at")
    assert exit_status("status", *stack) == 0
    shown = capsys.readouterr().out
    for words in ("looked-at: CREATE_COMPLETE", deployed.bucket, "requests in the dead-letter queue", "cloud push"):
        assert words in shown
    assert exit_status("status", *stack, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["bucket"], found["has_model"], found["has_image"]) == (deployed.bucket, True, False)
    assert exit_status("destroy", *stack, "--yes", "--with-data") == 0
    assert "other stacks of this account and region may use it" in capsys.readouterr().err  # the code is no data
    assert not _exists(cloud, deployed.bucket)


#: Waits for a signal that nobody sends, after what outlives a stack has been created.
_BROKEN = """
  Handle:
    Type: AWS::CloudFormation::WaitConditionHandle
  Broken:
    Type: AWS::CloudFormation::WaitCondition
    DependsOn: [Bucket, DeadLetterQueue]
    Properties: {Handle: !Ref Handle, Timeout: "1"}
"""


def test_a_first_deployment_that_fails_leaves_nothing(cloud: EmbeddedCloud, tmp_path: Path) -> None:
    """Neither a bucket nor a queue, which nothing would name any more."""

    def left() -> tuple[set[str], set[str]]:
        queues = cloud.sqs().list_queues(QueueNamePrefix="fails").get("QueueUrls", [])
        return {bucket["Name"] for bucket in cloud.s3().list_buckets()["Buckets"]}, set(queues)

    template = tmp_path / "worker.yaml"
    template.write_text(lambda_zip.infra("worker.yaml").read_text().replace("\nOutputs:", f"{_BROKEN}\nOutputs:"))
    before = left()
    code = {"CodeBucket": "none", "CodeKey": "none"}
    with pytest.raises(UserError, match="Broken: WaitCondition timed out"):
        Stacks(cloud.client("cloudformation"), poll_s=0.05).deploy("fails", template, code, Reporter(quiet=True))
    assert left() == before


def test_destroying_a_stack_keeps_the_bucket_unless_told(
    cloud: EmbeddedCloud, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It lists what goes and what stays. Where nobody can be asked, a script has to say --yes."""
    connect_to(cloud.endpoint_url, monkeypatch)
    deployed = _deploy(cloud, "removed")
    assert exit_status("destroy", "--stack", "removed") == 1
    assert "Add --yes" in capfd.readouterr().err
    assert exit_status("destroy", "--stack", "removed", "--yes") == 0
    gone, kept = capfd.readouterr().err.split("To be kept, unless --with-data is given:")
    assert ("the stack removed" in gone, deployed.bucket in kept) == (True, True)
    code = "twofold-code-000000000000-us-east-1"
    assert f"  the bucket {code} with the worker's code" in kept
    assert f"aws s3 rb --force s3://{code}" in kept
    assert _exists(cloud, code)
    assert exit_status("status", "--stack", "removed") == 1
    assert cloud.s3().head_object(Bucket=deployed.bucket, Key="models/model/champion.json")


@pytest.mark.parametrize(("owner", "name"), [(removal, "_delete_bucket"), (Stacks, "delete")], ids=["data", "stack"])
def test_an_interrupted_removal_of_stack_and_data_is_finished_by_the_same_command(
    cloud: EmbeddedCloud,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    owner: object,
    name: str,
) -> None:
    """Ctrl-C comes after the data, or after the stack, which alone knew where the data is."""
    connect_to(cloud.endpoint_url, monkeypatch)
    stack = f"interrupted-{name.strip('_')[:6].replace('_', '-')}"
    deployed, step = _deploy(cloud, stack), getattr(owner, name)

    def interrupted(*arguments: Any) -> None:
        step(*arguments)
        signal.raise_signal(signal.SIGINT)

    destroy = ("destroy", "--stack", stack, "--yes", "--with-data")
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupted)
        assert exit_status(*destroy) == 130
    assert "Run the same command again" in capfd.readouterr().err
    assert exit_status(*destroy) == (1 if owner is Stacks else 0)  # there is nothing left to delete
    assert not _exists(cloud, deployed.bucket)
    with pytest.raises(cloud.sqs().exceptions.QueueDoesNotExist):
        deployed.dead_letters()
    assert Stacks(cloud.client("cloudformation")).state(stack) is None


def test_a_bucket_that_workers_still_write_to_is_deleted(cloud: EmbeddedCloud) -> None:
    """One of them writes between the last listing and the end."""
    s3, late = cloud.s3(), ["late.csv"]
    s3.create_bucket(Bucket="written-to")
    s3.put_object(Bucket="written-to", Key="a.csv", Body=b"")

    def write(**_: object) -> None:
        if late:
            cloud.s3().put_object(Bucket="written-to", Key=late.pop(), Body=b"")

    s3.meta.events.register("before-call.s3.DeleteBucket", write)
    removal._delete_bucket(s3, "written-to", Reporter(quiet=True))
    assert not _exists(cloud, "written-to")
    removal._delete_bucket(s3, "written-to", Reporter(quiet=True))  # and once more


@pytest.mark.parametrize(("typed", "gone"), [("yes\n", False), ("asked-for\n", True)])
def test_a_stack_is_destroyed_only_after_its_name_is_typed(cloud: EmbeddedCloud, *, typed: str, gone: bool) -> None:
    """A stray y or Enter deletes nothing."""
    deployed = _deploy(cloud, "asked-for")
    command = (sys.executable, "-m", "jobs.cli", "cloud", "destroy", "--stack", "asked-for")
    status, shown = on_terminal(*command, typed=typed, environment=cloud.environment)
    assert "Type asked-for to delete this for good" in shown
    assert (status, "Nothing was deleted." in shown) == ((0, False) if gone else (1, True))
    assert _exists(cloud, deployed.bucket)


def test_the_settings_of_a_deployment_are_offered(cloud: EmbeddedCloud, tmp_path: Path) -> None:
    """With the region, so that another shell needs no export."""
    code = (
        "from jobs.cloud import lambda_zip\nbuild = lambda_zip.build\n"
        "lambda_zip.build = lambda *, libraries: build(libraries=None)\n"
        "from jobs.cli import main\nmain(['cloud', 'deploy', '--stack', 'offered'])"
    )
    status, shown = on_terminal(sys.executable, "-c", code, typed="y\n", folder=tmp_path, environment=cloud.environment)
    assert status == 0, shown
    written = folder_settings.read(tmp_path)
    assert "export TWOFOLD_QUEUE_URL=" + written["TWOFOLD_QUEUE_URL"] in shown
    assert written["AWS_REGION"] == "us-east-1"
