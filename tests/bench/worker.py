"""Our worker against the peer: images a second, processor time, start, memory.

Both are asked for one image and then for many, by two messages that wait on the queue when the process starts. The
first part tells how long the start takes; from the first part to the second is the steady state.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from jobs.local.demo import CHAMPION_URI, OUTPUT_URI
from jobs.progress import Reporter
from tests.bench.figures import Comparison, Figures, Measure
from tests.bench.process import WorkerProcess
from tests.bench.stage import Answer, Stage, open_stage

_START_LIMIT_S: Final = 180
#: Over ten times what the peer takes for an image on two cores.
_IMAGE_LIMIT_S: Final = 0.2

_MEASURES: Final = (
    # From one part to the next, the emulator's work on the same cores included.
    Measure("images_per_s", "images a second", 0, more_is_better=True),
    # User and system time of the worker alone.
    Measure("cpu_ms_per_image", "processor time an image, ms", 2),
    # From the start of the process to the CSV of a request with one image.
    Measure("first_score_s", "start to first score, s", 2),
    # The worker's own until then, which other work on the machine hardly changes.
    Measure("first_score_cpu_s", "processor time to first score, s", 2),
    Measure("peak_mb", "peak resident memory, MB", 0),
)


@dataclass(frozen=True)
class Contender:
    """A worker that takes part: a module, and the model in the format it reads."""

    name: str
    module: str
    model_uri: str
    #: A Lambda: ``module`` holds a handler, which is given the messages instead of the queue.
    is_lambda: bool = False

    def start(self, stage: Stage, queue_url: str, folder: Path) -> WorkerProcess:
        """Its process, not started yet. Files for it lie in ``folder``."""
        environment = _environment(stage, self, queue_url)
        if not self.is_lambda:
            return WorkerProcess(self.module, environment)
        events = []
        for number, event in enumerate(stage.events(queue_url, count=2)):
            events.append(folder / f"{number}.json")
            events[-1].write_text(json.dumps(event), encoding="utf-8")
        return WorkerProcess("tests.bench.invoke", environment, self.module, *map(str, events))


def run(*, data: Path | None, images: int, runs: int, reporter: Reporter, is_lambda: bool = False) -> Comparison:
    """Measures both, in turns. Raises UserError when a worker fails or its CSV is not what was asked for."""
    names = ("worker.serverless", "tests.bench.peer_lambda") if is_lambda else ("worker", "tests.bench.peer_worker")
    with open_stage(data, reporter) as stage:
        ours = Contender("ours", names[0], CHAMPION_URI, is_lambda)
        peer = Contender("peer", names[1], stage.keras_model_uri(), is_lambda)
        figures: dict[str, list[Figures]] = {"ours": [], "peer": []}
        answers: dict[str, Answer] = {}
        for contender in (ours, peer):
            # Bytecode is compiled and files are read from the disk once, not at each start of an installed worker.
            with reporter.step(f"Starting once, unmeasured: {contender.name}"):
                _measure(stage, contender, job_id=f"{contender.name}-0", images=1)
        for number in range(1, runs + 1):
            for contender in (ours, peer):
                job_id = f"{contender.name}-{number}"
                with reporter.step(f"Run {number} of {runs}, {images:,} images: {contender.name}"):
                    figures[contender.name].append(_measure(stage, contender, job_id=job_id, images=images))
                answers[contender.name] = stage.answer(job_id, images=images)
        source = "scikit-learn's digits" if data is None else data.name
        agreement = _agreement(answers["ours"], answers["peer"])
        return Comparison(
            title="One worker, one machine",
            measures=_MEASURES,
            ours=figures["ours"],
            peer=figures["peer"],
            facts={"data": source, "images": images, "agreement": agreement},
            summary=f"{images:,} images a run, from {source}; both give {agreement:.1%} of them the same class.",
        )


def _measure(stage: Stage, contender: Contender, *, job_id: str, images: int) -> Figures:
    """One process from start to end."""
    # A queue of its own: the last worker's open poll must not take the next one's message.
    queue_url = stage.make_queue(job_id)
    first = f"{job_id}-first"
    stage.ask(queue_url, first, images=1)
    # At once, so that the steady state holds no wait for a message; the emulator hands them out in order.
    stage.ask(queue_url, job_id, images=images)
    with tempfile.TemporaryDirectory() as folder, contender.start(stage, queue_url, Path(folder)) as process:
        first_s = process.wait_until(lambda: stage.is_answered(first), what="the first score", limit_s=_START_LIMIT_S)
        cpu_s = process.cpu_s()
        done_s = process.wait_until(
            lambda: stage.is_answered(job_id), what="the last score", limit_s=_START_LIMIT_S + images * _IMAGE_LIMIT_S
        )
        return {
            "images_per_s": images / (done_s - first_s),
            "cpu_ms_per_image": (process.cpu_s() - cpu_s) / images * 1000,
            "first_score_s": first_s - process.started_s,
            "first_score_cpu_s": cpu_s,
            "peak_mb": process.peak_mb(),
        }


def _environment(stage: Stage, contender: Contender, queue_url: str) -> dict[str, str]:
    region = stage.cloud.environment["AWS_REGION"]
    return stage.cloud.environment | {
        "AWS_DEFAULT_REGION": region,  # the name that boto3 knows
        "TWOFOLD_QUEUE_URL": queue_url,
        "TWOFOLD_MODEL_URI": contender.model_uri,
        "TWOFOLD_OUTPUT_URI": OUTPUT_URI,
    }


def _agreement(ours: Answer, peer: Answer) -> float:
    """Share of the images that both put on the same side of 0.5."""
    sides = [np.array([score for _, score in answer]) >= 0.5 for answer in (ours, peer)]
    return float(np.mean(sides[0] == sides[1]))
