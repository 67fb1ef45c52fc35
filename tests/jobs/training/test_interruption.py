"""A job that is ended in any phase goes on when the same command is typed again, and comes to the same model."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from jobs.training.interruption import EXIT_STATUS
from tests.conftest import REPOSITORY, Bench, Run, Trainer

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
OPTIONS = ("--image-size=32", "--augment=2", "--fine-tune=8", "--fine-tune-epochs=2", "--version=v1", "--name=p")
SAME = ("model.keras", "model.tflite", "test_predictions.csv", "quarantine.csv")

#: (phase, signal): a job is ended in each of these, and then goes on to the next.
Ends = Sequence[tuple[str, signal.Signals]]
TERM, KILL = signal.SIGTERM, signal.SIGKILL
FEW: Ends = (("Loading the backbone", TERM), ("Computing activations of 2 views", KILL))

Job = Callable[[Path], Run]


@pytest.fixture(scope="module")
def job(trainer: Trainer, few_digits: Path) -> Job:
    """Starts the job in a folder: the same command each time."""
    data = f"--data={few_digits}"

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


@pytest.mark.parametrize(
    "ends",
    [
        pytest.param(FEW, id="few"),
        pytest.param(
            [(phase, (TERM, KILL)[n % 2]) for n, phase in enumerate(PHASES)], id="odd", marks=pytest.mark.slow
        ),
        pytest.param(
            [(phase, (KILL, TERM)[n % 2]) for n, phase in enumerate(PHASES)], id="even", marks=pytest.mark.slow
        ),
    ],
)
def test_a_job_ended_in_phase_after_phase_comes_to_the_same_model(
    job: Job, uninterrupted: dict[str, bytes], tmp_path: Path, ends: Ends
) -> None:
    """By SIGTERM and by SIGKILL; equal in every figure, and in every byte but of time. The slow ones leave out none."""
    for phase, number in ends:
        status = _end_in_phase_after(job(tmp_path), phase, number)
        assert status in ((EXIT_STATUS, 0) if number is TERM else (-KILL, 0)), phase
        if (tmp_path / "p/v1/model.json").exists():  # it was faster than the signal
            break
    last = job(tmp_path)
    if last.wait() != 0:
        assert "bundles are not written over" in last.stderr  # it was done already
    files = _files(tmp_path)
    assert _figures(files) == _figures(uninterrupted)
    for name in SAME:
        assert files[name] == uninterrupted[name], name
    _check_whole(files)


def _check_whole(files: dict[str, bytes]) -> None:
    for name, expected in json.loads(files["model.json"])["files"].items():
        assert hashlib.sha256(files[name]).hexdigest() == expected["sha256"], name


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
    """Never with 1, which means that the job failed, and never does the job go on."""
    code = f"""
import os, signal
from jobs.training.interruption import Interruption
terminate = lambda: os.kill(os.getpid(), signal.SIGTERM)
with Interruption().listening():
{textwrap.indent(_ARRIVES[where], "    ")}
    print("went on")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (EXIT_STATUS, ""), done.stderr
    assert done.stderr == "Interrupted. Finished work is saved: run the same command again to resume.\n"


@pytest.mark.slow
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


@pytest.fixture
def start(trainer: Trainer, few_digits: Path, ministack_bench: Bench, tmp_path: Path) -> Callable[..., Run]:
    """Starts a job on a machine that has its own cache, and the bucket's ``work/`` for its checkpoint."""
    place = f"s3://{ministack_bench.bucket}/work"
    given = ("train", "run", f"--data={few_digits}", f"--output={tmp_path}", f"--checkpoint={place}", "--image-size=32")

    def start(machine: str, *options: str) -> Run:
        return trainer.start(*given, f"--cache={tmp_path / machine}", *options, **ministack_bench.environment)

    return start


def test_a_job_goes_on_from_a_bucket(start: Callable[..., Run], ministack_bench: Bench, tmp_path: Path) -> None:
    """``--checkpoint s3://…``, on another machine: the version is the first run's, and of the job nothing stays."""
    first = start("one")
    assert _end_in_phase_after(first, "Training the head", TERM) == EXIT_STATUS, first.stderr
    assert ministack_bench.keys("work/features/")
    assert ministack_bench.keys("work/jobs/")
    second = start("two")
    assert second.wait() == 0, second.stderr
    (manifest,) = tmp_path.glob("model/*/model.json")
    told = json.loads(manifest.read_bytes())
    assert f"going on with version {told['version']}" in second.stderr
    # Both are the moment of the first run's start, to the second.
    assert told["created_at"].replace("-", "").replace(":", "").startswith(told["version"].removesuffix("Z"))
    assert json.loads(manifest.with_name("evaluation.json").read_bytes())["resumed"] is True
    assert ministack_bench.keys("work/jobs/") == []


@pytest.mark.slow
def test_another_head_computes_no_features(start: Callable[..., Run], ministack_bench: Bench) -> None:
    """With another rule and another weight of the squared weights: the objects stay as they are, and none is added."""

    def features() -> dict[str, object]:
        listed = ministack_bench.s3.list_objects_v2(Bucket=ministack_bench.bucket, Prefix="work/features/")
        return {item["Key"]: item["LastModified"] for item in listed.get("Contents", ())}

    first = start("one", "--version=first")
    assert first.wait() == 0, first.stderr
    before = features()
    assert before
    second = start("two", "--version=second", "--threshold=max-f1", "--l2=0.1")
    assert second.wait() == 0, second.stderr
    assert features() == before


@pytest.mark.slow
def test_two_versions_trained_at_once_do_not_disturb_each_other(
    trainer: Trainer, few_digits: Path, tmp_path: Path
) -> None:
    """From one folder of features, which both fill; neither leaves anything of itself there."""
    given = ("train", "run", f"--data={few_digits}", f"--output={tmp_path}", f"--cache={tmp_path / 'cache'}")
    runs = [trainer.start(*given, "--image-size=32", f"--version=v{number}") for number in (1, 2)]
    for run in runs:
        assert run.wait() == 0, run.stderr
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / f"model/v{n}").iterdir()} for n in (1, 2))
    assert one["model.keras"] == two["model.keras"]
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"features"}


@pytest.mark.slow
def test_two_runs_of_one_version_write_the_same_bytes(
    job: Job, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    """Each from the pictures on, in folders of their own."""
    run = job(tmp_path)
    assert run.wait() == 0, run.stderr
    assert {name: _files(tmp_path)[name] for name in SAME} == {name: uninterrupted[name] for name in SAME}
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"features"}
