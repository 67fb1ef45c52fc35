"""The status of jobs, read from their folders and the dead-letter queue."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from jobs.batch.closing import Closer, Closing
from jobs.batch.dead_letters import Letters, LettersRead, is_in, is_of
from jobs.batch.job_names import job_ids, no_such_job
from jobs.batch.redriven import RedrivenRows
from jobs.batch.results import going_on
from jobs.batch.trying_again import how_to_try_again
from jobs.user_error import UserError
from jobs.wording import with_command
from worker.aws.storage import Storage
from worker.batch.job_folder import JobFolder, JobRecord, unsure_rows
from worker.contract import Job, NamedFiles, PartReport
from worker.errors import Reject

JobState = Literal["waiting", "running", "stuck", "complete", "complete with failures", "cancelled"]

_READERS: Final = 8
#: There is no rate before this many seconds: the first parts arrive together.
_LEAST_S: Final = 1.0
#: How long nothing has happened to a job before its queue is believed to be empty: the number of messages that SQS
#: reports is right a minute after the last one was sent.
_QUIET: Final = timedelta(minutes=5)

#: Returns how many requests the queue holds; None: that is not known.
Pending = Callable[[], int | None]


class RefusedRequest(BaseModel):
    """A request in the dead-letter queue."""

    model_config = ConfigDict(frozen=True)

    shard: int | None
    error_code: str
    error_message: str


class JobStatus(BaseModel):
    """The output of ``twofold batch status``. ``done = scored + failed``, and ``images = done + waiting``.

    A row that a redrive has answered counts as the results show it.
    """

    model_config = ConfigDict(frozen=True)

    job_id: str
    state: JobState
    note: str | None  #: what the state means for this job, or what to do next
    images: int
    done: int
    scored: int
    failed: int
    waiting: int
    errors: dict[str, int]  #: failed rows by error_code
    unsure_rows: int | None = None  #: scored rows in the band of unsure scores; None: no row has one
    parts: int
    parts_done: int
    images_per_s: float | None  #: between the creation of the job and its newest part
    left_s: float | None
    refused: list[RefusedRequest]
    closing: str | None = None  #: what came of completing a job whose workers did not, or None
    model_uri: str | None = None  #: the bundle; None: the workers' own
    sources: tuple[str, ...] = ()
    created_at: datetime | None = None  #: UTC; None: the job is still being planned
    parent: str | None
    redrives: list[str]
    skipped: dict[str, NamedFiles] = {}  #: files that were not submitted, by reason

    @property
    def settled(self) -> bool:
        """Whether the job makes no further progress by itself."""
        return self.state not in {"waiting", "running"}

    @property
    def complete(self) -> bool:
        """Whether every image has a row."""
        return self.state in {"complete", "complete with failures"}

    @property
    def without_answers(self) -> bool:
        """Whether every image has a row, and none of them a score."""
        return self.complete and not self.scored


class StatusReader:
    """Reads the status of one job, any number of times. The report of a part is read once, and each part of a redrive.

    ``closer`` completes a job whose workers wrote all parts and no more. ``pending`` counts the requests in the queue,
    of all jobs and roughly.
    """

    def __init__(
        self,
        record: JobRecord,
        *,
        dead_letters: Letters | None,
        closer: Closer | None = None,
        pending: Pending = lambda: None,
    ) -> None:
        self._record = record
        self._dead_letters = dead_letters
        self._closer = closer
        self._pending = pending
        self._written: dict[int, datetime] = {}  #: the parts that are there
        self._reports: dict[int, PartReport] = {}  #: on them, as far as they were read
        self._redriven: RedrivenRows | None = None
        self._edition: str | None = None  #: that of the job that these were read of

    def read(self) -> JobStatus:
        """Returns the current status. Raises UserError when there is no such job."""
        job = self._record.job()
        newest, complete = self._list_parts(job), self._record.is_complete(job)
        closing = None if complete else self._close(job, newest)
        if closing is not None and closing.complete:
            job, complete = self._record.job(), True
        if job is None:
            return self._without_job(closing)
        redrives = self._record.redrives()
        done = sum(map(job.rows_of, self._written))
        errors, unsure = self._counts(complete=complete, redrives=redrives)
        refused = [] if complete else self._refused(job)
        failed = errors.total()
        seconds = (newest - job.created_at).total_seconds() if newest else 0.0
        rate = done / seconds if seconds >= _LEAST_S else None
        waiting = job.images - done
        state = self._state(job, complete=complete, failed=failed, closing=closing, refused=len(refused))
        if state in {"cancelled", "stuck"}:  # no row follows
            rate = None
        return JobStatus(
            job_id=job.job_id,
            state=state,
            note=self._note(state, job, scored=done - failed, errors=errors, refused=bool(refused)),
            images=job.images,
            done=done,
            scored=done - failed,
            failed=failed,
            waiting=waiting,
            errors=dict(sorted(errors.items())),
            unsure_rows=unsure,
            parts=job.parts,
            parts_done=len(self._written),
            images_per_s=None if rate is None else round(rate, 1),
            left_s=round(waiting / rate, 1) if rate and not complete else None,
            refused=refused,
            closing=closing.message if closing else None,
            model_uri=job.model_uri,
            sources=job.sources,
            created_at=job.created_at,
            parent=job.parent,
            redrives=redrives,
            skipped=job.skipped,
        )

    def _counts(self, *, complete: bool, redrives: list[str]) -> tuple[Counter[str], int | None]:
        """Returns the failed rows by code, and the unsure ones, as the results have them.

        That is, a row that was redriven as it is now.
        """
        errors, unsure = self._first_counts(complete=complete)
        if redrives:
            self._redriven = self._redriven or RedrivenRows(self._record)
            first, now = self._redriven.read(redrives)
            errors.subtract(first.errors)
            errors.update(now.errors)
            if now.unsure is not None:
                unsure = (unsure or 0) + now.unsure - (first.unsure or 0)
        return +errors, unsure  # without the codes that no row has any more

    def _first_counts(self, *, complete: bool) -> tuple[Counter[str], int | None]:
        """Returns those of the job's own parts: once it is complete, from its summary."""
        summary = self._record.summary() if complete else None
        if summary is not None:
            return Counter(summary.errors), summary.unsure_rows
        self._read_reports()
        errors: Counter[str] = Counter()
        for report in self._reports.values():
            errors.update(report.errors)
        return errors, unsure_rows(self._reports.values())

    def _close(self, job: Job | None, newest: datetime | None) -> Closing | None:
        """Completes the job if all parts are there. Without ``job.json``, it may be a short one of one part."""
        if self._closer is None or newest is None or (job is not None and len(self._written) < job.parts):
            return None
        return None if self._record.is_cancelled() else self._closer.close(self._record, newest=newest)

    def _state(self, job: Job, *, complete: bool, failed: int, closing: Closing | None, refused: int) -> JobState:
        if complete:
            return "complete with failures" if failed else "complete"
        if self._record.is_cancelled():
            return "cancelled"
        # No worker can complete it, or every part that is missing was refused.
        if (closing and closing.final) or (refused and refused + len(self._written) >= job.parts) or self._is_lost(job):
            return "stuck"
        return "running" if self._written else "waiting"

    def _is_lost(self, job: Job) -> bool:
        """Whether parts are missing and no request is left that could bring them: it has expired, or was deleted."""
        quiet = datetime.now(UTC) - max([job.created_at, *self._written.values()])
        if len(self._written) >= job.parts or quiet < _QUIET or not self._record.is_submitted(job):
            return False
        if self._pending() != 0:
            return False
        now = self._record.answered(job, known=self._reports)
        return set(now) == set(self._written)  # a part that was written meanwhile is an answer

    def _note(
        self, state: JobState, job: Job | None, *, scored: int, errors: Counter[str], refused: bool
    ) -> str | None:
        job_id = self._record.folder.job_id
        whole = job.parent if job and job.parent else job_id
        if state == "stuck":
            return self._note_when_stuck(job, refused=refused)
        if state == "cancelled" and job:
            return with_command(f"{going_on(job)}, or read what is there:", f"batch results {job_id} --partial")
        if state == "complete with failures":
            return _how_to_read_failures(whole, scored=scored, errors=errors)
        if state == "complete":
            return with_command(f"To write the table{_again(whole)}:", _results(whole))
        if state in {"waiting", "running"} and job and job.shards and not self._record.is_submitted(job):
            return "Its requests are still being sent. If 'submit' was interrupted, run the same command again."
        return "No worker has answered yet." if state == "waiting" else None

    def _note_when_stuck(self, job: Job | None, *, refused: bool) -> str | None:
        job_id = self._record.folder.job_id
        if not refused and job and len(self._written) < job.parts:
            gone = "It cannot go on: the queue holds no request any more. They expire after some days."
            return with_command(f"{gone} Cancel it, and submit it again:", f"batch cancel {job_id}")
        if not refused:
            return None  # ``closing`` says why
        refusal = "It cannot go on: its requests were refused. Remove the cause, then send them again:"
        return with_command(refusal, f"batch redrive {job_id}")

    def _without_job(self, closing: Closing | None) -> JobStatus:
        """Returns the status before job.json exists. Raises UserError if nothing is known about the job."""
        folder, refused = self._record.folder, self._refused(None)
        begun = next(iter(self._record.storage.list(f"{folder.uri}/")), None) is not None
        if not begun and not refused:
            raise no_such_job(folder.job_id, folder.output_uri, self._record.storage)
        state: JobState = "stuck" if refused or (closing and closing.final) else "waiting"
        note = "Its list is being read and split into parts. If 'submit' was interrupted, run the same command again."
        if state == "stuck":
            note = self._note(state, None, scored=0, errors=Counter(), refused=bool(refused)) or ""
        known = {"refused": refused, "closing": closing.message if closing else None}
        return _nothing_known(folder.job_id, state, note or None).model_copy(update=known)

    def _list_parts(self, job: Job | None) -> datetime | None:
        """Lists the parts that are there. Returns the time when the newest one was written."""
        if job and job.edition != self._edition:  # the name was used again
            self._edition, self._reports, self._redriven = job.edition, {}, None
        self._written = self._record.answered(job, known=self._reports) if job else dict(self._record.parts())
        return max(self._written.values(), default=None)

    def _read_reports(self) -> None:
        """Reads the reports of new parts."""
        with ThreadPoolExecutor(_READERS) as pool:
            numbers = [number for number in self._written if number not in self._reports]
            self._reports |= dict(zip(numbers, pool.map(self._read_report, numbers), strict=True))

    def _read_report(self, number: int) -> PartReport:
        report = self._record.report(number, edition=self._edition)
        if report is None:
            raise UserError(f"{self._record.folder.part(number)} disappeared: the job is being deleted.")
        return report

    def _refused(self, job: Job | None) -> list[RefusedRequest]:
        if self._dead_letters is None:
            return []
        found: dict[int | None, RefusedRequest] = {}
        folder = self._record.folder
        for letter in self._dead_letters.of(folder, job):
            for request in letter.requests:
                answered = (request.shard or 0) in self._written and job is not None
                if is_of(request, folder, job) and not answered:
                    found[request.shard] = RefusedRequest(
                        shard=request.shard, error_code=letter.error_code, error_message=letter.error_message
                    )
        return list(found.values())


def _how_to_read_failures(job_id: str, *, scored: int, errors: Counter[str]) -> str:
    what = "Some images have no score" if scored else "No image could be scored"
    read = with_command(f"{what}. To see which and why:", _results(job_id))
    return f"{read}\n{how_to_try_again(job_id, errors)}"


def _is_written(job_id: str) -> bool:
    """Returns whether the table was written here before."""
    return Path(f"{job_id}.csv").exists()


def _again(job_id: str) -> str:
    return f" again, in place of the {job_id}.csv that is here" if _is_written(job_id) else ""


def _results(job_id: str) -> str:
    return f"batch results {job_id}{' --force' if _is_written(job_id) else ''}"


def _nothing_known(job_id: str, state: JobState, note: str | None) -> JobStatus:
    """Returns the status of a job of which not even the number of its images is known."""
    return JobStatus(
        job_id=job_id,
        state=state,
        note=note,
        **dict.fromkeys(("images", "done", "scored", "failed", "waiting", "parts", "parts_done"), 0),
        errors={},
        images_per_s=None,
        left_s=None,
        refused=[],
        parent=None,
        redrives=[],
    )


def all_jobs(
    output_uri: str,
    storage: Storage,
    *,
    letters: LettersRead | None,
    closer: Closer | None,
    pending: Pending = lambda: None,
) -> list[JobStatus]:
    """Returns the status of every job in ``output_uri`` and in the dead letters, newest first.

    A folder in which neither a plan nor a part is, is not a job's.
    """
    names = set(job_ids(output_uri, storage))
    refused = {request.job_id for request in letters.requests() if is_in(request, output_uri)} if letters else ()

    def read(name: str) -> JobStatus | None:
        record = JobRecord(JobFolder(output_uri, name), storage)
        try:
            if name not in refused and record.job() is None and not record.has_shards() and record.report() is None:
                return None
            return StatusReader(record, dead_letters=letters, closer=closer, pending=pending).read()
        except (Reject, UserError) as error:  # one damaged folder must not hide all other jobs
            return _nothing_known(name, "stuck", str(error.message if isinstance(error, Reject) else error))

    with ThreadPoolExecutor(_READERS) as pool:
        found = [status for status in pool.map(read, sorted(names.union(refused))) if status is not None]
    oldest = datetime.min.replace(tzinfo=UTC)
    return sorted(found, key=lambda status: status.created_at or oldest, reverse=True)
