"""Fixtures of the tests of jobs: a store of each kind, a small dataset, and training jobs that several tests share."""

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobs.store import BucketStore, FolderStore, Store
from jobs.training.spot_notice import ENDPOINT
from tests.conftest import EMULATORS, Bench, Once, Run, Trainer
from tests.metadata import metadata_service


@pytest.fixture(params=["folder", *EMULATORS])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "folder":
        return FolderStore(tmp_path / "store")
    bench: Bench = request.getfixturevalue("bench_on")(request.getfixturevalue(request.param))
    return BucketStore(f"s3://{bench.bucket}/store/", bench.storage(monkeypatch))


@pytest.fixture(scope="session")
def few_digits(digit_images: Path, once: Once) -> Path:
    """Forty images of each class: enough for a complete job."""

    def copy(folder: Path) -> None:
        for label in ("eight", "three"):
            (folder / label).mkdir(parents=True)
            for path in sorted((digit_images / label).iterdir())[:40]:
                shutil.copy(path, folder / label)

    return once.make("few-digits", copy)


@pytest.fixture(scope="session")
def container_job(trainer: Trainer, few_digits: Path, once: Once) -> Path:
    """The folder in place of /opt/ml of a job that ran as SageMaker runs it, on 32 pixels and without interruption."""

    def train(base: Path) -> None:
        (base / "input/config").mkdir(parents=True)
        hyperparameters = {"image-size": "32", "version": "v1", "name": "pets"}
        (base / "input/config/hyperparameters.json").write_text(json.dumps(hyperparameters))
        shutil.copytree(few_digits, base / "input/data/training")
        run = trainer.start_container(SAGEMAKER_BASE_DIR=str(base))
        assert run.wait() == 0, run.stderr

    return once.make("container-job", train)


def interrupt_after(run: Run, step: str, number: signal.Signals) -> int:
    """Sends a signal within 0.3 seconds after a job has finished a step. Returns the job's exit status."""
    run.wait_for(f"✓ {step}")
    time.sleep(random.uniform(0.0, 0.3))
    os.kill(run.pid, number)
    return run.wait()


@dataclass(frozen=True)
class ResumedJob:
    """A job that was interrupted on one machine and resumed on another, with its work and its bundle in a bucket."""

    folder: Path

    @property
    def facts(self) -> dict[str, Any]:
        """The bucket, exit status of the interrupted run, keys of its work then and at the end, and standard error."""
        facts: dict[str, Any] = json.loads((self.folder / "facts.json").read_bytes())
        return facts

    @property
    def result(self) -> dict[str, Any]:
        """What the resumed run printed."""
        result: dict[str, Any] = json.loads((self.folder / "result.json").read_bytes())
        return result

    @property
    def bundle(self) -> Path:
        """A copy of the bundle."""
        (manifest,) = self.folder.glob("models/model/*/model.json")
        return manifest.parent


@pytest.fixture(scope="session")
def resumed_job(
    trainer: Trainer, few_digits: Path, ministack: str, bench_on: Callable[[str], Bench], once: Once
) -> ResumedJob:
    """With augmentation and fine-tuning, so that it has all steps. EC2's notice comes after the fit of the head."""

    def train(folder: Path) -> None:
        folder.mkdir()
        bench = bench_on(ministack)
        places = (f"--checkpoint=s3://{bench.bucket}/checkpoints", f"--output=s3://{bench.bucket}/models")
        options = ("--image-size=32", "--augment=2", "--fine-tune=8", "--fine-tune-epochs=1", "--json")
        environment = bench.environment | {"RECORDED_CALLS": str(folder / "calls")}

        def start(machine: str, **also: str) -> Run:
            cache = f"--cache={folder / machine}"
            command = ("train", "run", f"--data={few_digits}", cache, *places, *options)
            return trainer.start(*command, **environment, **also)

        with metadata_service() as service:
            interrupted = start("one", **{ENDPOINT: service.url})
            interrupted.wait_for("✓ Training the head")
            service.announce()
            status = interrupted.wait()
        saved = bench.keys("checkpoints/")
        resumed = start("two")
        assert resumed.wait() == 0, resumed.stderr
        left = bench.keys("checkpoints/")
        facts = {"bucket": bench.bucket, "status": status, "saved": saved, "left": left, "stderr": resumed.stderr}
        facts["reason"] = interrupted.stderr.splitlines()[-2:]
        (folder / "facts.json").write_text(json.dumps(facts))
        (folder / "result.json").write_text(resumed.stdout)
        for key in bench.keys("models/"):
            (folder / key).parent.mkdir(parents=True, exist_ok=True)
            (folder / key).write_bytes(bench.get(f"s3://{bench.bucket}/{key}"))

    return ResumedJob(once.make("resumed-job", train))
