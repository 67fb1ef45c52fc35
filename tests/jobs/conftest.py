"""Fixtures of the tests of jobs: a store of each kind, a small dataset, and training jobs that several tests share."""

import json
import os
import random
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs.store import BucketStore, FolderStore, Store
from tests.conftest import Bench, Run, Trainer, _bench


@pytest.fixture(params=["folder", "ministack", "moto"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "folder":
        return FolderStore(tmp_path / "store")
    bench: Bench = request.getfixturevalue("bench_on")(request.getfixturevalue(request.param))
    return BucketStore(f"s3://{bench.bucket}/store/", bench.storage(monkeypatch))


@pytest.fixture(scope="session")
def few_digits(digit_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images of each class: enough for a complete job."""
    folder = tmp_path_factory.mktemp("few")
    for label in ("eight", "three"):
        (folder / label).mkdir()
        for path in sorted((digit_images / label).iterdir())[:40]:
            shutil.copy(path, folder / label)
    return folder


@dataclass(frozen=True)
class ContainerJob:
    """A job that ran as SageMaker runs it, with ``base`` in place of /opt/ml."""

    base: Path
    run: Run

    @property
    def bundle(self) -> Path:
        return self.base / "model/pets/v1"


@pytest.fixture(scope="session")
def container_job(trainer: Trainer, few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> ContainerJob:
    """From hyperparameters and a channel to a bundle, on 32 pixels and without interruption."""
    base = tmp_path_factory.mktemp("opt-ml")
    (base / "input/config").mkdir(parents=True)
    hyperparameters = {"image-size": "32", "version": "v1", "name": "pets"}
    (base / "input/config/hyperparameters.json").write_text(json.dumps(hyperparameters))
    shutil.copytree(few_digits, base / "input/data/training")
    run = trainer.start_container(SAGEMAKER_BASE_DIR=str(base))
    assert run.wait() == 0, run.stderr
    return ContainerJob(base, run)


def interrupt_after(run: Run, step: str, number: signal.Signals) -> int:
    """Sends a signal within 0.3 seconds after a job has finished a step. Returns the job's exit status."""
    run.wait_for(f"✓ {step}")
    time.sleep(random.uniform(0.0, 0.3))
    os.kill(run.pid, number)
    return run.wait()


@dataclass(frozen=True)
class ResumedJob:
    """A job that was interrupted on one machine and resumed on another. Its work and its bundle are in a bucket."""

    bench: Bench
    interrupted_status: int
    saved: list[str]  #: keys of its work after the interruption
    resumed: Run


@pytest.fixture(scope="session")
def resumed_job(
    trainer: Trainer, few_digits: Path, ministack: str, tmp_path_factory: pytest.TempPathFactory
) -> ResumedJob:
    """With augmentation and fine-tuning, so that it has all steps. Interrupted after the first fit of the head."""
    bench, machines = _bench(ministack), tmp_path_factory.mktemp("machines")
    places = (f"--checkpoint=s3://{bench.bucket}/work", f"--output=s3://{bench.bucket}/models")
    options = ("--image-size=32", "--augment=2", "--fine-tune=8", "--fine-tune-epochs=1", "--json")

    def start(machine: str) -> Run:
        cache = f"--cache={machines / machine}"
        return trainer.start("train", "run", f"--data={few_digits}", cache, *places, *options, **bench.environment)

    status = interrupt_after(start("one"), "Training the head", signal.SIGTERM)
    saved = bench.keys("work/")
    resumed = start("two")
    assert resumed.wait() == 0, resumed.stderr
    return ResumedJob(bench, status, saved, resumed)
