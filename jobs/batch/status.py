"""How far a job is, from the bucket and the queues alone."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from jobs.batch.dead_letters import DeadLetters
from jobs.user_error import UserError
from worker.aws.storage import Storage
from worker.batch.job_folder import JobFolder, find_job, from_metadata, part_number
from worker.contract import Job, PartReport

State = Literal["planning", "sending", "running", "stuck", "complete", "cancelled"]

_READERS: Final = 8
#: Before this many seconds no rate is told: the first parts come together.
_LEAST_S: Final = 1.0


class Refused(BaseModel):
    """A request in the dead-letter queue."""

    model_config = ConfigDict(frozen=True)

    shard: int | None
    error_code: str
    error_message: str


class Standing(BaseModel):
    """What ``twofold batch status`` tells. ``done = scored + failed``, and ``images = done + waiting``."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    state: State
    images: int
    done: int
    scored: int
    failed: int
    waiting: int
    errors: dict[str, int]  #: failed rows by error_code
    parts: int
    parts_done: int
    images_per_s: float | None  #: from the job's start to its newest part
    left_s: float | None
    refused: list[Refused]
    parent: str | None
    redrives: list[str]

    @property
    def settled(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self.state in {"complete", "cancelled", "stuck"}


class Watcher:
    """Looks at one job, as often as one likes; what it has read of a part it does not read again."""

    def __init__(self, *, folder: JobFolder, storage: Storage, dead_letters: DeadLetters | None) -> None:
        self._folder = folder
        self._storage = storage
        self._dead_letters = dead_letters
        self._reports: dict[int, PartReport] = {}

    def look(self) -> Standing:
        """The standing now. Raises UserError when there is no such job."""
        job = find_job(self._folder, self._storage)
        if job is None:
            return self._without_job()
        newest = self._read_parts()
        reports = self._reports.values()
        done, failed = sum(report.rows for report in reports), sum(report.failed for report in reports)
        complete = self._storage.metadata(self._folder.success) is not None
        refused = [] if complete else self._refused(job)
        errors: dict[str, int] = {}
        for report in reports:
            errors = {code: errors.get(code, 0) + report.errors.get(code, 0) for code in errors | report.errors}
        seconds = (newest - job.created_at).total_seconds() if newest else 0.0
        rate = done / seconds if seconds >= _LEAST_S else None
        waiting = job.images - done
        return Standing(
            job_id=job.job_id,
            state=self._state(job, complete=complete, refused=len(refused)),
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
            parent=job.parent,
            redrives=redrives(self._folder, self._storage),
        )

    def _state(self, job: Job, *, complete: bool, refused: int) -> State:
        if complete:
            return "complete"
        if self._storage.metadata(self._folder.cancelled) is not None:
            return "cancelled"
        if job.shards and self._storage.metadata(self._folder.submitted) is None:
            return "sending"
        # All that is missing was refused: nothing will come by itself.
        return "stuck" if refused and refused + len(self._reports) >= job.parts else "running"

    def _without_job(self) -> Standing:
        """Either its shards are being written, or it was refused whole, or nobody has heard of it."""
        refused = self._refused(None)
        begun = next(iter(self._storage.list(f"{self._folder.uri}/")), None) is not None
        if not begun and not refused:
            raise UserError(
                f"No job {self._folder.job_id} below {self._folder.output_uri}. "
                "'twofold batch status' lists the jobs; a request that no worker has seen yet is not among them."
            )
        return Standing(
            job_id=self._folder.job_id,
            state="stuck" if refused else "planning",
            **dict.fromkeys(("images", "done", "scored", "failed", "waiting", "parts", "parts_done"), 0),
            errors={},
            images_per_s=None,
            left_s=None,
            refused=refused,
            parent=None,
            redrives=[],
        )

    def _read_parts(self) -> datetime | None:
        """Reads the reports of parts that are new; when the newest part was written."""
        found: dict[int, datetime] = {}
        for item in self._storage.list(self._folder.parts):
            number = part_number(item.uri)
            if number is not None:
                found[number] = item.modified_at
        with ThreadPoolExecutor(_READERS) as pool:
            numbers = [number for number in found if number not in self._reports]
            self._reports |= dict(zip(numbers, pool.map(self._read_report, numbers), strict=True))
        return max(found.values(), default=None)

    def _read_report(self, number: int) -> PartReport:
        metadata = self._storage.metadata(self._folder.part(number))
        if metadata is None:
            raise UserError(f"{self._folder.part(number)} was there and is gone: somebody deletes this job.")
        return from_metadata(metadata, self._folder.part(number))

    def _refused(self, job: Job | None) -> list[Refused]:
        if self._dead_letters is None:
            return []
        found: dict[int | None, Refused] = {}
        for letter in self._dead_letters.of(self._folder.job_id):
            for request in letter.requests:
                answered = (request.shard or 0) in self._reports and job is not None
                if request.job_id == self._folder.job_id and not answered:
                    found[request.shard] = Refused(
                        shard=request.shard, error_code=letter.error_code, error_message=letter.error_message
                    )
        return list(found.values())


def redrives(folder: JobFolder, storage: Storage) -> list[str]:
    """The jobs that ask for failed images of this one again, oldest first."""
    names = [item.uri.rpartition("/")[2] for item in storage.list(folder.redrives)]
    return sorted(names, key=lambda name: int(name.rpartition("-r")[2]))


def jobs_below(output_uri: str, storage: Storage) -> list[tuple[Job, bool]]:
    """All jobs that were written down, newest first, and whether each is complete."""
    prefix = f"{output_uri.rstrip('/')}/"
    names = [uri.removeprefix(prefix).rstrip("/") for uri in storage.folders(prefix)]
    folders = [JobFolder(output_uri, name) for name in names if not name.startswith("_")]

    def read(folder: JobFolder) -> tuple[Job, bool] | None:
        job = find_job(folder, storage)
        return None if job is None else (job, storage.metadata(folder.success) is not None)

    with ThreadPoolExecutor(_READERS) as pool:
        found = [item for item in pool.map(read, folders) if item is not None]
    return sorted(found, key=lambda item: item[0].created_at, reverse=True)
