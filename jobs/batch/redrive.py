"""The redrive of a job: its refused requests are sent again, or its failed images become a job of their own."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import count

from pydantic import BaseModel

from jobs.batch.dead_letters import DeadLetters
from jobs.batch.file_names import FILE
from jobs.batch.inputs import GONE, Inputs
from jobs.batch.results import Results
from jobs.batch.submit import upload
from jobs.batch.tally import Tally
from jobs.batch.trying_again import OF_THE_FILE
from jobs.progress import Reporter
from jobs.user_error import UserError
from jobs.wording import counted, program
from worker.batch.job_folder import JobFolder, JobRecord
from worker.batch.plan import ModelChoice, Planner, Sender, new_job
from worker.batch.shards import Shards
from worker.contract import NamedFiles
from worker.errors import ErrorCode, Reject
from worker.manifest.formats import ImageRef


class Redriven(BaseModel):
    """What a redrive sent."""

    job_id: str
    images: int  #: failed images that are asked for again
    redrive_id: str | None  #: the job that asks for them
    requests: int  #: refused requests that were sent again
    left_out: dict[str, NamedFiles] = {}  #: failed images for which nothing has changed, by what did not


class Redrive:
    """Requests the failed images of a job again."""

    def __init__(self, record: JobRecord, *, inputs: Inputs, planner: Planner, send: Sender) -> None:
        self._record = record
        self._inputs = inputs
        self._planner = planner
        self._send = send

    def run(self, codes: Iterable[str], dead_letters: DeadLetters | None, reporter: Reporter) -> Redriven:
        """Sends refused requests again. If there are none, asks for the images that failed with ``codes``, or with any.

        If it is killed, call it again to continue. Raises UserError while the job or its last redrive is running.
        """
        # First: a job whose only request was refused, or lost with its workers, has no folder yet.
        requests = self._send_refused(dead_letters, reporter)
        if requests:
            return Redriven(job_id=self._record.folder.job_id, images=0, redrive_id=None, requests=requests)
        job = self._results.job
        if job.parent is not None:
            raise UserError(f"{job.job_id} is a redrive of {job.parent}. Run '{program()} batch redrive {job.parent}'.")
        self._results.check_complete(for_redrive=True)
        with Shards() as shards:
            left_out = self._fill(shards, codes, reporter)
            redrive_id = None
            if shards.images:
                upload(self._inputs, reporter)
                redrive_id = self._ask(shards, reporter)
            return Redriven(
                job_id=job.job_id, images=shards.images, redrive_id=redrive_id, requests=0, left_out=left_out
            )

    @cached_property
    def _results(self) -> Results:
        return Results(self._record)

    def _fill(self, shards: Shards, codes: Iterable[str], reporter: Reporter) -> dict[str, NamedFiles]:
        """Adds the failed images that may have a score now. Returns the others: what failed in them is as it was."""
        left_out, lost = Tally(), 0
        with reporter.step("Reading the failed rows"):
            for row, asked in self._results.failed(frozenset(codes)):
                # An uploaded image is uploaded again if its file has changed: users repair their own copy.
                file = asked.columns.get(FILE, "")
                again = self._inputs.repaired(row.source_ref, file, self._results.job.sources)
                if again.same and (again.was_missing or row.error_code in OF_THE_FILE):
                    left_out.add(again.same, file)
                    continue
                lost += again.same == GONE
                shards.add(ImageRef(again.uri, asked.version_id, asked.columns), row=row.row)
        if lost:
            reporter.say(f"{counted(lost, 'file')} {'is' if lost == 1 else 'are'} {GONE}: what was uploaded is sent.")
        return left_out.groups()

    def _ask(self, shards: Shards, reporter: Reporter) -> str:
        """Submits under the next free name and returns it. Skips a redrive with other images that was never sent."""
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
            JobFolder(parent.output_uri, redrive_id),  # as the parent writes it: requests have it in their digests
            shards,
            sources=(self._record.folder.uri,),
            model=ModelChoice(asked=parent.asked_model_uri, pinned=parent.model_uri),
            threshold=parent.threshold,
            unsure=parent.unsure,
            parent=parent,
        )
        with reporter.step("Writing the plan", total=job.parts) as advance:
            job = self._planner.write(shards, job, advance=advance)
        # Written before its requests are sent, so that the results never miss a part that exists.
        pointer = f"{self._record.folder.redrives}{redrive_id}"
        self._record.storage.write(pointer, b"a redrive of this job\n", content_type="text/plain")
        with reporter.step("Sending requests", total=job.parts) as advance:
            self._planner.submit(job, advance=advance)

    def _free_names(self) -> Iterator[str]:
        """Yields names under which no redrive was sent. Raises UserError while one is still running."""
        taken = set(self._record.redrives())
        for number in count(1):
            name = f"{self._record.folder.job_id[:120]}-r{number}"
            redrive = self._record.sibling(name)
            job = redrive.job()
            if name not in taken or not redrive.is_submitted(job):
                yield name
            elif not redrive.is_complete(job) and not redrive.is_cancelled():
                raise UserError(
                    f"{name} is not complete. Wait for it, run '{program()} batch redrive {name}' if it is stuck, or "
                    f"'{program()} batch cancel {name}'."
                )

    def _send_refused(self, dead_letters: DeadLetters | None, reporter: Reporter) -> int:
        if dead_letters is None:
            return 0
        job, sent = self._record.job(), 0
        while letters := dead_letters.take(self._record.folder, job):  # which reads a thousand at a time
            with reporter.step("Sending refused requests again", total=len(letters)) as advance:
                for letter in letters:
                    self._send(letter.requests)  # of other jobs, too: a letter is removed as a whole
                    dead_letters.remove([letter])
                    advance(1)
            sent += len(letters)
        return sent
