"""A job that is ended in any phase goes on when the same command is typed again, and comes to the same model."""

import hashlib
import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.interruption import EXIT_STATUS
from tests.conftest import Run, Trainer

#: What a job says when it is done with a phase; the next one is then under way.
PHASES = (
    "Starting TensorFlow",
    "Loading the backbone",
    "Reading images, computing features of 2 views",
    "Training the head",
    "Computing activations of 2 views",
    "Fine-tuning",
    "Exporting",
    "Evaluating on the test images",
    "Drawing the report",
)
OPTIONS = ("--image-size=32", "--augment=2", "--fine-tune=12", "--fine-tune-epochs=3", "--version=v1", "--name=p")

Job = Callable[[Path], Run]


@pytest.fixture(scope="module")
def job(trainer: Trainer, digit_images: Path) -> Job:
    """Starts the job in a folder: the same command each time."""
    data = f"--data={digit_images}"

    def start(folder: Path) -> Run:
        return trainer.start("train", "run", data, f"--output={folder}", f"--cache={folder / 'cache'}", *OPTIONS)

    return start


@pytest.fixture(scope="module")
def uninterrupted(job: Job, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a bundle whose job nobody disturbed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    run = job(folder)
    assert run.wait() == 0, run.stderr
    return _files(folder)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "p/v1").iterdir()}


def _figures(files: dict[str, bytes]) -> object:
    evaluation = json.loads(files["evaluation.json"])
    return evaluation["binary_classification_metrics"], evaluation["validation"], evaluation["fine_tuning"]


def _end_in_phase_after(run: Run, phase: str, number: signal.Signals) -> int:
    run.wait_for(f"✓ {phase}")
    time.sleep(random.uniform(0.0, 0.3))
    os.kill(run.pid, number)
    return run.wait()


def test_a_job_ended_in_phase_after_phase_comes_to_the_same_model(
    job: Job, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    """Ended nine times, by SIGTERM and by SIGKILL in turn; equal in every figure, and in every byte but of time."""
    for turn, phase in enumerate(PHASES):
        number = (signal.SIGTERM, signal.SIGKILL)[turn % 2]
        status = _end_in_phase_after(job(tmp_path), phase, number)
        assert status in ((EXIT_STATUS, 0) if number is signal.SIGTERM else (-signal.SIGKILL, 0)), phase
        if (tmp_path / "p/v1/model.json").exists():  # it was faster than the signal
            break
    last = job(tmp_path)
    if last.wait() != 0:
        assert "bundles are not written over" in last.stderr  # it was done already
    files = _files(tmp_path)
    assert _figures(files) == _figures(uninterrupted)
    for name in ("model.keras", "model.tflite", "test_predictions.csv", "quarantine.csv"):
        assert files[name] == uninterrupted[name], name
    _check_whole(files)


def _check_whole(files: dict[str, bytes]) -> None:
    for name, expected in json.loads(files["model.json"])["files"].items():
        assert hashlib.sha256(files[name]).hexdigest() == expected["sha256"], name


def test_a_job_killed_while_it_writes_leaves_no_bundle_that_opens(job: Job, tmp_path: Path) -> None:
    """``model.json`` is last: it is not there, or all that it vouches for is; and the next run writes the rest."""
    for _ in range(3):
        run = job(tmp_path)
        run.wait_for("✓ Drawing the report")
        time.sleep(random.uniform(0.0, 0.2))
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        if (tmp_path / "p/v1/model.json").exists():
            break
    else:
        assert job(tmp_path).wait() == 0
    _check_whole(_files(tmp_path))
