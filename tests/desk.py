"""A worker without a queue, over a real bucket: what it would send and tell is there to be looked at."""

from datetime import UTC, datetime

from tests.conftest import Bench
from worker.aws.storage import Storage
from worker.batch.completion import Completion
from worker.batch.job_folder import JobFolder
from worker.batch.part import Batch
from worker.batch.plan import Intake, Planner
from worker.batch.shards import Draft, fill
from worker.contract import ClassifyRequest, Job, Summary
from worker.dispatch import Dispatch, Done
from worker.manifest.formats import ImageRef
from worker.scoring.models import Models
from worker.scoring.pipeline import Pipeline


class Desk:
    """A dispatch without a queue: what would be sent is in ``sent``, what was told in ``told``."""

    def __init__(self, bench: Bench, storage: Storage, pipeline: Pipeline, champion: str) -> None:
        self.bench = bench
        self.storage = storage
        self.sent: list[ClassifyRequest] = []
        self.told: list[Summary] = []
        self.planner = Planner(storage=storage, send=self.sent.extend)
        batch = Batch(
            storage=storage,
            models=Models(storage=storage),
            pipeline=pipeline,
            allowed_prefixes=(f"s3://{bench.bucket}/",),
            default_model=champion,
            default_output=bench.output_uri,
        )
        self.dispatch = Dispatch(
            batch=batch,
            intake=Intake(storage=storage, batch=batch, planner=self.planner),
            completion=Completion(storage=storage, notify=self.told.append),
        )

    def folder(self, job_id: str) -> JobFolder:
        return JobFolder(self.bench.output_uri, job_id)

    def handle(self, request: ClassifyRequest) -> Done:
        outcome = self.dispatch.handle(request.model_dump_json(), last_try=False, cancelled=lambda: False)
        assert isinstance(outcome, Done), outcome
        return outcome

    def plan(self, refs: list[str], *, job_id: str = "job") -> Job:
        with Draft() as draft:
            fill(draft, map(ImageRef, refs))
            job = Job(
                job_id=job_id,
                created_at=datetime.now(UTC),
                sources=("a list",),
                digest=draft.digest,
                images=draft.images,
                shards=draft.shards,
                output_uri=self.bench.output_uri,
            )
            return self.planner.write(draft, job)

    def names(self, job_id: str = "job") -> list[str]:
        prefix = f"predictions/{job_id}/"
        return [key.removeprefix(prefix) for key in self.bench.keys(prefix)]
