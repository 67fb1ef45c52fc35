"""A worker without a queue, over a real bucket."""

import math
from collections.abc import Callable, Iterable

import pytest

from tests.conftest import Bench
from worker.aws.storage import Storage
from worker.batch.completion import Completion
from worker.batch.job_folder import JobFolder, JobRecord
from worker.batch.part import PartWriter
from worker.batch.plan import ModelChoice, Planner, new_job
from worker.batch.resolve import RequestResolver
from worker.batch.shards import Shards
from worker.contract import ClassifyRequest, Job, PartReport, Summary
from worker.dispatch import Dispatch, Done, Outcome
from worker.errors import Reject
from worker.manifest.formats import ImageRef
from worker.scoring.models import Models
from worker.scoring.pipeline import Pipeline

#: For tests of conditional writes, listings and queues: no promise may lean on one emulator's quirks.
ON_BOTH_EMULATORS = pytest.mark.parametrize("endpoint", ["ministack", "moto"], indirect=True)


class Desk:
    """A dispatch without a queue. The requests that it would send are in ``sent``, its notices in ``notices``."""

    def __init__(self, bench: Bench, storage: Storage, pipeline: Pipeline, champion: str) -> None:
        self.bench = bench
        self.storage = storage
        self.sent: list[ClassifyRequest] = []
        self.notices: list[Summary] = []
        self.planner = Planner(storage=storage, send=self.sent.extend)
        models = Models(storage=storage, sandbox=pipeline.sandbox)
        resolver = RequestResolver(
            storage=storage,
            allowed_prefixes=(f"s3://{bench.bucket}/",),
            model_prefixes=(f"s3://{bench.bucket}/models/",),
            default_model=champion,
            default_output=bench.output_uri,
        )
        self.dispatch = Dispatch(
            resolver=resolver,
            parts=PartWriter(models=models, pipeline=pipeline),
            planner=self.planner,
            completion=Completion(storage=storage, notify=self.notices.append),
        )

    def folder(self, job_id: str = "job") -> JobFolder:
        return JobFolder(self.bench.output_uri, job_id)

    def record(self, job_id: str = "job") -> JobRecord:
        return JobRecord(self.folder(job_id), self.storage)

    def outcome(
        self,
        request: ClassifyRequest,
        *,
        last_try: bool = False,
        cancelled: Callable[[], bool] = lambda: False,
        progress: Callable[[], None] = lambda: None,
        left_s: float = math.inf,
    ) -> Outcome:
        """What becomes of the request."""
        body = request.model_dump_json()
        return self.dispatch.handle(body, last_try=last_try, cancelled=cancelled, progress=progress, left_s=left_s)

    def handle(self, request: ClassifyRequest, *, last_try: bool = False) -> Done:
        """Handles a request that must succeed."""
        outcome = self.outcome(request, last_try=last_try)
        assert isinstance(outcome, Done), outcome
        return outcome

    def answer(self, request: ClassifyRequest) -> PartReport:
        """The report of the part that answers a request."""
        (report,) = self.handle(request).reports
        return report

    def reject(self, request: ClassifyRequest) -> Reject:
        """The rejection of a request that must not be answered."""
        outcome = self.outcome(request)
        assert isinstance(outcome, Reject), outcome
        return outcome

    def plan(self, refs: list[str], *, job_id: str = "job") -> Job:
        """Writes a job down, and sends nothing."""
        with Shards() as shards:
            fill(shards, map(ImageRef, refs))
            folder = self.folder(job_id)
            job = new_job(folder, shards, sources=("a list",), model=ModelChoice(), threshold=None)
            return self.planner.write(shards, job)

    def names(self, job_id: str = "job") -> list[str]:
        """The objects in the job's folder."""
        prefix = f"predictions/{job_id}/"
        return [key.removeprefix(prefix) for key in self.bench.keys(prefix)]


def fill(shards: Shards, refs: Iterable[ImageRef]) -> Shards:
    """Adds images to the shards."""
    for ref in refs:
        shards.add(ref)
    return shards
