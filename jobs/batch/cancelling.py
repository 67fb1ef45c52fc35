"""The cancelling of a job, and the next use of its name."""

import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from jobs.batch.dead_letters import DeadLetters
from jobs.batch.job_names import no_such_job
from jobs.user_error import UserError
from jobs.wording import counted, with_command
from worker.batch.job_folder import EDITION, JobRecord
from worker.batch.plan import check_same
from worker.contract import Job
from worker.errors import ErrorCode, Reject

_CLEANERS: Final = 8


def cancel(record: JobRecord, dead_letters: DeadLetters | None) -> bool:
    """Makes workers drop the rest of a job, and removes its refused requests. Returns False for a complete job.

    Raises UserError when nothing is known about the job. A complete job is left as it is.
    """
    folder, storage = record.folder, record.storage
    job = record.job()
    if record.is_complete(job):
        return False
    refused = dead_letters.take(folder, job) if dead_letters else []
    if not refused and next(iter(storage.list(f"{folder.uri}/")), None) is None:
        raise no_such_job(folder.job_id, folder.output_uri, storage)
    storage.write(folder.cancelled, b"workers drop the requests of this job\n", content_type="text/plain")
    if dead_letters:
        # They would be taken for those of the next job of that name.
        dead_letters.remove([letter for letter in refused if letter.is_of(folder, job)])
    return True


@dataclass(frozen=True)
class NameUse:
    """A job about to be submitted, and what holds its name already."""

    record: JobRecord
    written: Job | None  #: ``job.json``
    was_cancelled: bool

    @classmethod
    def of(cls, record: JobRecord, job: Job) -> "NameUse":
        """Looks at the folder of a job. Raises UserError when another job has the name."""
        use = cls(record, record.job(), record.is_cancelled())
        if use.written is not None and not use.was_cancelled:
            try:
                check_same(use.written, job)
            except Reject as error:
                raise _name_taken(use.written, job) from error
        return use

    def prepare(self, job: Job) -> Job:
        """Clears what is left of a cancelled job, unless ``job`` is that one. Returns ``job`` as it is to be written.

        The requests and parts of both could be confused, so the new job gets an edition, which its requests carry.
        """
        if not self.was_cancelled or self._is(job):
            return job
        for name in [*self.record.redrives(), self.record.folder.job_id]:
            _clear(self.record.sibling(name), keep={self.record.folder.cancelled})
        return job.model_copy(update={"edition": secrets.token_hex(4)})

    def words(self, job: Job) -> str | None:
        """Returns what the submission does with a job of that name that was cancelled; None: there is none."""
        if not self.was_cancelled:
            return None
        if not self._is(job):
            return f"{job.job_id} was cancelled: its old results will be deleted."
        done = sum(map(job.rows_of, self.record.part_numbers()))
        return f"{job.job_id} was cancelled, and will go on: {done:,} of {counted(job.images, 'row')} written."

    def revive(self, job: Job) -> None:
        """Lets workers answer the requests of ``job``, as it was written, and no others of that name."""
        folder, storage = self.record.folder, self.record.storage
        if not self.was_cancelled:
            return
        storage.remove(folder.submitted)  # its messages may have been dropped
        if job.edition is None:
            storage.remove(folder.cancelled)
        else:
            text = b"workers drop the requests of this job but for one edition\n"
            storage.write(folder.cancelled, text, content_type="text/plain", metadata={EDITION: job.edition})

    def _is(self, job: Job) -> bool:
        """Whether the job is the one that was cancelled, down to the bundle: a damaged one may have been the reason."""
        if self.written is None:
            return False
        try:
            check_same(self.written, job)
        except Reject:
            return False
        return self.written.model_uri == job.model_uri


def _name_taken(written: Job, job: Job) -> UserError:
    """Returns the error for the name of another job, which says what the other one has."""
    other_images = (written.digest, written.images, written.shards) != (job.digest, job.images, job.shards)
    differs = {
        "other images": other_images,
        "another model": written.asked_model_uri != job.asked_model_uri,
        "another threshold": written.threshold != job.threshold,
        "another band of unsure scores": written.unsure != job.unsure,
    }
    found = " and ".join(what for what, is_so in differs.items() if is_so) or "another origin"
    taken = f"Nothing was uploaded. There is a job named {job.job_id} with {found}."
    if not other_images:
        return UserError(f"{taken} Choose another --job-id.")
    new = "New files need a job of their own: choose another --job-id."
    repaired = f"To try files of {job.job_id} again that were replaced, under the same names:"
    return UserError(with_command(f"{taken} {new} {repaired}", f"batch redrive {job.job_id}"))


def _clear(record: JobRecord, *, keep: set[str]) -> None:
    uris = (item.uri for item in record.storage.list(f"{record.folder.uri}/") if item.uri not in keep)
    try:
        with ThreadPoolExecutor(_CLEANERS) as pool:
            list(pool.map(record.storage.remove, uris))
    except Reject as error:
        if error.code is not ErrorCode.ACCESS_DENIED:
            raise
        name = record.folder.job_id
        raise UserError(
            f"What is left of the cancelled job {name} cannot be removed: {error.message}. Choose another --job-id."
        ) from error
