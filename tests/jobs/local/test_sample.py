"""The sample: a training job in a process of its own."""

import json
import sys
from pathlib import Path

import pytest

from jobs.local.sample import train_sample
from jobs.progress import Reporter
from jobs.user_error import UserError

#: An interpreter that records its arguments and exits with the given status.
RECORDER = f"""#!{sys.executable} -SE
import json, os, pathlib, sys
pathlib.Path(os.environ["RECORD"]).write_text(json.dumps(sys.argv[1:]))
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


def _train(record: Path, status: int) -> None:
    environment = {"RECORD": str(record), "STATUS": str(status)}
    options = ("--image-size", "96")
    reporter = Reporter(quiet=True)
    train_sample(Path("pets"), "s3://b/models", *options, name="cats", environment=environment, reporter=reporter)


def test_the_sample_is_trained_by_the_command_line(record: Path) -> None:
    """With the environment that reaches the emulator."""
    _train(record, status=0)
    command = "-m jobs.cli train run --data pets --output s3://b/models --name cats --image-size 96"
    assert json.loads(record.read_text()) == command.split()


def test_a_failed_training_ends_the_command(record: Path) -> None:
    """The reason is already on the terminal, because the process writes to it directly."""
    with pytest.raises(UserError, match=r"exit status 3\. The reason is printed above"):
        _train(record, status=3)
