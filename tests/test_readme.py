"""The README's walk-through, its blocks run as they stand."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from jobs.commands.app import app
from jobs.local.emulator import EmbeddedCloud
from jobs.models.champion import Champions
from jobs.store import FolderStore
from tests.conftest import REPOSITORY
from tests.jobs.local.test_playground import free_port, left_running, prepare
from tests.jobs.models.versions import add_version

README = (REPOSITORY / "README.md").read_text()


def _blocks(section: str, language: str) -> list[str]:
    text = README.partition(f"## {section}\n")[2].partition("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_request_by_hand_is_answered_as_the_readme_says(digit_images: Path, models: Path, tmp_path: Path) -> None:
    """Make a bucket and queues, send the message with plain boto3, run the worker, read the CSV with pandas."""
    shutil.copytree(digit_images, tmp_path / "out/images")
    shutil.copytree(models / "digits", tmp_path / "out/models/demo")  # what the demo would have left
    python, shell = _blocks("A request by hand", "python"), _blocks("A request by hand", "sh")
    assert (len(python), len(shell)) == (3, 2)
    with EmbeddedCloud() as cloud:
        worker = shell[1].replace("http://127.0.0.1:4566", cloud.endpoint_url).replace("uv run python", sys.executable)
        assert cloud.endpoint_url in worker
        # One script, as one person would type it: Python, then the worker, then Python again.
        run = f"import subprocess\nsubprocess.run({worker!r}, shell=True, check=True)\n"
        script = f"{python[0]}{python[1]}{run}{python[2]}"
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | cloud.environment | {"AWS_DEFAULT_REGION": "us-east-1", "PYTHONPATH": str(REPOSITORY)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert re.search(r"s3://shelter/in/a\.png +(eight|three) +[01]\.\d+ +NaN", done.stdout), done.stdout
    assert re.search(r"s3://shelter/in/missing\.png +NaN +NaN +not_found", done.stdout), done.stdout


def test_the_walk_through_of_models_goes_as_the_readme_says(
    digit_images: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """List, show, verify, promote, roll back: each does what its line says, and the first version is in use again."""
    training, walk = _blocks("Models", "sh")
    assert training.split()[2:5] == ["twofold", "train", "run"]  # its work is done by the fixture
    monkeypatch.chdir(tmp_path)
    shutil.copytree(digit_images, "out/images")
    for version in ("first", "second"):
        add_version(FolderStore(Path("out/models")), bundle, version, name="demo")
    Champions(FolderStore(Path("out/models")), "demo").set_champion("first", expected=None, how="first")
    said = {}
    for line in walk.splitlines():
        command = shlex.split(line, comments=True)
        assert command[:4] == ["uv", "run", "twofold", "model"]
        done = CliRunner().invoke(app, command[3:])
        assert done.exit_code == 0, (line, done.output, done.exception)
        said[command[4]] = done.output
    assert re.search(r"★ . first .*\n.*   . second ", said["list"])
    assert "accuracy" in said["show"]
    assert "0 findings. 72 of 72 test images scored again" in said["verify"].replace("\n", " ")
    assert "second is the champion of demo, instead of first." in said["promote"]
    assert "first is the champion of demo, instead of second." in said["rollback"]


def test_a_folder_becomes_a_table_as_the_readme_says(digit_images: Path, models: Path, tmp_path: Path) -> None:
    """Twofold local as it stands; then submit, status, results, redrive of a file that was put right, and report."""
    start, walk = (
        block.replace("uv run twofold", f"{sys.executable} -m jobs.cli")
        for block in _blocks("Pictures in, a table out", "sh")
    )
    port = free_port()
    prepare(tmp_path / "out/local", models, digit_images, port)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = ["bash", "-c", f"exec {start.partition('#')[0]} --port {port} --json"]
    with left_running(command, cwd=tmp_path, env=environment) as (_, said):
        exports = said["environment"]
        done = subprocess.run(
            ["bash", "-ec", walk], cwd=tmp_path, env=environment | exports, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    count = len(list((tmp_path / "photos").iterdir()))
    assert f"{count} rows = {count - 1} scored + 1 with an error code: june.csv" in done.stdout
    assert f"{count} rows = {count} scored + 0 with an error code: june.csv" in done.stdout
    rows = pd.read_csv(tmp_path / "june.csv")
    assert rows["file"].tolist() == sorted(path.name for path in (tmp_path / "photos").iterdir())
    assert (tmp_path / "june.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("path", re.findall(r"^(?:worker|jobs)/\S+\.py", README, re.MULTILINE))
def test_a_file_that_the_readme_names_is_there(path: str) -> None:
    """And each of ours is named."""
    assert (REPOSITORY / path).is_file()


def test_the_readme_names_every_file_of_both_packages() -> None:
    """A newcomer finds each of them in one list."""
    named = set(re.findall(r"^(?:worker|jobs)/\S+\.py", README, re.MULTILINE))
    files = [path for name in ("jobs", "worker") for path in (REPOSITORY / name).rglob("*.py")]
    assert {path.relative_to(REPOSITORY).as_posix() for path in files if path.name != "__init__.py"} == named
