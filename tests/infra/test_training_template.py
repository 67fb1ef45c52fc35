"""infra/training.yaml: the promises that linters do not check."""

import json
import re
from typing import Any, Final

import pytest

from jobs.cloud.training_jobs import CANCELLED
from jobs.cloud.training_request import PLACEHOLDERS, TrainingJob, build_request
from jobs.training.interruption import EXIT_STATUS
from tests.infra.templates import as_list, load, resources, statements, variables, walk

TRAINING = "training.yaml"
TEMPLATE = load(TRAINING)


def _only(kind: str) -> dict[str, Any]:
    (properties,) = resources(TRAINING, kind).values()
    return properties


def _environments() -> dict[str, dict[str, Any]]:
    found = resources(TRAINING, "AWS::Batch::ComputeEnvironment").items()
    return {name: properties["ComputeResources"] for name, properties in found}


def test_no_machine_runs_without_a_job() -> None:
    """Neither on Spot nor on demand."""
    assert {name: machines["MinvCpus"] for name, machines in _environments().items()} == {"Spot": 0, "OnDemand": 0}
    assert all("DesiredvCpus" not in machines for machines in _environments().values())


def test_spot_is_tried_first_and_then_on_demand() -> None:
    """By the order of the queue. Jobs with several machines run only on demand, because Batch requires it."""
    condition, one, many = _only("AWS::Batch::JobQueue")["ComputeEnvironmentOrder"]["Fn::If"]
    assert condition == "OneNode"
    assert [(item["Order"], item["ComputeEnvironment"]["Ref"]) for item in one] == [(1, "Spot"), (2, "OnDemand")]
    assert [item["ComputeEnvironment"]["Ref"] for item in many] == ["OnDemand"]


#: How an attempt ends: its exit code, the reason of its container, and that of the job; and what Batch does then.
_ENDS: Final = {
    "stopped, saved": (str(EXIT_STATUS), "", "Essential container in task exited", "RETRY"),
    "machine lost": ("", "", "Host EC2 (instance i-0a1b2c3d4e5f60718) terminated.", "RETRY"),
    "machine lost while it saved": ("137", "", "Host EC2 (instance i-0a1b2c3d4e5f60718) terminated.", "RETRY"),
    "failed": ("1", "", "Essential container in task exited", "EXIT"),
    "wrong option": ("2", "", "Essential container in task exited", "EXIT"),
    "out of memory": ("137", "OutOfMemoryError: Container killed due to memory usage", "Task failed", "EXIT"),
    "no such image": ("", "CannotPullContainerError: not found", "Task failed to start", "EXIT"),
    # Batch sends SIGTERM, after which a job saves its work and leaves with 75.
    "too long": (str(EXIT_STATUS), "", "Job attempt duration exceeded timeout", "EXIT"),
    "cancelled": (str(EXIT_STATUS), "", CANCELLED, "EXIT"),
}


@pytest.mark.parametrize("definition", ["JobDefinition", "ManyNodesJobDefinition"])
@pytest.mark.parametrize("end", _ENDS)
def test_a_job_that_lost_its_machine_is_retried_and_one_that_failed_is_not(definition: str, end: str) -> None:
    """Status 75 means "saved, to be continued". Any other failure would only fail again, and cost again.

    Nor does Batch retry what it has ended itself, whatever the rules say, which also covers a job that is ended in the
    console with other words: https://docs.aws.amazon.com/batch/latest/userguide/job_timeouts.html and
    https://docs.aws.amazon.com/batch/latest/userguide/job_retries.html
    """
    exit_code, reason, status_reason, expected = _ENDS[end]
    retry = resources(TRAINING, "AWS::Batch::JobDefinition")[definition]["RetryStrategy"]
    ended = {"OnExitCode": exit_code, "OnReason": reason, "OnStatusReason": status_reason}
    assert retry["Attempts"] > 1
    assert _action(retry["EvaluateOnExit"], ended) == expected


def _action(rules: list[dict[str, str]], ended: dict[str, str]) -> str:
    """What Batch does: the first rule of which all conditions match decides, and without one the job is retried.

    A ``*`` at the end of a condition stands for anything:
    https://docs.aws.amazon.com/batch/latest/APIReference/API_EvaluateOnExit.html
    """
    assert len(rules) <= 5
    for rule in rules:
        conditions = {name: value for name, value in rule.items() if name != "Action"}
        if all(_fits(pattern, ended[name]) for name, pattern in conditions.items()):
            return rule["Action"]
    return "RETRY"


def _fits(pattern: str, text: str) -> bool:
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern


@pytest.mark.parametrize(("definition", "nodes"), [("JobDefinition", 1), ("ManyNodesJobDefinition", 2)])
def test_a_submitted_job_has_the_retries_of_its_definition(definition: str, nodes: int) -> None:
    """A strategy in the request would replace the one above. The price that is shown names their number."""
    options = {"data": "s3://shelter/pets/", "output": "s3://shelter/models", "version": "v1"}
    job = TrainingJob(target="batch", name="twofold-1", options=options, stack=PLACEHOLDERS, nodes=nodes)
    assert "retryStrategy" not in build_request(job)
    retry = resources(TRAINING, "AWS::Batch::JobDefinition")[definition]["RetryStrategy"]
    assert job.attempts == retry["Attempts"]


def test_a_job_that_gets_no_machine_fails_with_a_reason() -> None:
    """It must not block the head of the queue forever."""
    actions = _only("AWS::Batch::JobQueue")["JobStateTimeLimitActions"]
    assert {action["Reason"].partition(":")[0] for action in actions} == {"CAPACITY", "MISCONFIGURATION"}
    assert all(action["Action"] == "CANCEL" for action in actions)


def containers() -> list[dict[str, Any]]:
    return [node for node in walk(TEMPLATE["Resources"]) if isinstance(node, dict) and "ReadonlyRootFilesystem" in node]


def test_a_job_has_a_gpu_and_a_time_limit_and_no_privileges() -> None:
    """It does not run as root, and can write only to /tmp."""
    assert len(containers()) == 2
    for container in containers():
        assert container["ReadonlyRootFilesystem"] is True
        assert container["User"] == "10001"
        assert "Privileged" not in container
        assert {"Type": "GPU", "Value": "1"} in container["ResourceRequirements"]
    for definition in resources(TRAINING, "AWS::Batch::JobDefinition").values():
        assert definition["Timeout"]["AttemptDurationSeconds"] <= 24 * 3600


def test_images_are_named_by_digest_and_tags_are_immutable() -> None:
    """The tested image is the one that runs."""
    pattern = re.compile(TEMPLATE["Parameters"]["Image"]["AllowedPattern"])
    assert not pattern.fullmatch("repository:latest")
    assert all(container["Image"] == {"Ref": "Image"} for container in containers())
    for repository in resources(TRAINING, "AWS::ECR::Repository").values():
        assert repository["ImageTagMutability"] == "IMMUTABLE"
        assert repository["ImageScanningConfiguration"] == {"ScanOnPush": True}


def test_repositories_survive_the_stack_unless_its_creation_failed() -> None:
    """One that is left over has its name, which is fixed: no later deployment could create it."""
    for name in ("WorkerRepository", "TrainRepository"):
        assert (TEMPLATE["Resources"][name]["DeletionPolicy"], TEMPLATE["Resources"][name]["UpdateReplacePolicy"]) == (
            "RetainExceptOnCreate",
            "Retain",
        )


def test_without_an_image_there_are_the_repositories_alone() -> None:
    """They must be there before an image can be pushed."""
    bare = {name for name, body in TEMPLATE["Resources"].items() if "Condition" not in body}
    assert bare == {"WorkerRepository", "TrainRepository"}


def test_a_job_writes_models_and_checkpoints_and_deletes_no_model() -> None:
    """No wildcards for actions, nor for resources, except for the one action that does not support resources."""
    for name, statement in statements(TRAINING):
        actions = as_list(statement["Action"])
        assert all("*" not in action for action in actions), name
        if "*" in as_list(statement.get("Resource", [])):
            assert actions == ["ecr:GetAuthorizationToken"]
    (writing,) = [statement for _, statement in statements(TRAINING) if statement.get("Sid") == "Write"]
    written = re.findall(r"\$\{BucketName\}/(\w+)/\*", json.dumps(writing["Resource"]))
    assert set(written) == {"models", "checkpoints"}
    deleting = [s for _, s in statements(TRAINING) if any("Delete" in action for action in as_list(s["Action"]))]
    assert [s["Resource"]["Fn::Sub"].partition("/")[2] for s in deleting] == ["checkpoints/*"]


@pytest.mark.parametrize("role", ["JobRole", "SageMakerRole"])
def test_a_role_can_only_be_assumed_for_this_account(role: str) -> None:
    """Otherwise the service could be used by another account (the confused deputy problem)."""
    (trust,) = resources(TRAINING, "AWS::IAM::Role")[role]["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


def test_a_forged_request_cannot_read_a_machines_credentials() -> None:
    """Version 2 of the metadata service is required. The disk is encrypted, too."""
    data = _only("AWS::EC2::LaunchTemplate")["LaunchTemplateData"]
    assert data["MetadataOptions"]["HttpTokens"] == "required"
    assert all(device["Ebs"]["Encrypted"] for device in data["BlockDeviceMappings"])


def test_a_job_only_gets_variables_of_the_sdk() -> None:
    """A job is configured by its options. The worker's settings do not apply."""
    assert {variable for _, variable in variables(TRAINING)} == {"AWS_REGION"}


def test_every_log_expires() -> None:
    """By default CloudWatch keeps logs forever."""
    assert all("RetentionInDays" in log for log in resources(TRAINING, "AWS::Logs::LogGroup").values())
