"""A request with more images than one part holds, planned by the worker that received it."""

from collections.abc import Callable
from datetime import UTC, datetime

from worker.aws.storage import Storage
from worker.batch import Batch
from worker.contract import ClassifyRequest, Job
from worker.draft import Draft
from worker.errors import ErrorCode, Reject, Retry
from worker.layout import JobFolder
from worker.planner import Planner
from worker.scoring.model import pinned


class Intake:
    """Plans what is too long, and knows what was called off."""

    def __init__(self, *, storage: Storage, batch: Batch, planner: Planner) -> None:
        self._storage = storage
        self._batch = batch
        self._planner = planner

    def is_cancelled(self, folder: JobFolder) -> bool:
        """Whether nothing more is to be done for the job."""
        return self._storage.metadata(folder.cancelled) is not None

    def plan(self, request: ClassifyRequest, *, cancelled: Callable[[], bool]) -> Job:
        """Writes the request's manifest as shards, and asks for each of them. Done twice, it changes nothing.

        Raises Reject where the manifest can never be read, Retry where ``cancelled`` says so.
        """
        if request.manifest is None:
            raise Reject(ErrorCode.CONFLICT, f"there is a job {request.job_id} already: choose another job_id")
        folder = self._batch.folder(request)
        with Draft() as draft:
            for ref in self._batch.reader.references(request.manifest, folder):
                draft.add(ref)
                if cancelled():
                    raise Retry(ErrorCode.UNAVAILABLE, "told to stop while planning", delay_s=0)
            asked = self._batch.model_uri(request)
            model_uri = pinned(asked, storage=self._storage)
            # A default on the worker's own disk has no URI that a request could name: each worker knows its own.
            shared = model_uri.startswith("s3://")
            job = Job(
                job_id=request.job_id,
                created_at=datetime.now(UTC),
                sources=(request.manifest.uri,),
                digest=draft.digest,
                images=draft.images,
                shards=draft.shards,
                columns=draft.columns,
                model_uri=model_uri if shared else None,
                asked_model_uri=asked if shared else None,
                output_uri=folder.output_uri,
                threshold=request.threshold,
            )
            job = self._planner.write(draft, job, cancelled=cancelled)
        self._planner.submit(job)
        return job
