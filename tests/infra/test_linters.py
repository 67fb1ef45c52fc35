"""What the linters of others say of templates and Dockerfiles: nothing."""

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY


def _tool(name: str) -> str:
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    assert found, f"{name} is not installed: uv sync"
    return found


@pytest.mark.parametrize(
    ("tool", "pattern"), [("cfn-lint", "*.yaml"), ("hadolint", "*.Dockerfile")], ids=["templates", "dockerfiles"]
)
def test_the_linter_finds_nothing(tool: str, pattern: str) -> None:
    """No error, no warning, no remark."""
    files = sorted((REPOSITORY / "infra").glob(pattern))
    assert len(files) == 2
    done = subprocess.run([_tool(tool), *map(str, files)], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def _lines(path: Path) -> list[str]:
    return path.read_text().replace("\\\n", " ").splitlines()


@pytest.mark.parametrize("name", ["worker", "train"])
def test_an_image_runs_as_nobody_in_exec_form_from_a_pinned_base(name: str) -> None:
    """G10, G30. Process 1 hears SIGTERM; every package by its hash; a health check; /tmp is all that is written to."""
    lines = _lines(REPOSITORY / "infra" / f"{name}.Dockerfile")
    last = {line.split()[0]: line.partition(" ")[2] for line in lines if line and line[0] != "#"}
    assert last["USER"] == "10001:10001"
    assert last["ENTRYPOINT"].startswith('["python", "-m"')
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
    """Everything is left out but what is named: a data set or a key beside the code cannot get into a layer."""
    lines = (REPOSITORY / ".dockerignore").read_text().split()
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line[0] == "!"} == {
        *("infra", "jobs", "worker"),
        *("pyproject.toml", "README.md", "LICENSE"),
    }
