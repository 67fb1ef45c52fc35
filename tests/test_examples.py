"""The walk-throughs of the pages, run from the first block to the last."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pandas as pd
import pytest
from typer.testing import CliRunner

from jobs.commands import batch_view
from jobs.commands.app import app
from jobs.local import demo
from jobs.models.champion import Champions
from jobs.store import FolderStore
from tests.conftest import REPOSITORY
from tests.jobs.local.test_playground import assert_ended, family_of, free_port
from tests.jobs.models.versions import add_version
from tests.pages import BLOCKS, blocks, quoted, section, tables
from tests.terminal import Terminal
from tests.walk import PAGE, TITLE, arguments, assert_sorted, walk

WALKS = {
    (PAGE, TITLE),
    ("worker/README.md", "A request by hand"),
    ("jobs/README.md", "Models and promotion"),
}


def _run(line: str) -> str:
    """Runs a line, ``twofold`` in this process, and returns what it printed."""
    if not line.startswith("uv run "):
        return subprocess.run(["bash", "-ec", line], check=True, capture_output=True, text=True).stdout
    done = CliRunner().invoke(app, arguments(line))
    assert done.exit_code == 0, (line, done.output, done.exception)
    return done.output


def test_every_python_block_is_part_of_a_walk() -> None:
    """Commands, JSON and CSV are also checked one by one, in tests/test_pages.py."""
    assert {(block.page, block.section) for block in BLOCKS if block.language == "python"} <= WALKS


def test_photos_become_a_table_in_four_commands(
    digit_images: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Train, ``twofold local``, submit, results; then redrive of a file that was repaired, and report.

    The fixture has trained, with the command of the page; a slow test below does it all.
    """
    page, title = PAGE, TITLE
    (training, serving), (submit, results), (redrive, report) = (b.splitlines() for b in blocks(page, title, "sh"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setattr(batch_view, "_WATCH_S", 0.1)  # to poll faster
    shutil.copytree(models, _value(training, "--output"))
    shutil.copytree(digit_images / "three", "photos")
    Path("photos/broken.png").write_bytes(Path("photos/0003.png").read_bytes()[:100])
    command = [sys.executable, "-m", "jobs.cli", *arguments(serving), "--port", str(free_port()), "--json"]
    with Terminal(command, stdout=subprocess.PIPE) as local:
        assert local.process.stdout
        for name, value in json.loads(local.process.stdout.readline())["environment"].items():
            monkeypatch.setenv(name, value)
        printed = _run(submit) + _run(results)
        shutil.copy("photos/0003.png", "photos/broken.png")
        printed += _run(redrive) + _run(f"{results} --force") + _run(report)
        written = _keys_below("predictions/june/")
        family = family_of(local.process)
        local.close()
        assert local.process.wait(60) == 0
        assert_ended(family)
    assert len(family) >= 4  # the emulator, the worker, and what decodes and scores
    count = len(list(Path("photos").iterdir()))
    assert f"{count} rows = {count - 1} scored + 1 with an error code: june.csv" in printed
    assert f"{count} rows = {count} scored + 0 with an error code: june.csv" in printed
    rows = pd.read_csv("june.csv")
    assert rows["file"].tolist() == sorted(path.name for path in Path("photos").iterdir())
    assert (rows["label"] == "three").mean() > 0.95
    assert {row[0].strip("`") for table in tables(section(page, title)) for row in table} <= set(rows.columns)
    assert Path("june.html").read_text().lower().startswith("<!doctype html>")
    documented = quoted(section("worker/README.md", "The job folder"))
    assert [name for name in written if not {name, f"{name.partition('/')[0]}/"} & set(documented)] == []


@pytest.mark.slow
def test_the_four_commands_train_and_sort_from_a_clone(digit_images: Path, tmp_path: Path) -> None:
    """As typed, in processes of their own. tests/test_wheel.py does the same with the wheel."""
    rows = walk(Path(sys.executable).with_name("twofold"), digit_images, tmp_path)
    assert_sorted(rows, digit_images)


def _value(command: str, option: str) -> str:
    """What an option of a command is given."""
    words = shlex.split(command)
    return words[words.index(option) + 1]


def _keys_below(prefix: str) -> list[str]:
    s3 = boto3.Session(region_name="us-east-1").client("s3")
    listed = s3.list_objects_v2(Bucket="twofold", Prefix=prefix)["Contents"]
    return [item["Key"].removeprefix(prefix) for item in listed]


def test_a_request_by_hand_is_answered(
    ministack: str,
    digit_images: Path,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Make a bucket and queues, send the message with plain boto3, run the worker, read the CSV with pandas."""
    page, title = "worker/README.md", "A request by hand"
    (prepared, work), python = blocks(page, title, "sh"), blocks(page, title, "python")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(digit_images, "out/images")
    shutil.copytree(models / "digits", "out/models/demo")  # as the demo leaves it
    emulator = "http://127.0.0.1:4566"
    exports = re.findall(r"(AWS_\w+)=(\S+)", prepared)
    assert len(exports) == 4
    for name, value in [*exports, ("PYTHONPATH", str(REPOSITORY))]:
        monkeypatch.setenv(name, value.replace(emulator, ministack))
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it would keep another test's environment
    names: dict[str, Any] = {}
    make, send, read = (compile(block, page, "exec") for block in python)
    exec(make, names)
    exec(send, names)
    assert emulator in work
    subprocess.run(
        ["bash", "-ec", work.replace(emulator, ministack).replace("uv run python", sys.executable)],
        check=True,
        capture_output=True,
    )
    exec(read, names)
    printed = capsys.readouterr().out
    assert re.search(r"s3://shelter/in/a\.png +(eight|three) +[01]\.\d+ +NaN", printed), printed
    assert re.search(r"s3://shelter/in/missing\.png +NaN +NaN +not_found", printed), printed


def test_models_are_listed_verified_promoted_and_rolled_back(
    digit_images: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command does what its comment says, and in the end the first version is in use again."""
    training, walk = blocks("jobs/README.md", "Models and promotion", "sh")
    assert arguments(training)[:2] == ["train", "run"]  # the fixture has trained
    monkeypatch.chdir(tmp_path)
    shutil.copytree(digit_images, "out/images")
    for version in ("first", "second"):
        add_version(FolderStore(Path("out/models")), bundle, version, name="demo")
    Champions(FolderStore(Path("out/models")), "demo").set_champion("first", expected=None, how="first")
    printed = {arguments(line)[1]: _run(line) for line in walk.splitlines()}
    assert re.search(r"★ . first .*\n.*   . second ", printed["list"])
    assert "accuracy" in printed["show"]
    assert "72 of 72 test images scored again" in printed["verify"].replace("\n", " ")
    assert "second is the champion of demo, instead of first." in printed["promote"]
    assert "first is the champion of demo, instead of second." in printed["rollback"]


def test_the_demo_prints_what_the_readme_shows(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines of the first screen."""
    (shown,) = blocks("README.md", "Try it", "text")
    evaluation = json.loads((bundle / "evaluation.json").read_text())
    evaluation["binary_classification_metrics"]["accuracy"]["value"] = 1.0
    report = SimpleNamespace(rows=72, scored=72, failed=0, seconds=72 / 344)
    outcome = SimpleNamespace(rows=[], report=report, accuracy=1.0, worker_s=2.3, evaluation=evaluation, files={})
    monkeypatch.setattr(demo, "run", lambda **_: outcome)
    done = CliRunner().invoke(app, ["demo"])
    assert done.exit_code == 0, done.output
    assert shown in done.output
