"""What linters find in the templates and Dockerfiles: nothing."""

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY


def _infra(pattern: str) -> list[str]:
    found = sorted(map(str, (REPOSITORY / "infra").glob(pattern)))
    assert len(found) == 2
    return found


def test_cfn_lint_finds_nothing_in_the_templates() -> None:
    """No error, no warning, no remark."""
    from cfnlint.config import ConfigMixIn  # noqa: PLC0415 - three seconds that only the process of this test needs
    from cfnlint.runner import Runner  # noqa: PLC0415

    assert list(Runner(ConfigMixIn(["--", *_infra("*.yaml")])).run()) == []


def test_hadolint_finds_nothing_in_the_dockerfiles() -> None:
    """No error, no warning, no remark."""
    hadolint = shutil.which("hadolint", path=sysconfig.get_path("scripts")) or shutil.which("hadolint")
    assert hadolint, "hadolint is not installed: uv sync"
    command = [hadolint, *_infra("*.Dockerfile")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def _lines(path: Path) -> list[str]:
    return path.read_text().replace("\\\n", " ").splitlines()


@pytest.mark.parametrize("name", ["worker", "train"])
def test_an_image_is_pinned_and_runs_as_its_service_expects_as_process_1(name: str) -> None:
    """It receives SIGTERM, has a health check and writes only to /tmp. Every package is installed by hash."""
    lines = _lines(REPOSITORY / "infra" / f"{name}.Dockerfile")
    last = {line.split()[0]: line.partition(" ")[2] for line in lines if line and line[0] != "#"}
    # SageMaker's folders may belong to root. On AWS Batch, the job definition names a user: test_training_template.py.
    assert last.get("USER") == {"worker": "10001:10001", "train": None}[name]
    assert last["ENTRYPOINT"].startswith('["env", "--block-signal=INT,TERM", "python", "-m"')
    assert 'CMD ["python"' in last["HEALTHCHECK"]
    assert last["VOLUME"] == '["/tmp"]'
    (base,) = [line for line in lines if line.startswith("ARG PYTHON=")]
    version = base.partition(":")[2]
    assert version.count(".") == 2, "a full version, as python:3.13.18-slim-trixie"
    assert [line for line in lines if line.startswith("FROM ")] == ["FROM ${PYTHON} AS build", "FROM ${PYTHON}"]
    installs = [part for line in lines for part in line.split("&&") if "pip" in part and " install " in part]
    assert len(installs) == 3
    assert all("--require-hashes" in part or "--no-index" in part for part in installs)


def test_only_what_an_image_needs_is_sent_to_its_build() -> None:
    """Everything else is ignored, so that no data set or key next to the code gets into a layer."""
    lines = (REPOSITORY / ".dockerignore").read_text().split()
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line[0] == "!"} == {
        *("infra", "jobs", "worker"),
        *("pyproject.toml", "README.md", "LICENSE"),
    }
