"""infra/training.yaml: one promise a test, those that linters miss."""

import json
import re
from typing import Any

import pytest

from tests.infra.templates import as_list, load, resources, statements, variables, walk

TRAINING = "training.yaml"
TEMPLATE = load(TRAINING)


def _only(kind: str) -> dict[str, Any]:
    (properties,) = resources(TRAINING, kind).values()
    return properties


def _environments() -> dict[str, dict[str, Any]]:
    found = resources(TRAINING, "AWS::Batch::ComputeEnvironment").items()
    return {name: properties["ComputeResources"] for name, properties in found}


def test_no_machine_is_kept_while_no_job_runs() -> None:
    """Not one, on Spot or on demand."""
    assert {name: resources_["MinvCpus"] for name, resources_ in _environments().items()} == {"Spot": 0, "OnDemand": 0}
    assert all("DesiredvCpus" not in resources_ for resources_ in _environments().values())


def test_spot_comes_first_and_on_demand_where_there_is_none() -> None:
    """By the queue's order. Several machines a job: on demand alone, as Batch has it."""
    condition, one, many = _only("AWS::Batch::JobQueue")["ComputeEnvironmentOrder"]["Fn::If"]
    assert condition == "OneNode"
    assert [(item["Order"], item["ComputeEnvironment"]["Ref"]) for item in one] == [(1, "Spot"), (2, "OnDemand")]
    assert [item["ComputeEnvironment"]["Ref"] for item in many] == ["OnDemand"]


def test_a_machine_taken_back_is_tried_again_and_a_mistake_is_not() -> None:
    """Status 75 says: saved, to be continued. Any other failure would fail again, and cost again."""
    retry = resources(TRAINING, "AWS::Batch::JobDefinition")["JobDefinition"]["RetryStrategy"]
    rules = [(set(rule) - {"Action"}, rule["Action"]) for rule in retry["EvaluateOnExit"]]
    assert retry["EvaluateOnExit"][0]["OnStatusReason"] == "Host EC2*"
    assert retry["EvaluateOnExit"][1]["OnExitCode"] == "75"
    assert [action for _, action in rules] == ["RETRY", "RETRY", "EXIT"]
    assert rules[-1][0] == {"OnReason"}
    assert retry["Attempts"] > 1


def test_a_job_that_gets_no_machine_says_so_in_the_end() -> None:
    """And does not stand at the head of the queue for ever."""
    actions = _only("AWS::Batch::JobQueue")["JobStateTimeLimitActions"]
    assert {action["Reason"].partition(":")[0] for action in actions} == {"CAPACITY", "MISCONFIGURATION"}
    assert all(action["Action"] == "CANCEL" for action in actions)


def _containers() -> list[dict[str, Any]]:
    return [node for node in walk(TEMPLATE["Resources"]) if isinstance(node, dict) and "ReadonlyRootFilesystem" in node]


def test_a_job_has_a_gpu_a_time_limit_and_no_rights_on_its_machine() -> None:
    """Not root, and nothing but /tmp can be written to."""
    assert len(_containers()) == 2
    for container in _containers():
        assert container["ReadonlyRootFilesystem"] is True
        assert container["User"] == "10001"
        assert "Privileged" not in container
        assert {"Type": "GPU", "Value": "1"} in container["ResourceRequirements"]
    for definition in resources(TRAINING, "AWS::Batch::JobDefinition").values():
        assert definition["Timeout"]["AttemptDurationSeconds"] <= 24 * 3600


def test_images_are_named_by_digest_and_their_tags_never_move() -> None:
    """G30. What was tested is what runs."""
    pattern = re.compile(TEMPLATE["Parameters"]["Image"]["AllowedPattern"])
    assert not pattern.fullmatch("repository:latest")
    assert all(container["Image"] == {"Ref": "Image"} for container in _containers())
    for repository in resources(TRAINING, "AWS::ECR::Repository").values():
        assert repository["ImageTagMutability"] == "IMMUTABLE"
        assert repository["ImageScanningConfiguration"] == {"ScanOnPush": True}


def test_without_an_image_there_are_the_repositories_alone() -> None:
    """They must be there before an image can be pushed."""
    bare = {name for name, body in TEMPLATE["Resources"].items() if "Condition" not in body}
    assert bare == {"WorkerRepository", "TrainRepository"}


def test_a_job_writes_models_and_checkpoints_and_deletes_no_model() -> None:
    """G30. No wildcard for an action, none for a resource but the one call that takes no resource."""
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
def test_a_role_is_taken_on_for_this_account_alone(role: str) -> None:
    """No confused deputy: a service acts for whoever asks it to."""
    (trust,) = resources(TRAINING, "AWS::IAM::Role")[role]["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


def test_a_machine_gives_its_credentials_to_no_forged_request() -> None:
    """Version 2 of the metadata service; and its disk is encrypted."""
    data = _only("AWS::EC2::LaunchTemplate")["LaunchTemplateData"]
    assert data["MetadataOptions"]["HttpTokens"] == "required"
    assert all(device["Ebs"]["Encrypted"] for device in data["BlockDeviceMappings"])


def test_the_jobs_environment_is_the_sdks_own() -> None:
    """A job is told by its options; a worker's settings have no place here."""
    assert {variable for _, variable in variables(TRAINING)} == {"AWS_REGION"}


def test_every_log_ends_some_day() -> None:
    """CloudWatch keeps a log for ever unless told."""
    assert all("RetentionInDays" in log for log in resources(TRAINING, "AWS::Logs::LogGroup").values())
