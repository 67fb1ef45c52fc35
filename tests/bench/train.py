"""``twofold train run`` against the recipe it started from: time, processor, memory, and what came of it.

Ours runs twice a round: with nothing kept from before, then again with the features of the first run, as somebody does
who tries another option of the head.
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
    Measure("whole_s", "whole process, s", 1),
    Measure("without_imports_s", "without imports, s", 1),
    Measure("learning_s", "reading, features, fit, s", 1),
    Measure("cpu_s", "processor time, s", 1),
    Measure("again_whole_s", "whole process, features kept, s", 1),
    Measure("again_without_imports_s", "without imports, features kept, s", 1),
    Measure("again_learning_s", "reading, features, fit, features kept, s", 2),
    Measure("again_cpu_s", "processor time, features kept, s", 1),
    Measure("peak_mb", "peak resident memory, MB", 0),
    Measure("accuracy", "accuracy on the test images", 3, more_is_better=True),
)
#: "Starting" and "Starting TensorFlow".
_IMPORTS: Final = ("Starting",)
#: From the files to a fitted head; with the features kept, the files are still listed and hashed.
_LEARNING: Final = ("Listing", "Hashing the images", "Reading images, computing features", "Training the head")
_QUIET: Final = {"TF_CPP_MIN_LOG_LEVEL": "3"}


def run(*, data: Path, weights: str, runs: int, reporter: Reporter) -> Comparison:
    """Measures both, in turns. Raises UserError when one fails or the data have no ``train/`` or ``validation/``."""
    for split in ("train", "validation"):
        if not (data / split).is_dir():
            raise UserError(f"{data} has no folder {split}/, which the recipe reads: give a folder like the seed's.")
    ours, peer = [], []
    with tempfile.TemporaryDirectory(prefix="twofold-bench-") as name:
        folder = Path(name)
        file = folder / "backbone.weights.h5"
        with (
            hushed(),
            reporter.step("Taking the backbone's weights"),
            # TensorFlow stays out of this process: a child's peak begins with the memory of whoever started it.
            ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
        ):
            pool.submit(_save_weights, weights, str(file)).result()
        # Bytecode is compiled and the images are read from the disk once, not in the first measured run.
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
        summary=f"Images of {data.name}, 160 pixels; the test images are those of validation/.",
    )


def _save_weights(source: str, path: str) -> None:
    from jobs.training import backbone  # noqa: PLC0415 - in a process of its own

    frozen, _ = backbone.load(source, image_size=160)
    frozen.save_weights(path)


def _measure_ours(data: Path, weights: Path, folder: Path) -> Figures:
    first, told = _run_ours(data, weights, folder)
    again, retold = _run_ours(data, weights, folder)
    if told["accuracy"] != retold["accuracy"]:
        raise UserError(f"The same job came to accuracy {told['accuracy']}, then to {retold['accuracy']}.")
    return {
        **_times("", first, imports_s=_sum(told, _IMPORTS), learning_s=_sum(told, _LEARNING)),
        **_times("again_", again, imports_s=_sum(retold, _IMPORTS), learning_s=_sum(retold, _LEARNING)),
        "peak_mb": max(first.peak_mb, again.peak_mb),
        "accuracy": told["accuracy"],
    }


def _measure_peer(data: Path, weights: Path) -> Figures:
    ended = run_to_end("tests.bench.peer_train", [str(data), str(weights)], _QUIET)
    told = json.loads(ended.said.splitlines()[-1])  # Keras says before that how many files it found
    learning_s = told["seconds"]["data"] + told["seconds"]["fit"]
    return {
        **_times("", ended, imports_s=told["seconds"]["imports"], learning_s=learning_s),
        # It keeps nothing: the next run is the same again.
        **_times("again_", ended, imports_s=told["seconds"]["imports"], learning_s=learning_s),
        "peak_mb": ended.peak_mb,
        "accuracy": told["accuracy"],
    }


def _run_ours(data: Path, weights: Path, folder: Path) -> tuple[Ended, dict[str, Any]]:
    options = {"--data": data, "--output": folder / "out", "--cache": folder / "cache", "--weights": weights}
    arguments = [str(word) for option in options.items() for word in option]
    ended = run_to_end("jobs.cli", ["train", "run", *arguments, "--json"], _QUIET)
    evaluation = json.loads(ended.said)["evaluation"]
    accuracy = evaluation["binary_classification_metrics"]["accuracy"]["value"]
    return ended, {"accuracy": accuracy, "seconds": evaluation["seconds"]}


def _sum(told: dict[str, Any], steps: tuple[str, ...]) -> float:
    return sum(float(seconds) for title, seconds in told["seconds"].items() if title.startswith(steps))


def _times(prefix: str, ended: Ended, *, imports_s: float, learning_s: float) -> dict[str, float]:
    return {
        f"{prefix}whole_s": ended.wall_s,
        f"{prefix}without_imports_s": ended.wall_s - imports_s,
        f"{prefix}learning_s": learning_s,
        f"{prefix}cpu_s": ended.cpu_s,
    }
