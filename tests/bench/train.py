"""``twofold train run`` against the recipe it is based on: time, processor time, memory and accuracy.

Ours runs twice per round: from scratch, and then with the features of the first run, as when you try another option of
the head.
"""

import json
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

from jobs.progress import Reporter, hushed
from jobs.user_error import UserError
from tests.bench.figures import Comparison, Figures, Measure
from tests.bench.process import Ended, run_to_end

_MEASURES: Final = (
    Measure("whole_s", "entire process, s", 1),
    Measure("without_imports_s", "without imports, s", 1),
    Measure("learning_s", "reading, features, fit, s", 1),
    Measure("cpu_s", "processor time, s", 1),
    Measure("again_whole_s", "entire process, features kept, s", 1),
    Measure("again_without_imports_s", "without imports, features kept, s", 1),
    Measure("again_learning_s", "reading, features, fit, features kept, s", 2),
    Measure("again_cpu_s", "processor time, features kept, s", 1),
    Measure("peak_mb", "peak resident memory, MB", 0),
    Measure("accuracy", "accuracy on the test images", 3, more_is_better=True),
)
#: The steps "Loading the libraries" and "Starting TensorFlow".
_IMPORTS: Final = ("Loading the libraries", "Starting")
#: From the files to a fitted head. With kept features, the files are still listed and hashed.
_LEARNING: Final = ("Listing", "Hashing the images", "Reading images, computing features", "Training the head")
_QUIET: Final = {"TF_CPP_MIN_LOG_LEVEL": "3"}


def run(*, data: Path, weights: str, runs: int, reporter: Reporter) -> Comparison:
    """Measures both in turns. Raises UserError if one fails, or if ``train/`` or ``validation/`` is missing."""
    for split in ("train", "validation"):
        if not (data / split).is_dir():
            raise UserError(
                f"{data} has no folder {split}/. Give a folder with train/ and validation/, which the recipe reads."
            )
    ours, peer = [], []
    with tempfile.TemporaryDirectory(prefix="twofold-bench-") as name:
        folder = Path(name)
        file = folder / "backbone.weights.h5"
        with (
            hushed(),
            reporter.step("Loading the backbone's weights"),
            # The peak memory of a child starts with that of its parent, so TensorFlow must not be loaded here.
            ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
        ):
            pool.submit(_save_weights, weights, str(file)).result()
        # So that compiling bytecode and reading the images from disk are not part of the first measured run.
        with reporter.step("Running once, unmeasured: ours"):
            _run_ours(data, file, folder / "0")
        for number in range(1, runs + 1):
            with reporter.step(f"Run {number} of {runs}: ours"):
                ours.append(_measure_ours(data, file, folder / str(number)))
            with reporter.step(f"Run {number} of {runs}: peer"):
                peer.append(_measure_peer(data, file))
    return Comparison(
        title="One training job, one machine",
        measures=_MEASURES,
        ours=ours,
        peer=peer,
        facts={"data": data.name},
        summary=f"Images of {data.name} at 160 pixels, tested on validation/.",
    )


def _save_weights(source: str, path: str) -> None:
    from jobs.training import backbone  # noqa: PLC0415 - only in the other process

    frozen, _ = backbone.load(source, image_size=160)
    frozen.save_weights(path)


def _measure_ours(data: Path, weights: Path, folder: Path) -> Figures:
    first, report = _run_ours(data, weights, folder)
    again, second_report = _run_ours(data, weights, folder)
    if report["accuracy"] != second_report["accuracy"]:
        raise UserError(f"The same job had accuracy {report['accuracy']}, then {second_report['accuracy']}.")
    return {
        **_times("", first, imports_s=_sum(report, _IMPORTS), learning_s=_sum(report, _LEARNING)),
        **_times("again_", again, imports_s=_sum(second_report, _IMPORTS), learning_s=_sum(second_report, _LEARNING)),
        "peak_mb": max(first.peak_mb, again.peak_mb),
        "accuracy": report["accuracy"],
    }


def _measure_peer(data: Path, weights: Path) -> Figures:
    ended = run_to_end("tests.bench.peer_train", [str(data), str(weights)], _QUIET)
    report = json.loads(ended.stdout.splitlines()[-1])  # Keras first prints how many files it found
    learning_s = report["seconds"]["data"] + report["seconds"]["fit"]
    return {
        **_times("", ended, imports_s=report["seconds"]["imports"], learning_s=learning_s),
        # It keeps nothing, so a second run takes the same time.
        **_times("again_", ended, imports_s=report["seconds"]["imports"], learning_s=learning_s),
        "peak_mb": ended.peak_mb,
        "accuracy": report["accuracy"],
    }


def _run_ours(data: Path, weights: Path, folder: Path) -> tuple[Ended, dict[str, Any]]:
    options = {"--data": data, "--output": folder / "out", "--cache": folder / "cache", "--weights": weights}
    arguments = [str(word) for option in options.items() for word in option]
    ended = run_to_end("jobs.cli", ["train", "run", *arguments, "--json"], _QUIET)
    evaluation = json.loads(ended.stdout)["evaluation"]
    accuracy = evaluation["binary_classification_metrics"]["accuracy"]["value"]
    return ended, {"accuracy": accuracy, "seconds": evaluation["seconds"]}


def _sum(report: dict[str, Any], steps: tuple[str, ...]) -> float:
    return sum(float(seconds) for title, seconds in report["seconds"].items() if title.startswith(steps))


def _times(prefix: str, ended: Ended, *, imports_s: float, learning_s: float) -> dict[str, float]:
    return {
        f"{prefix}whole_s": ended.wall_s,
        f"{prefix}without_imports_s": ended.wall_s - imports_s,
        f"{prefix}learning_s": learning_s,
        f"{prefix}cpu_s": ended.cpu_s,
    }
