"""The plan of a job: first its shards, then ``job.json``, then a message for each shard.

A planner that is killed and started again gets the same result: a shard is written once and never overwritten. The
first shard is written before all others and carries the digest of the complete list. So when two planners have the same
job_id and different lists, only one of them gets past the first shard.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, NamedTuple

from worker.aws.storage import Storage
from worker.batch.job_folder import JobFolder, JobRecord
from worker.batch.resolve import JobToPlan
from worker.batch.shards import MAX_SHARD_BYTES, Shards
from worker.contract import ClassifyRequest, Job, PartReport
from worker.errors import ErrorCode, Interrupted, Reject
from worker.scoring.models import pinned
from worker.threads import pool_of

#: The user metadata of a shard: the digest of all shards.
PLAN: Final = "plan-digest"
#: The tag of every shard. The bucket's lifecycle rule deletes objects that have it (infra/worker.yaml).
TAG: Final = "twofold=shard"

_CONTENT_TYPE: Final = "application/x-ndjson"
_WRITERS: Final = 8

#: Sends requests. All of them are on the queue when it returns.
Sender = Callable[[Iterable[ClassifyRequest]], None]


class ModelChoice(NamedTuple):
    """The model of a job. Neither is set when each worker uses its own default."""

    asked: str | None = None  #: what was asked for: a bundle, or the ``champion.json`` that names one
    pinned: str | None = None  #: the bundle that it named when the job was created


class Planner:
    """Writes jobs, and sends their requests."""

    def __init__(self, *, storage: Storage, send: Sender) -> None:
        self._storage = storage
        self._send = send

    def write(
        self,
        shards: Shards,
        job: Job,
        *,
        cancelled: Callable[[], bool] = lambda: False,
        advance: Callable[[int], None] = lambda _: None,
    ) -> Job:
        """Writes the shards and ``job.json`` that are not there yet, and returns the job as it was first written.

        So a job that has begun keeps its own model, even if the champion has changed since. Raises Reject
        ``conflict`` when another job has that name, and Interrupted once ``cancelled`` returns True.
        """
        record = self._record(job)
        folder, written = record.folder, record.job()
        if written is not None:
            check_same(written, job)
            return written
        numbered = enumerate(shards)
        first = next(numbered)
        self._write_shard(folder, first, job)
        advance(1)
        with pool_of(_WRITERS, "write") as pool:
            # A window of a few shards, and of the bytes of the largest one, bounds the memory.
            window: dict[Future[None], int] = {}
            for shard in numbered:
                if cancelled():
                    raise Interrupted(ErrorCode.UNAVAILABLE, "the worker was stopped while it planned", delay_s=0)
                window[pool.submit(self._write_shard, folder, shard, job)] = len(shard[1])
                while len(window) >= 2 * _WRITERS or sum(window.values()) > MAX_SHARD_BYTES:
                    window = _settle(window, advance)
            while window:
                window = _settle(window, advance)
        if not record.create(job):
            return self.write(shards, job)  # another planner was first
        return job

    def submit(self, job: Job, *, advance: Callable[[int], None] = lambda _: None) -> int:
        """Sends a message for every shard that has no part yet, and returns how many; 0 when they were sent before.

        If it is killed and called again, a message may be sent twice. The second one finds the part. Raises Reject when
        the job was cancelled.
        """
        record = self._record(job)
        folder = record.folder
        if record.drops(job.edition):
            raise Reject(ErrorCode.CONFLICT, f"job {job.job_id} was cancelled: choose another job_id")
        if record.is_submitted(job):
            return 0
        answered = record.answered(job)
        advance(len(answered))
        numbers = (number for number in range(job.parts) if number not in answered)
        requests = (job.request(number, shard_uri=folder.shard(number)) for number in numbers)
        self._send(_counted(requests, advance))
        text = b"a message was sent for every shard\n"
        record.commit(folder.submitted, text, edition=job.edition, content_type="text/plain")
        return job.parts - len(answered)

    def plan(
        self, asked: JobToPlan, *, cancelled: Callable[[], bool], progress: Callable[[], None] = lambda: None
    ) -> Job:
        """Writes a request's images as a job and sends its requests. A second call changes nothing.

        ``progress`` is called for each image that is listed, and for each shard that is written or sent. Raises Reject
        when its manifest can never be read, and Interrupted once ``cancelled`` returns True.
        """
        with Shards() as shards:
            for ref in asked.images:
                shards.add(ref)
                progress()
                if cancelled():
                    raise Interrupted(ErrorCode.UNAVAILABLE, "the worker was stopped while it planned", delay_s=0)
            manifest = asked.request.manifest
            bundle = pinned(asked.model_uri, storage=self._storage)
            # A default model on a worker's own disk has no URI that a request could name. Each worker uses its own.
            shared = bundle.startswith("s3://")
            job = new_job(
                asked.record.folder,
                shards,
                sources=(manifest.uri,) if manifest else (),
                model=ModelChoice(asked=asked.model_uri, pinned=bundle) if shared else ModelChoice(),
                threshold=asked.request.threshold,
                unsure=asked.request.unsure,
            )
            job = self.write(shards, job, cancelled=cancelled, advance=lambda _: progress())
        self.submit(job, advance=lambda _: progress())
        return job

    def _record(self, job: Job) -> JobRecord:
        return JobRecord(JobFolder(job.output_uri, job.job_id), self._storage)

    def _write_shard(self, folder: JobFolder, shard: tuple[int, bytes], job: Job) -> None:
        """Writes a shard, unless it is there. Raises Reject ``conflict`` when that one is of another list."""
        number, body = shard
        uri, metadata = folder.shard(number), {PLAN: job.digest}
        if self._storage.write_once(uri, body, content_type=_CONTENT_TYPE, metadata=metadata, tag=TAG):
            return
        if (self._storage.metadata(uri) or {}).get(PLAN) != job.digest:
            raise _conflict(job)


def new_job(  # noqa: PLR0913 - all that a job asks for
    folder: JobFolder,
    images: Shards | PartReport,
    *,
    sources: tuple[str, ...],
    model: ModelChoice,
    threshold: float | None,
    unsure: tuple[float, float] | None = None,
    parent: Job | None = None,
) -> Job:
    """Returns a job that is created now, in ``folder``.

    ``images`` are its shards, or the report of its only part when the request was short. A job with a ``parent`` asks
    for failed images of that one again, and keeps its columns.
    """
    contents: dict[str, Any]
    if isinstance(images, PartReport):
        contents = {"digest": images.request_digest, "images": images.rows}
    else:
        columns = parent.columns if parent else images.columns
        contents = {"digest": images.digest, "images": images.images, "shards": images.count, "columns": columns}
    return Job(
        job_id=folder.job_id,
        created_at=datetime.now(UTC),
        sources=sources,
        model_uri=model.pinned,
        asked_model_uri=model.asked,
        output_uri=folder.output_uri,
        threshold=threshold,
        unsure=unsure,
        parent=parent.job_id if parent else None,
        **contents,
    )


def check_same(written: Job, job: Job) -> None:
    """Raises Reject ``conflict`` unless both jobs have the same images, model, threshold, band and parent."""

    def asked(one: Job) -> tuple[object, ...]:
        return one.digest, one.images, one.shards, one.asked_model_uri, one.threshold, one.unsure, one.parent

    if asked(written) != asked(job):
        raise _conflict(job)


def _conflict(job: Job) -> Reject:
    if job.edition is not None:  # the folder was cleared a moment ago, for this job
        reason = f"what is left of the cancelled job {job.job_id} is still being written: run the same command again"
        return Reject(ErrorCode.CONFLICT, reason)
    return Reject(
        ErrorCode.CONFLICT,
        f"job {job.job_id} exists with other images, another model, another threshold or another band of unsure "
        "scores: choose another job_id",
    )


def _settle(window: dict[Future[None], int], advance: Callable[[int], None]) -> dict[Future[None], int]:
    done, rest = wait(window, return_when="FIRST_COMPLETED")
    for future in done:
        future.result()
    advance(len(done))
    return {future: window[future] for future in rest}


def _counted(requests: Iterator[ClassifyRequest], advance: Callable[[int], None]) -> Iterator[ClassifyRequest]:
    while batch := list(islice(requests, 10)):
        yield from batch
        advance(len(batch))
