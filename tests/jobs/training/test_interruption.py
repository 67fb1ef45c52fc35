"""Interrupted jobs: the same command resumes them, and they end with the same model."""

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from jobs.training.interruption import EXIT_STATUS
from tests.conftest import REPOSITORY, Bench, Run, Trainer
from tests.jobs.conftest import ResumedJob, interrupt_after
from tests.worker.test_signals import prefix_of

#: The steps of a job. The signal is sent when one is finished, so that it arrives in the next.
STEPS = (
    "Starting TensorFlow",
    "Loading the backbone",
    "Reading images, computing features of 2 variants",
    "Training the head",
    "Computing activations of 2 variants",
    "Fine-tuning",
    "Exporting",
    "Evaluating on the test images",
    "Drawing the report",
)
PLAIN = ("--image-size=32", "--version=v1", "--name=pets")
COMPLETE = (*PLAIN, "--augment=2", "--fine-tune=8", "--fine-tune-epochs=2")
#: Files that do not depend on the time.
SAME = ("model.keras", "model.tflite", "test_predictions.csv", "quarantine.csv")

TERM, KILL = signal.SIGTERM, signal.SIGKILL

#: A folder and options to a job in that folder, started.
Job = Callable[..., Run]


@pytest.fixture(scope="module")
def job(trainer: Trainer, few_digits: Path) -> Job:
    def start(folder: Path, *options: str) -> Run:
        places = (f"--output={folder}", f"--cache={folder / 'cache'}")
        return trainer.start("train", "run", f"--data={few_digits}", *places, *options)

    return start


@pytest.fixture(scope="module")
def uninterrupted(job: Job, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bundle of a complete job."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    run = job(folder, *COMPLETE)
    assert run.wait() == 0, run.stderr
    return _files(folder / "pets/v1")


def _files(bundle: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bundle.iterdir()}


def _figures(files: dict[str, bytes]) -> object:
    evaluation = json.loads(files["evaluation.json"])
    return evaluation["binary_classification_metrics"], evaluation["validation"], evaluation["fine_tuning"]


def _interrupt(start: Callable[[], Run], bundle: Path, ends: list[tuple[str, signal.Signals]]) -> dict[str, bytes]:
    """Interrupts a job once after each of the steps, and then lets it finish. Returns the files of its bundle."""
    for step, number in ends:
        status = interrupt_after(start(), step, number)
        assert status in ((EXIT_STATUS, 0) if number is TERM else (-KILL, 0)), step
        if (bundle / "model.json").exists():  # the job was faster than the signal
            break
    last = start()
    if last.wait() != 0:
        assert "choose another --version" in last.stderr  # it had finished before
    return _files(bundle)


def _check_same(files: dict[str, bytes], expected: dict[str, bytes]) -> None:
    assert _figures(files) == _figures(expected)
    for name in SAME:
        assert files[name] == expected[name], name
    _check_digests(files)


def _check_digests(files: dict[str, bytes]) -> None:
    for name, expected in json.loads(files["model.json"])["files"].items():
        assert hashlib.sha256(files[name]).hexdigest() == expected["sha256"], name


def test_an_interrupted_job_ends_with_the_same_model(job: Job, container_job: Path, tmp_path: Path) -> None:
    """After SIGTERM and after SIGKILL, every figure is equal, and every byte that does not depend on the time."""
    ends = [("Loading the backbone", TERM), ("Reading images, computing features", KILL)]
    files = _interrupt(lambda: job(tmp_path, *PLAIN), tmp_path / "pets/v1", ends)
    _check_same(files, _files(container_job / "model/pets/v1"))


@pytest.mark.slow
@pytest.mark.parametrize("signals", [(TERM, KILL), (KILL, TERM)], ids=["term-first", "kill-first"])
def test_a_job_interrupted_in_every_step_ends_with_the_same_model(
    job: Job, uninterrupted: dict[str, bytes], tmp_path: Path, signals: tuple[signal.Signals, signal.Signals]
) -> None:
    """By SIGTERM and SIGKILL in turns, fine-tuning included."""
    ends = [(step, signals[number % 2]) for number, step in enumerate(STEPS)]
    files = _interrupt(lambda: job(tmp_path, *COMPLETE), tmp_path / "pets/v1", ends)
    _check_same(files, uninterrupted)


#: Three places where a signal can arrive. In the last two, an exception of the handler would not come through: Python
#: drops it in a destructor, and TensorFlow's C++ code replaces it with an error of its own.
_ARRIVES = {
    "in Python": "terminate()",
    "in a destructor": "type('Object', (), {'__del__': lambda self: terminate()})()",
    "in C++": """
try:
    terminate()
except BaseException:
    raise SystemError("returned a result with an exception set") from None
""",
}


@pytest.mark.parametrize("where", _ARRIVES)
def test_sigterm_ends_a_job_with_its_own_status_wherever_it_arrives(where: str) -> None:
    """Never with 1, which means that the job failed. And the job never continues."""
    code = f"""
import os, signal
from jobs.training.interruption import Interruption
terminate = lambda: os.kill(os.getpid(), signal.SIGTERM)
with Interruption().listening():
{textwrap.indent(_ARRIVES[where], "    ")}
    print("the job continues")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (EXIT_STATUS, ""), done.stderr
    assert done.stderr == "Interrupted. Finished work is saved: run the same command again to resume.\n"


#: Pauses the start of a process where a module is first imported: before anything, with the handlers of the command
#: line set, and before those of the job are.
_PAUSE = """
import os, sys

class Pause:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["PAUSE_AT"]:
            sys.meta_path.remove(self)
            print("waiting", flush=True)
            sys.stdin.readline()

sys.meta_path.insert(0, Pause())
"""


@pytest.mark.parametrize("instant", ["jobs", "jobs.commands.app", "jobs.training.spot_notice"])
def test_sigterm_during_the_start_of_the_image_ends_a_job_with_its_own_status(tmp_path: Path, instant: str) -> None:
    """As process 1, for which the kernel drops a signal without a handler; so started as the Dockerfile says.

    AWS Batch tries a job again that leaves with 75, and none that leaves with 143.
    """
    (tmp_path / "sitecustomize.py").write_text(_PAUSE)
    (line,) = re.findall(r"^ENTRYPOINT (.+)$", (REPOSITORY / "infra/train.Dockerfile").read_text(), re.MULTILINE)
    entry = [sys.executable if part == "python" else part for part in json.loads(line)]
    started = subprocess.Popen(
        [*prefix_of("process 1"), *entry, f"--data={tmp_path}", f"--output={tmp_path / 'models'}"],
        env=os.environ | {"PYTHONPATH": str(tmp_path), "PAUSE_AT": instant},
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stdout
    assert started.stdout.readline() == "waiting\n"
    os.kill(psutil.Process(started.pid).children()[0].pid, TERM)
    _, errors = started.communicate("go on\n", timeout=120)
    assert (started.returncode, errors) == (
        EXIT_STATUS,
        "Interrupted. Finished work is saved: run the same command again to resume.\n",
    )


@pytest.mark.slow
def test_a_job_killed_while_it_writes_leaves_no_incomplete_bundle(job: Job, tmp_path: Path) -> None:
    """``model.json`` is written last. The next run writes what is missing."""
    for _ in range(3):
        run = job(tmp_path, *COMPLETE)
        run.wait_for("✓ Drawing the report")
        time.sleep(random.uniform(0.0, 0.2))
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        if (tmp_path / "pets/v1/model.json").exists():
            break
    else:
        assert job(tmp_path, *COMPLETE).wait() == 0
    _check_digests(_files(tmp_path / "pets/v1"))


def test_a_job_resumes_from_a_bucket(resumed_job: ResumedJob) -> None:
    """On another machine, after EC2 has taken the first one back, it keeps the version and the time of the first run.

    Its unfinished work is then removed.
    """
    facts, manifest = resumed_job.facts, json.loads((resumed_job.bundle / "model.json").read_bytes())
    assert facts["status"] == EXIT_STATUS
    assert [line.split(" at ")[0] for line in facts["reason"]] == [
        "AWS takes this Spot machine back",
        "Interrupted. Finished work is saved: run the same command again to resume.",
    ]
    assert {key.split("/")[1] for key in facts["saved"]} == {"features", "jobs"}
    assert f"resuming version {manifest['version']}" in facts["stderr"]
    # Both are the time of the first run's start, to the second.
    assert manifest["created_at"].replace("-", "").replace(":", "").startswith(manifest["version"].removesuffix("Z"))
    assert resumed_job.result["evaluation"]["resumed"] is True
    assert {key.split("/")[1] for key in facts["left"]} == {"features"}


@pytest.mark.slow
def test_a_job_with_another_head_computes_no_features(
    trainer: Trainer, few_digits: Path, ministack_bench: Bench, tmp_path: Path
) -> None:
    """With another threshold and another weight decay, the features in the bucket stay as they are."""
    bench = ministack_bench

    def features() -> dict[str, object]:
        listed = bench.s3.list_objects_v2(Bucket=bench.bucket, Prefix="work/features/")
        return {item["Key"]: item["LastModified"] for item in listed.get("Contents", ())}

    def run(version: str, *options: str) -> None:
        places = (f"--output={tmp_path}", f"--checkpoint=s3://{bench.bucket}/work", f"--cache={tmp_path / version}")
        given = (f"--data={few_digits}", "--image-size=32", f"--version={version}", *places, *options)
        done = trainer.run("train", "run", *given, **bench.environment)
        assert done.returncode == 0, done.stderr

    run("first")
    before = features()
    assert before
    run("second", "--threshold=max-f1", "--l2=0.1")
    assert features() == before


@pytest.mark.slow
def test_two_versions_trained_at_once_do_not_disturb_each_other(job: Job, tmp_path: Path) -> None:
    """Both fill the same folder of features, and leave nothing else in it."""
    runs = [job(tmp_path, "--image-size=32", f"--version=v{number}") for number in (1, 2)]
    for run in runs:
        assert run.wait() == 0, run.stderr
    one, two = (_files(tmp_path / f"model/v{number}") for number in (1, 2))
    assert one["model.keras"] == two["model.keras"]
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"features"}


@pytest.mark.slow
def test_two_runs_of_one_version_write_the_same_bytes(
    job: Job, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    """Each starts from the images, in a folder of its own."""
    run = job(tmp_path, *COMPLETE)
    assert run.wait() == 0, run.stderr
    files = _files(tmp_path / "pets/v1")
    assert {name: files[name] for name in SAME} == {name: uninterrupted[name] for name in SAME}
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"features"}
