"""What failed, asked for again: images as a job that points back, and refused requests as they are."""

from collections.abc import Iterable, Iterator
from itertools import count

from pydantic import BaseModel

from jobs.batch.dead_letters import DeadLetters
from jobs.batch.inputs import Inputs
from jobs.batch.results import Results
from jobs.batch.submit import upload
from jobs.progress import Reporter
from jobs.user_error import UserError
from worker.batch.job_folder import JobRecord
from worker.batch.plan import ModelChoice, Planner, Sender, new_job
from worker.batch.shards import Shards
from worker.contract import ClassifyRequest
from worker.errors import ErrorCode, Reject
from worker.manifest.formats import ImageRef


class Redriven(BaseModel):
    """What was asked for again."""

    job_id: str
    images: int  #: failed ones
    redrive_id: str | None  #: their job
    requests: int  #: refused ones, sent again


class Redrive:
    """Asks again for what failed of a job."""

    def __init__(self, record: JobRecord, *, inputs: Inputs, planner: Planner, send: Sender) -> None:
        self._record = record
        self._results = Results(record)
        self._inputs = inputs
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
        with Shards() as shards:
            self._fill(shards, codes, reporter)
            if not shards.images:
                return Redriven(job_id=job.job_id, images=0, redrive_id=None, requests=0)
            upload(self._inputs, reporter)
            redrive_id = self._ask(shards, reporter)
            return Redriven(job_id=job.job_id, images=shards.images, redrive_id=redrive_id, requests=0)

    def _fill(self, shards: Shards, codes: Iterable[str], reporter: Reporter) -> None:
        with reporter.step("Looking for what failed"):
            for row, asked in self._results.failed(frozenset(codes)):
                # Of an image of this machine, the file as it is now: that is where somebody would mend it.
                file = asked.columns.get("file", "")
                ref = self._inputs.repaired(row.source_ref, file, self._results.job.sources)
                shards.add(ImageRef(ref, asked.version_id, asked.columns), row=row.row)

    def _ask(self, shards: Shards, reporter: Reporter) -> str:
        """Under the next free name; one that was begun with other images, and never sent, stays as it is."""
        for redrive_id in self._free_names():
            try:
                self._submit(shards, redrive_id, reporter)
            except Reject as error:
                if error.code is not ErrorCode.CONFLICT:
                    raise
            else:
                return redrive_id
        raise AssertionError

    def _submit(self, shards: Shards, redrive_id: str, reporter: Reporter) -> None:
        parent = self._results.job
        job = new_job(
            self._record.sibling(redrive_id).folder,
            shards,
            sources=(self._record.folder.uri,),
            model=ModelChoice(asked=parent.asked_model_uri, pinned=parent.model_uri),
            threshold=parent.threshold,
            parent=parent,
        )
        with reporter.step("Writing the plan", total=job.parts) as advance:
            job = self._planner.write(shards, job, advance=advance)
        # Before any part of it: results never miss one that is there.
        pointer = f"{self._record.folder.redrives}{redrive_id}"
        self._record.storage.write(pointer, b"see there\n", content_type="text/plain")
        with reporter.step("Sending requests", total=job.parts) as advance:
            self._planner.submit(job, advance=advance)

    def _free_names(self) -> Iterator[str]:
        """Names that no job was sent under. Raises UserError while one that was is still at work."""
        taken = set(self._record.redrives())
        for number in count(1):
            name = f"{self._record.folder.job_id[:120]}-r{number}"
            redrive = self._record.sibling(name)
            if name not in taken or not redrive.is_submitted():
                yield name
            elif not redrive.is_complete() and not redrive.is_cancelled():
                raise UserError(f"{name} is not complete: wait for it, or 'twofold batch cancel {name}'.")

    def _send_refused(self, dead_letters: DeadLetters | None, reporter: Reporter) -> int:
        if dead_letters is None:
            return 0
        job_id = self._record.folder.job_id
        letters = dead_letters.take(job_id)
        if not letters:
            return 0
        with reporter.step("Sending refused requests again", total=len(letters)) as advance:
            for letter in letters:
                again: list[ClassifyRequest] = [one for one in letter.requests if one.job_id == job_id]
                self._send(again)
                dead_letters.remove([letter])
                advance(1)
        return len(letters)
