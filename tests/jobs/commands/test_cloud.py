"""``twofold cloud``: push with a Docker that remembers what it was told, deploy to the embedded cloud."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import main
from jobs.cloud import deploy, lambda_zip, stack
from jobs.cloud.stack import Stacks
from jobs.local.emulator import EmbeddedCloud
from jobs.progress import Reporter
from jobs.user_error import UserError
from tests.conftest import REPOSITORY

DIGEST = "sha256:" + "a" * 64
BASE = "sha256:" + "b" * 64

FAKE_DOCKER = f"""#!{sys.executable}
import json, os, pathlib, sys
arguments = sys.argv[1:]
told = sys.stdin.read() if "--password-stdin" in arguments else None
with open(os.environ["DOCKER_LOG"], "a") as log:
    log.write(json.dumps([arguments, told, os.getcwd()]) + "\\n")
if "inspect" in arguments:
    print("{BASE}")
if "--metadata-file" in arguments:
    place = arguments[arguments.index("--metadata-file") + 1]
    pathlib.Path(place).write_text(json.dumps({{"containerimage.digest": "{DIGEST}"}}))
sys.exit(os.environ.get("DOCKER_FAILS") in arguments and bool(print("no space left", file=sys.stderr)) or
         (1 if os.environ.get("DOCKER_FAILS") in arguments else 0))
"""


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name; returns the file in which it remembers."""
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(FAKE_DOCKER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


def _reach(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    environment = {"AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "us-east-1"}
    for name, value in (environment | {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(stack, "_POLL_S", 0.05)


def _typed(*arguments: str) -> int:
    """The exit status of the command."""
    try:
        return main(["cloud", *arguments])
    except SystemExit as left:
        return int(left.code or 0)


def test_push_makes_repositories_and_builds_from_a_digest_with_hashes(
    moto: str, docker: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Signed in by standard input, never by an argument; the image is named by what was pushed."""
    _reach(monkeypatch, moto)
    assert _typed("push", "--stack", "pushed", "--worker") == 0
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


def test_a_build_that_fails_is_told_in_dockers_own_words(
    moto: str, docker: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing is said to be pushed."""
    _reach(monkeypatch, moto)
    monkeypatch.setenv("DOCKER_FAILS", "build")
    assert _typed("push", "--stack", "unbuilt", "--base", f"python@{BASE}") == 1
    printed = capsys.readouterr()
    assert "docker buildx build failed" in printed.err
    assert "no space left" in printed.err
    assert printed.out == ""


def test_without_docker_the_next_step_is_told(
    moto: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The worker needs none."""
    _reach(monkeypatch, moto)
    monkeypatch.setenv("PATH", "")
    assert _typed("push") == 1
    assert "Docker is not installed here" in capsys.readouterr().err


def test_deploy_prints_the_settings_and_changes_a_stack_that_is_there(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What was set before stays set, and the bucket stays the same one."""
    build = lambda_zip.build
    monkeypatch.setattr(lambda_zip, "build", lambda *, libraries: build(libraries=None))
    with EmbeddedCloud() as cloud:
        _reach(monkeypatch, cloud.endpoint_url)
        assert _typed("deploy", "--parameter", "Model=pets", "--parameter", "TimeoutS=60") == 0
        first = capfd.readouterr()
        assert _typed("deploy", "--parameter", "TimeoutS=120") == 0
        second = capfd.readouterr()
        function = cloud.client("lambda").list_functions()["Functions"][0]
    assert "twofold cloud push, then this again" in first.err
    assert "/models/pets/champion.json" in second.out
    assert [line for line in first.out.splitlines() if "OUTPUT" in line] == [
        line for line in second.out.splitlines() if "OUTPUT" in line
    ]
    assert function["Timeout"] == 120


@pytest.mark.parametrize(
    ("parameter", "status", "said"), [("Modle=pets", 2, "no template has Modle"), ("Model", 1, "give NAME=VALUE")]
)
def test_a_parameter_that_no_template_has_is_told(
    moto: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    parameter: str,
    status: int,
    said: str,
) -> None:
    """Before anything is made."""
    _reach(monkeypatch, moto)
    assert _typed("deploy", "--parameter", parameter) == status
    assert said in capsys.readouterr().err


class FailingStacks:
    """CloudFormation, whose stack ends in a failure."""

    def create_stack(self, **_: Any) -> Any:
        return {"StackId": "arn:stack"}

    def describe_stacks(self, *, StackName: str) -> Any:  # noqa: N803 - boto3's
        if not hasattr(self, "asked"):
            self.asked = True
            from botocore.exceptions import ClientError  # noqa: PLC0415

            raise ClientError({"Error": {"Code": "V", "Message": f"{StackName} does not exist"}}, "DescribeStacks")
        assert StackName == "arn:stack"  # by name it is gone
        return {"Stacks": [{"StackStatus": "DELETE_COMPLETE"}]}

    def describe_stack_events(self, **_: Any) -> Any:
        reason = "Specified ReservedConcurrentExecutions decreases account's UnreservedConcurrentExecution below 10"
        failed = {"ResourceStatus": "CREATE_FAILED", "LogicalResourceId": "Function", "ResourceStatusReason": reason}
        return {"StackEvents": [{"ResourceStatus": "CREATE_COMPLETE", "LogicalResourceId": "Bucket"}, failed]}


def test_a_stack_that_fails_says_which_resource_and_why() -> None:
    """In CloudFormation's words, with the next step; also when it has deleted the stack again."""
    client: Any = FailingStacks()
    with pytest.raises(UserError, match=r"DELETE_COMPLETE. Function: Specified .* ReserveConcurrency=false"):
        Stacks(client, poll_s=0).deploy("s", lambda_zip.infra("worker.yaml"), {}, Reporter(quiet=True))


def test_the_network_is_the_accounts_default_one(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all its subnets: the more zones, the more Spot capacity."""
    _reach(monkeypatch, moto)
    from jobs.cloud.aws import open_aws  # noqa: PLC0415

    found = deploy.default_network(open_aws())
    assert found["VpcId"].startswith("vpc-")
    assert len(found["SubnetIds"].split(",")) > 1
