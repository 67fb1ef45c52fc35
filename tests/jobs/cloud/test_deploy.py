"""The worker's stack on the embedded cloud: the template is deployed unchanged, and its queue runs the Lambda."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobs.cloud import lambda_zip
from jobs.local.emulator import EmbeddedCloud
from jobs.local.playground import deploy_embedded
from jobs.progress import Reporter
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
        keys = [item["Key"] for item in listed if "/predictions/part-" in item["Key"]]
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
    for name in ("twofold", "command"):
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
    assert "run 'twofold cloud push' and then this command again" in first.err
    assert "/models/pets/champion.json" in second.out
    assert [line for line in first.out.splitlines() if "OUTPUT" in line] == [
        line for line in second.out.splitlines() if "OUTPUT" in line
    ]
    assert function["Timeout"] == 120
