"""``twofold cloud``: push with a fake Docker that records its calls, and errors of deploy."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import main
from jobs.cloud import deploy, lambda_zip
from jobs.cloud.stack import Stacks
from jobs.progress import Reporter
from jobs.user_error import UserError
from tests.conftest import REPOSITORY

DIGEST = "sha256:" + "a" * 64
BASE = "sha256:" + "b" * 64

FAKE_DOCKER = f"""#!{sys.executable} -SE
import json, os, pathlib, sys
arguments = sys.argv[1:]
password = sys.stdin.read() if "--password-stdin" in arguments else None
with open(os.environ["DOCKER_LOG"], "a") as log:
    log.write(json.dumps([arguments, password, os.getcwd()]) + "\\n")
if "inspect" in arguments:
    print("{BASE}")
if "--metadata-file" in arguments:
    path = arguments[arguments.index("--metadata-file") + 1]
    pathlib.Path(path).write_text(json.dumps({{"containerimage.digest": "{DIGEST}"}}))
if os.environ.get("DOCKER_FAILS") in arguments:
    sys.exit("no space left")
"""


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ``docker`` program on the path. Returns the file in which it records its calls."""
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(FAKE_DOCKER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


def connect_to(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets the environment of a client of the emulator."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    environment = {"AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "us-east-1"}
    for name, value in (environment | {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}).items():
        monkeypatch.setenv(name, value)


def exit_status(*arguments: str) -> int:
    """Runs ``twofold cloud`` and returns its exit status."""
    try:
        return main(["cloud", *arguments])
    except SystemExit as ended:
        return int(ended.code or 0)


def test_push_creates_repositories_and_builds_from_a_pinned_base(
    moto: str, docker: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The password goes through standard input, never through an argument. The image is named by its digest."""
    connect_to(moto, monkeypatch)
    assert exit_status("push", "--stack", "pushed", "--worker") == 0
    calls = [json.loads(line) for line in docker.read_text().splitlines()]
    login, *others = calls
    assert login[0][:4] == ["login", "--username", "AWS", "--password-stdin"]
    assert login[1]
    assert all(login[1] not in argument for arguments, _, _ in calls for argument in arguments)
    builds = [arguments for arguments, _, _ in others if "build" in arguments]
    assert [build[build.index("--file") + 1] for build in builds] == [
        "infra/train.Dockerfile",
        "infra/worker.Dockerfile",
    ]
    assert [build[build.index("--platform") + 1] for build in builds] == ["linux/amd64", "linux/arm64"]
    for build in builds:
        assert build[build.index("--build-arg") + 1] == f"PYTHON=python@{BASE}"
        assert {"--push", "--provenance=false"} <= set(build)
        assert ".dkr.ecr.us-east-1" in build[build.index("--tag") + 1]
    assert {folder for _, _, folder in calls} == {str(REPOSITORY)}
    printed = capsys.readouterr().out
    assert printed.count(f"@{DIGEST}") == 2
    assert printed.count(f"from python@{BASE}") == 2


def test_the_images_go_with_the_stack_so_that_it_can_be_created_again(
    moto: str, docker: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """CloudFormation keeps repositories, and cannot create one whose name is taken."""
    connect_to(moto, monkeypatch)
    assert exit_status("push", "--stack", "built-twice") == 0
    assert exit_status("destroy", "--stack", "built-twice", "--yes") == 0
    assert "the container images in built-twice-training/train" in capfd.readouterr().err
    assert exit_status("push", "--stack", "built-twice") == 0


def test_a_failed_build_is_reported_with_dockers_output(
    moto: str, docker: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is printed as pushed."""
    connect_to(moto, monkeypatch)
    monkeypatch.setenv("DOCKER_FAILS", "build")
    assert exit_status("push", "--stack", "unbuilt", "--base", f"python@{BASE}") == 1
    printed = capsys.readouterr()
    assert "docker buildx build failed" in printed.err
    assert "no space left" in printed.err
    assert printed.out == ""


def test_a_missing_docker_is_reported(
    moto: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the images need it; the worker's zip does not."""
    connect_to(moto, monkeypatch)
    monkeypatch.setenv("PATH", "")
    assert exit_status("push") == 1
    assert "Docker is not installed here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("parameter", "status", "message"),
    [
        ("Modle=pets", 2, "no template has the parameter Modle; did you mean Model?"),
        ("Model", 1, "is not of the form NAME=VALUE"),
    ],
)
def test_a_wrong_parameter_is_reported(
    moto: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    parameter: str,
    status: int,
    message: str,
) -> None:
    """Before anything is created."""
    connect_to(moto, monkeypatch)
    assert exit_status("deploy", "--parameter", parameter) == status
    assert message in capsys.readouterr().err


class FailingStacks:
    """A CloudFormation whose stack fails."""

    def create_stack(self, **_: Any) -> Any:
        return {"StackId": "arn:stack"}

    def describe_stacks(self, *, StackName: str) -> Any:  # noqa: N803 - boto3's
        if not hasattr(self, "asked"):
            self.asked = True
            from botocore.exceptions import ClientError  # noqa: PLC0415

            raise ClientError({"Error": {"Code": "V", "Message": f"{StackName} does not exist"}}, "DescribeStacks")
        assert StackName == "arn:stack"  # a deleted stack is no longer found by name
        return {"Stacks": [{"StackStatus": "DELETE_COMPLETE"}]}

    def describe_stack_events(self, **_: Any) -> Any:
        reason = "Specified ReservedConcurrentExecutions decreases account's UnreservedConcurrentExecution below 10"
        failed = {"ResourceStatus": "CREATE_FAILED", "LogicalResourceId": "Function", "ResourceStatusReason": reason}
        return {"StackEvents": [{"ResourceStatus": "CREATE_COMPLETE", "LogicalResourceId": "Bucket"}, failed]}


def test_the_error_of_a_failed_stack_names_the_resource_and_the_reason() -> None:
    """In CloudFormation's words, with the next step, even if the stack has been deleted again."""
    client: Any = FailingStacks()
    with pytest.raises(UserError, match=r"DELETE_COMPLETE. Function: Specified .* ReserveConcurrency=false"):
        Stacks(client, poll_s=0).deploy("s", lambda_zip.infra("worker.yaml"), {}, Reporter(quiet=True))


def test_the_default_network_is_used(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all its subnets, because more zones have more Spot capacity."""
    connect_to(moto, monkeypatch)
    from jobs.cloud.aws import open_aws  # noqa: PLC0415

    found = deploy.default_network(open_aws())
    assert found["VpcId"].startswith("vpc-")
    assert len(found["SubnetIds"].split(",")) > 1
