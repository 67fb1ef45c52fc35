"""The status of a job, read from its folder and the dead-letter queue."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from jobs.batch.closing import Closer, Closing
from jobs.batch.dead_letters import DeadLetters
from jobs.user_error import UserError
from worker.aws.storage import Storage
from worker.batch.job_folder import JobFolder, JobRecord
from worker.contract import Job, NamedFiles, PartReport

JobState = Literal["planning", "sending", "running", "stuck", "complete", "cancelled"]

_READERS: Final = 8
#: There is no rate before this many seconds: the first parts arrive together.
_LEAST_S: Final = 1.0


class RefusedRequest(BaseModel):
    """A request in the dead-letter queue."""

    model_config = ConfigDict(frozen=True)

    shard: int | None
    error_code: str
    error_message: str


class JobStatus(BaseModel):
    """The output of ``twofold batch status``. ``done = scored + failed``, and ``images = done + waiting``."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    state: JobState
    images: int
    done: int
    scored: int
    failed: int
    waiting: int
    errors: dict[str, int]  #: failed rows by error_code
    parts: int
    parts_done: int
    images_per_s: float | None  #: between the creation of the job and its newest part
    left_s: float | None
    refused: list[RefusedRequest]
    closing: str | None = None  #: what came of completing a job whose workers did not, or None
    parent: str | None
    redrives: list[str]
    skipped: dict[str, NamedFiles] = {}  #: files that were not submitted, by reason

    @property
    def settled(self) -> bool:
        """Whether the job makes no further progress by itself."""
        return self.state in {"complete", "cancelled", "stuck"}


class StatusReader:
    """Reads the status of one job, any number of times. The report of a part is read once.

    ``closer`` completes a job whose workers wrote all parts and no more.
    """

    def __init__(self, record: JobRecord, *, dead_letters: DeadLetters | None, closer: Closer | None = None) -> None:
        self._record = record
        self._dead_letters = dead_letters
        self._closer = closer
        self._reports: dict[int, PartReport] = {}

    def read(self) -> JobStatus:
        """Returns the current status. Raises UserError when there is no such job."""
        job, newest = self._record.job(), self._read_parts()
        complete = job is not None and self._record.is_complete()
        closing = None if complete else self._close(job, newest)
        if closing is not None and closing.complete:
            job, complete = self._record.job(), True
        if job is None:
            return self._without_job(closing)
        reports = self._reports.values()
        done, failed = sum(report.rows for report in reports), sum(report.failed for report in reports)
        refused = [] if complete else self._refused(job)
        errors: dict[str, int] = {}
        for report in reports:
            errors = {code: errors.get(code, 0) + report.errors.get(code, 0) for code in errors | report.errors}
        seconds = (newest - job.created_at).total_seconds() if newest else 0.0
        rate = done / seconds if seconds >= _LEAST_S else None
        waiting = job.images - done
        return JobStatus(
            job_id=job.job_id,
            state=self._state(job, complete=complete, given_up=closing is not None, refused=len(refused)),
            images=job.images,
            done=done,
            scored=done - failed,
            failed=failed,
            waiting=waiting,
            errors=errors,
            parts=job.parts,
            parts_done=len(self._reports),
            images_per_s=None if rate is None else round(rate, 1),
            left_s=round(waiting / rate, 1) if rate and not complete else None,
            refused=refused,
            closing=closing.message if closing else None,
            parent=job.parent,
            redrives=self._record.redrives(),
            skipped=job.skipped,
        )

    def _close(self, job: Job | None, newest: datetime | None) -> Closing | None:
        """Completes the job if all parts are there. Without ``job.json``, it may be a short one of one part."""
        if self._closer is None or newest is None or (job is not None and len(self._reports) < job.parts):
            return None
        return None if self._record.is_cancelled() else self._closer.close(self._record, newest=newest)

    def _state(self, job: Job, *, complete: bool, given_up: bool, refused: int) -> JobState:
        if complete:
            return "complete"
        if self._record.is_cancelled():
            return "cancelled"
        if job.shards and not self._record.is_submitted():
            return "sending"
        if given_up:
            return "stuck"
        # Every part that is missing was refused.
        return "stuck" if refused and refused + len(self._reports) >= job.parts else "running"

    def _without_job(self, closing: Closing | None) -> JobStatus:
        """Returns the status before job.json exists. Raises UserError if nothing is known about the job."""
        folder, refused = self._record.folder, self._refused(None)
        begun = next(iter(self._record.storage.list(f"{folder.uri}/")), None) is not None
        if not begun and not refused:
            raise UserError(
                f"No job named {folder.job_id} in {folder.output_uri}. Run 'twofold batch status' to list the jobs; "
                "a request that no worker has received yet is not among them."
            )
        return JobStatus(
            job_id=folder.job_id,
            state="stuck" if refused or closing else "planning",
            **dict.fromkeys(("images", "done", "scored", "failed", "waiting", "parts", "parts_done"), 0),
            errors={},
            images_per_s=None,
            left_s=None,
            refused=refused,
            closing=closing.message if closing else None,
            parent=None,
            redrives=[],
        )

    def _read_parts(self) -> datetime | None:
        """Reads the reports of new parts. Returns the time when the newest part was written."""
        found = dict(self._record.parts())
        with ThreadPoolExecutor(_READERS) as pool:
            numbers = [number for number in found if number not in self._reports]
            self._reports |= dict(zip(numbers, pool.map(self._read_report, numbers), strict=True))
        return max(found.values(), default=None)

    def _read_report(self, number: int) -> PartReport:
        report = self._record.report(number)
        if report is None:
            raise UserError(f"{self._record.folder.part(number)} disappeared: the job is being deleted.")
        return report

    def _refused(self, job: Job | None) -> list[RefusedRequest]:
        if self._dead_letters is None:
            return []
        found: dict[int | None, RefusedRequest] = {}
        for letter in self._dead_letters.of(self._record.folder.job_id):
            for request in letter.requests:
                answered = (request.shard or 0) in self._reports and job is not None
                if request.job_id == self._record.folder.job_id and not answered:
                    found[request.shard] = RefusedRequest(
                        shard=request.shard, error_code=letter.error_code, error_message=letter.error_message
                    )
        return list(found.values())


def jobs_below(output_uri: str, storage: Storage) -> list[tuple[Job, bool]]:
    """Returns all jobs in ``output_uri``, newest first, and whether each one is complete."""
    prefix = f"{output_uri.rstrip('/')}/"
    names = [uri.removeprefix(prefix).rstrip("/") for uri in storage.folders(prefix)]
    records = [JobRecord(JobFolder(output_uri, name), storage) for name in names if not name.startswith("_")]

    def read(record: JobRecord) -> tuple[Job, bool] | None:
        job = record.job()
        return None if job is None else (job, record.is_complete())

    with ThreadPoolExecutor(_READERS) as pool:
        found = [item for item in pool.map(read, records) if item is not None]
    return sorted(found, key=lambda item: item[0].created_at, reverse=True)
