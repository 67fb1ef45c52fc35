"""The worker against the peer: images a second, processor time, start-up time and memory.

Both get two messages that are on the queue when the process starts: one image first, then many. The time to the first
part measures the start, and the time from the first part to the second measures the steady state.
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
#: More than ten times as long as the peer takes for an image on two cores.
_IMAGE_LIMIT_S: Final = 0.2

_MEASURES: Final = (
    # From the first part to the second, with the emulator on the same cores.
    Measure("images_per_s", "images a second", 0, more_is_better=True),
    # User and system time of the worker and its children.
    Measure("cpu_ms_per_image", "processor time per image, ms", 2),
    # From the start of the process to the CSV of a request with one image.
    Measure("first_score_s", "start to first score, s", 2),
    # The worker's processor time until then, which hardly depends on other processes.
    Measure("first_score_cpu_s", "processor time to first score, s", 2),
    Measure("peak_mb", "peak memory (PSS), MB", 0),
)


@dataclass(frozen=True)
class Contender:
    """A worker: a module, and the model in the format that it reads."""

    name: str
    module: str
    model_uri: str
    #: If so, ``module`` has a handler that gets the messages instead of polling the queue.
    is_lambda: bool = False

    def start(self, stage: Stage, queue_url: str, folder: Path) -> WorkerProcess:
        """Returns the process, not started yet. Its files are written to ``folder``."""
        environment = _environment(stage, self, queue_url)
        if not self.is_lambda:
            return WorkerProcess(self.module, environment)
        events = []
        for number, event in enumerate(stage.events(queue_url, count=2)):
            events.append(folder / f"{number}.json")
            events[-1].write_text(json.dumps(event), encoding="utf-8")
        return WorkerProcess("tests.bench.invoke", environment, self.module, *map(str, events))


def run(*, data: Path | None, images: int, runs: int, reporter: Reporter, is_lambda: bool = False) -> Comparison:
    """Measures both in turns. Raises UserError if a worker fails or its CSV does not match the request."""
    names = ("worker.serverless", "tests.bench.peer_lambda") if is_lambda else ("worker", "tests.bench.peer_worker")
    with open_stage(data, reporter) as stage:
        ours = Contender("ours", names[0], CHAMPION_URI, is_lambda)
        peer = Contender("peer", names[1], stage.keras_model_uri(), is_lambda)
        figures: dict[str, list[Figures]] = {"ours": [], "peer": []}
        answers: dict[str, Answer] = {}
        for contender in (ours, peer):
            # So that compiling bytecode and reading files from disk are not part of the first measured run.
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
            summary=f"{images:,} images per run from {source}; both assign the same class to {agreement:.1%} of them.",
        )


def _measure(stage: Stage, contender: Contender, *, job_id: str, images: int) -> Figures:
    """Measures one process from start to end."""
    # A new queue, so that the open poll of the previous worker does not take this one's message.
    queue_url = stage.make_queue(job_id)
    first = f"{job_id}-first"
    stage.ask(queue_url, first, images=1)
    # Sent at once, so that the steady state includes no wait. The emulator delivers messages in order.
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
        "AWS_DEFAULT_REGION": region,  # the name that boto3 reads
        "TWOFOLD_QUEUE_URL": queue_url,
        "TWOFOLD_MODEL_URI": contender.model_uri,
        "TWOFOLD_OUTPUT_URI": OUTPUT_URI,
    }


def _agreement(ours: Answer, peer: Answer) -> float:
    """Returns the share of images that both score on the same side of 0.5."""
    sides = [np.array([score for _, score in answer]) >= 0.5 for answer in (ours, peer)]
    return float(np.mean(sides[0] == sides[1]))
