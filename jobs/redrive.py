"""What failed, asked for again: images as a job that points back, and refused requests as they are."""

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import count

from pydantic import BaseModel

from jobs.dead_letters import DeadLetters
from jobs.errors import UserError
from jobs.progress import Reporter
from jobs.results import Results
from jobs.standing import redrives
from worker.contract import ClassifyRequest, Job
from worker.draft import Draft
from worker.layout import JobFolder
from worker.planner import Planner, Sender
from worker.storage import Storage
from worker.table import ImageRef


class Redriven(BaseModel):
    """What was asked for again."""

    job_id: str
    images: int  #: failed ones
    redrive_id: str | None  #: their job
    requests: int  #: refused ones, sent again


class Redrive:
    """Asks again for what failed of a job."""

    def __init__(self, *, folder: JobFolder, storage: Storage, planner: Planner, send: Sender) -> None:
        self._results = Results(folder=folder, storage=storage)
        self._folder = folder
        self._storage = storage
        self._planner = planner
        self._send = send

    def run(self, codes: Iterable[str], dead_letters: DeadLetters | None, reporter: Reporter) -> Redriven:
        """Sends refused requests again, or else the failed images of the given codes, or of all.

        Killed on the way and called again, it goes on. Raises UserError where the job is still at work.
        """
        job = self._results.job
        if job.parent is not None:
            raise UserError(f"{job.job_id} asks again for images of {job.parent}: redrive {job.parent}.")
        requests = self._send_refused(dead_letters, reporter)
        if requests:
            return Redriven(job_id=job.job_id, images=0, redrive_id=None, requests=requests)
        self._results.check_complete()
        redrive_id = self._free_name()
        with Draft() as draft, reporter.step("Looking for what failed"):
            for row, asked in self._results.failed(frozenset(codes)):
                draft.add(ImageRef(row.source_ref, asked.version_id, asked.columns), row=row.row)
            if not draft.images:
                return Redriven(job_id=job.job_id, images=0, redrive_id=None, requests=0)
            self._ask(draft, redrive_id, reporter)
            return Redriven(job_id=job.job_id, images=draft.images, redrive_id=redrive_id, requests=0)

    def _ask(self, draft: Draft, redrive_id: str, reporter: Reporter) -> None:
        parent = self._results.job
        job = Job(
            job_id=redrive_id,
            created_at=datetime.now(UTC),
            sources=(self._folder.uri,),
            digest=draft.digest,
            images=draft.images,
            shards=draft.shards,
            columns=parent.columns,
            model_uri=parent.model_uri,
            output_uri=parent.output_uri,
            threshold=parent.threshold,
            parent=parent.job_id,
        )
        with reporter.step("Writing the plan", total=job.parts) as advance:
            job = self._planner.write(draft, job, advance=advance)
        # Before any part of it: results never miss one that is there.
        self._storage.write(f"{self._folder.redrives}{redrive_id}", b"see there\n", content_type="text/plain")
        with reporter.step("Sending requests", total=job.parts) as advance:
            self._planner.submit(job, advance=advance)

    def _free_name(self) -> str:
        """The next number; the last one's again as long as it is not known to be sent."""
        taken = set(redrives(self._folder, self._storage))
        for number in count(1):
            name = f"{self._folder.job_id[:120]}-r{number}"
            folder = JobFolder(self._folder.output_uri, name)
            if name not in taken or self._storage.metadata(folder.submitted) is None:
                return name
            if self._storage.metadata(folder.success) is None and self._storage.metadata(folder.cancelled) is None:
                raise UserError(f"{name} is not complete: wait for it, or 'twofold batch cancel {name}'.")
        raise AssertionError

    def _send_refused(self, dead_letters: DeadLetters | None, reporter: Reporter) -> int:
        if dead_letters is None:
            return 0
        letters = dead_letters.take(self._folder.job_id)
        if not letters:
            return 0
        with reporter.step("Sending refused requests again", total=len(letters)) as advance:
            for letter in letters:
                again: list[ClassifyRequest] = [one for one in letter.requests if one.job_id == self._folder.job_id]
                self._send(again)
                dead_letters.remove([letter])
                advance(1)
        return len(letters)
