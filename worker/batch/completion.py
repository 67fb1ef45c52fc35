"""The completion of a job: ``summary.json``, a notice, and ``_SUCCESS`` once the last part is written.

There is no counter. A worker that has written a part checks whether any other is missing. Storage is consistent, so
the last worker sees them all. Two workers can both be last, and one can be killed halfway: every step may run twice.
What the last worker left undone is done by whoever comes next: a redelivery, or ``twofold batch status``.
"""

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from typing import Final

from worker.aws.storage import Storage
from worker.batch import cost
from worker.batch.job_folder import JobRecord, unsure_rows
from worker.batch.part import write_errors
from worker.batch.plan import ModelChoice, new_job
from worker.contract import ClassifyRequest, Job, PartReport, PartSummary, Summary
from worker.errors import ErrorCode, Interrupted, Reject, Retry

log = logging.getLogger(__name__)

#: Objects on one page of a listing: https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html
_PAGE: Final = 1000
_KEPT: Final = 16  #: jobs kept in memory; each is a small document

#: Called for each job that is complete, at least once.
Notify = Callable[[Summary], None]


def no_notice(_: Summary) -> None:
    """Sends no notice."""


class Completion:
    """Admits requests to their jobs, and completes the jobs."""

    def __init__(self, *, storage: Storage, notify: Notify = no_notice) -> None:
        self._storage = storage
        self._notify = notify
        self._jobs: OrderedDict[tuple[str, str | None], Job] = OrderedDict()

    def admit(self, record: JobRecord, request: ClassifyRequest) -> bool:
        """Returns whether the request was planned before: a part of its own would be counted among those of the job.

        Raises Reject for a shard that no job asks for, for the same reason.
        """
        if request.shard is None:
            written = record.job()
            if written is not None and written.shards is None and written.digest != request.digest():
                raise _another(record)
            return written is not None and written.shards is not None
        job, folder = self._job(record, request.edition), record.folder
        if request.shard >= job.parts or request != job.request(request.shard, shard_uri=folder.shard(request.shard)):
            raise Reject(ErrorCode.CONFLICT, f"the request for shard {request.shard} does not match {folder.job}")
        return False

    def check(
        self,
        record: JobRecord,
        request: ClassifyRequest,
        report: PartReport,
        *,
        cancelled: Callable[[], bool] = lambda: False,
        progress: Callable[[], None] = lambda: None,
    ) -> bool:
        """Completes the job if ``request`` was the last one to be answered. Returns whether the job is complete.

        ``cancelled`` and ``progress`` are called for each part. Raises Interrupted once ``cancelled`` returns True.
        """

        def advance(_: int) -> None:
            progress()
            if cancelled():
                raise Interrupted(ErrorCode.UNAVAILABLE, "the worker is stopping", delay_s=0)

        job = (
            self._job(record, request.edition)
            if request.shard is not None
            else self._short_job(record, request, report)
        )
        return self._complete(record, job, advance)

    def mend(self, record: JobRecord) -> bool:
        """Completes a job whose workers could not, if all of its parts are there. Returns whether it is complete.

        Their last worker may also have been lost before it wrote the failed rows of its part: those are written here.
        Of a short request its part may be all there is. Its ``job.json`` is then written without the sources and the
        model's URI, which only the request knew.
        """
        job = record.job()
        if job is None:
            report = record.report()
            if report is None or record.has_shards():
                return False
            job = new_job(
                record.folder, report, sources=(), model=ModelChoice(), threshold=report.threshold, unsure=report.unsure
            )
            record.create(job)
        if not _all_in(record, job):
            return False
        for number, report in enumerate(_answers(record, job) or ()):
            write_errors(record, report, number, edition=job.edition)
        return self._complete(record, job, lambda _: None)

    def _complete(self, record: JobRecord, job: Job, advance: Callable[[int], None]) -> bool:
        folder = record.folder
        if not _all_in(record, job):
            return False
        if record.is_complete(job):
            return True
        reports = _answers(record, job, advance)
        if reports is None:
            return False
        summary = summarise(job, reports)
        body = summary.model_dump_json(indent=2).encode()
        record.commit(folder.summary, body, edition=job.edition, content_type="application/json")
        # Before the marker: if this worker is killed in between, the notice is sent twice rather than never.
        self._notify(summary)
        record.commit(folder.success, b"summary.json is written\n", edition=job.edition, content_type="text/plain")
        log.info("job %s is complete: %d rows, %d failed", job.job_id, summary.rows, summary.failed)
        return True

    def _job(self, record: JobRecord, edition: str | None) -> Job:
        folder = record.folder
        key = folder.uri, edition  # the name of a cancelled job may be in use again
        if key not in self._jobs:
            job = record.job()
            if job is None:
                raise Reject(ErrorCode.NOT_FOUND, f"{folder.job} is not there: no job asks for this shard")
            self._jobs[key] = job
            if len(self._jobs) > _KEPT:
                self._jobs.popitem(last=False)
        return self._jobs[key]

    def _short_job(self, record: JobRecord, request: ClassifyRequest, report: PartReport) -> Job:
        """Writes the job of a request that was not a shard, so that all jobs look the same afterwards."""
        job = new_job(
            record.folder,
            report,
            sources=(request.manifest.uri,) if request.manifest else (),
            model=ModelChoice(asked=request.model_uri, pinned=request.model_uri),
            threshold=request.threshold,
            unsure=request.unsure,
        )
        if record.create(job):
            return job
        written = record.job()
        if written is None:
            raise Retry(ErrorCode.UNAVAILABLE, f"{record.folder.job} disappeared while it was in use")
        # The digest of a request covers its model and its threshold. A mended job does not know them.
        if (written.digest, written.shards) != (job.digest, None):
            raise _another(record)
        return written


def _another(record: JobRecord) -> Reject:
    message = f"job {record.folder.job_id} exists with another request: choose another job_id"
    return Reject(ErrorCode.CONFLICT, message)


def _all_in(record: JobRecord, job: Job) -> bool:
    """Returns whether there is something by the name of every part.

    Lists the last page first: its parts are usually the last to be written.
    """
    for end in range(job.parts, 0, -_PAGE):
        start = max(0, end - _PAGE)
        if list(islice(record.part_numbers(start=start), end - start)) != list(range(start, end)):
            return False
    return True


def _answers(record: JobRecord, job: Job, advance: Callable[[int], None] = lambda _: None) -> list[PartReport] | None:
    """Reads the reports of all parts; None where one is of an earlier job of that name, and will be replaced."""
    try:
        return record.answers(job, advance=advance)
    except Reject as error:
        if job.edition is None or error.code is not ErrorCode.NOT_FOUND:
            raise
        return None


def summarise(job: Job, reports: list[PartReport]) -> Summary:
    """Adds up the reports of all parts."""
    errors: Counter[str] = Counter()
    for report in reports:
        errors.update(report.errors)
    rows, failed = sum(report.rows for report in reports), sum(report.failed for report in reports)
    worker_s = sum(report.seconds for report in reports)
    return Summary(
        job_id=job.job_id,
        parent=job.parent,
        created_at=job.created_at,
        completed_at=datetime.now(UTC),
        rows=rows,
        scored=rows - failed,
        failed=failed,
        errors=dict(errors),
        positives=sum(report.positives for report in reports),
        unsure_rows=unsure_rows(reports),
        models=tuple(dict.fromkeys(f"{report.model_name} {report.model_version}" for report in reports)),
        worker_s=round(worker_s, 3),
        cost_usd=round(cost.usd(images=rows, parts=len(reports), worker_s=worker_s), 6),
        parts=tuple(
            PartSummary(rows=one.rows, failed=one.failed, sha256=one.sha256, size_bytes=one.size_bytes)
            for one in reports
        ),
    )
