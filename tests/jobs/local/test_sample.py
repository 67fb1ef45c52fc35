"""A training job of ``twofold local`` and the demo, in a process of its own."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from jobs.config import TrainConfig
from jobs.local.sample import train_on, train_sample
from jobs.progress import Reporter
from jobs.user_error import UserError
from tests.console import on_terminal

#: An interpreter that records its arguments and exits with the given status.
RECORDER = f"""#!{sys.executable} -SE
import json, os, pathlib, sys
pathlib.Path(os.environ["RECORD"]).write_text(json.dumps(sys.argv[1:]))
print(json.dumps(dict(uri="s3://b/models/cats/v1")))
sys.exit(int(os.environ["STATUS"]))
"""


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with the arguments of the process."""
    program = tmp_path / "python"
    program.write_text(RECORDER)
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    return tmp_path / "record"


def _train(record: Path, status: int) -> str:
    environment = {"RECORD": str(record), "STATUS": str(status)}
    options = ("--image-size", "96")
    reporter = Reporter(quiet=True)
    return train_sample(
        Path("pets"), "s3://b/models", *options, name="cats", environment=environment, reporter=reporter
    )


def test_a_model_is_trained_by_the_command_line(record: Path) -> None:
    """With the environment that it is given, and as a child that ends with this process."""
    assert _train(record, status=0) == "s3://b/models/cats/v1"
    command = "-m jobs.local.tether jobs.cli train run --data pets --output s3://b/models --name cats --image-size 96"
    assert json.loads(record.read_text()) == [*command.split(), "--json", "--any-classes"]


@pytest.mark.slow
def test_a_failed_training_ends_the_command_with_one_error(tmp_path: Path, few_digits: Path) -> None:
    """The training itself says why, and writes to the terminal directly."""
    weights = tmp_path / "none.weights.h5"
    command = ("demo", "--data", str(few_digits), "--keep", str(tmp_path / "kept"), "--weights", str(weights))
    status, shown = on_terminal(sys.executable, "-m", "jobs.cli", *command)
    said = " ".join(shown.split())  # a terminal breaks the line
    assert (status, said.count("Error: "), f"Error: No weights at {weights}" in said) == (1, 1, True), shown


@pytest.mark.parametrize("status", [1, 2])
def test_a_training_that_has_said_why_it_failed_is_not_explained_again(record: Path, status: int) -> None:
    """The command ends with its status."""
    with pytest.raises(SystemExit) as ended:
        _train(record, status)
    assert ended.value.code == status


def test_a_training_that_ends_without_a_reason_is_an_error(record: Path) -> None:
    """As when the machine has no memory left."""
    with pytest.raises(UserError, match=r"Training ended with exit status 137\."):
        _train(record, status=137)


def _train_on(config: TrainConfig, record: Path) -> str:
    environment = {"RECORD": str(record), "STATUS": "0"}
    return train_on(config, environment=environment, reporter=Reporter(quiet=True))


def test_the_same_images_and_options_are_not_trained_again(
    models: Path, digit_images: Path, record: Path, tmp_path: Path
) -> None:
    """``twofold local --data``, typed again, serves the model that it has. Other images or options make another one."""
    made = TrainConfig(data=str(digit_images), output=str(models), name="digits", image_size=96, cache=tmp_path)
    assert _train_on(made, record) == f"{models}/digits/v1"
    assert not record.exists()
    fewer = tmp_path / "fewer"
    shutil.copytree(digit_images, fewer)
    next((fewer / "three").iterdir()).unlink()
    for changed in ({"data": str(fewer)}, {"threshold": "max-f1"}, {"name": "other"}):
        assert _train_on(made.model_copy(update=changed), record) == "s3://b/models/cats/v1"
        command = json.loads(record.read_text())
        record.unlink()
        assert {f"--{name}" for name in changed} <= set(command)
        assert command[command.index("--image-size") + 1] == "96"
