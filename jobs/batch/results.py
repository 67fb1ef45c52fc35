"""The results of a job: its parts and those of its redrives, as one table in the order of the manifest."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from typing import Final, NamedTuple

from jobs.batch.job_names import no_such_job
from jobs.user_error import UserError
from jobs.wording import counted, program, with_command
from worker import predictions
from worker.batch.job_folder import JobRecord, unsure_rows
from worker.batch.shards import read_shard
from worker.contract import Job, PredictionRow, ShardLine

_MAX_PART_BYTES: Final = 1024 * 1024 * 1024
#: Parts that are read ahead: a few hundred kilobytes each.
_AHEAD: Final = 8
#: Missing parts that a message names, at most.
_NAMED: Final = 10


class Line(NamedTuple):
    """A row of the results, and the image's columns of the manifest."""

    row: PredictionRow
    columns: dict[str, str]
    version_id: str | None = None  #: of the object, where the manifest names one and its columns are asked for


class Results:
    """The results of one job."""

    def __init__(self, record: JobRecord) -> None:
        """Raises UserError when there is no such job."""
        self.record = record
        self.job = needed_job(record)

    def check_complete(self, *, for_redrive: bool = False) -> None:
        """Raises UserError, which names the missing parts and the next step, unless every image has a row."""
        there = self.record.answered(self.job)
        missing = [number for number in range(self.job.parts) if number not in there]
        if not missing:
            return
        images = sum(self.job.rows_of(number) for number in missing)
        named = ", ".join(map(str, missing[:_NAMED])) + (", …" if len(missing) > _NAMED else "")
        have = "has" if 1 in (images, self.job.images) else "have"
        parts = (
            f"part {named} of {self.job.parts:,} is"
            if len(missing) == 1
            else f"parts {named} of {self.job.parts:,} are"
        )
        raise UserError(
            f"{images:,} of {counted(self.job.images, 'image')} {have} no row yet: {parts} missing. "
            f"{self._next_step(for_redrive=for_redrive)}"
        )

    def _next_step(self, *, for_redrive: bool) -> str:
        name = self.job.job_id
        if self.record.is_cancelled():
            again = going_on(self.job)
            return f"{name} is cancelled. {again}{'.' if for_redrive else ', or add --partial for the rows it has.'}"
        if for_redrive:
            return with_command(f"{name} is not complete yet. Wait for it:", f"batch status {name} --watch")
        return with_command("Add --partial for the rows that are there, or see why:", f"batch status {name}")

    def chunks(self, *, join: bool = False, partial: bool = False) -> Iterator[list[Line]]:
        """Yields the rows in the order of the manifest, part by part. A row that was redriven replaces the failed one.

        Raises UserError when a part is missing, was altered, or does not hold the rows of its shard.
        """
        if not partial:
            self.check_complete()
        redriven = self._redriven()
        window: deque[Future[list[Line]]] = deque()
        with ThreadPoolExecutor(_AHEAD) as pool:
            for number in self.numbers() if partial else range(self.job.parts):
                window.append(pool.submit(self._merged, number, redriven, join=join))
                if len(window) >= _AHEAD:
                    yield window.popleft().result()
            while window:
                yield window.popleft().result()

    def failed(self, codes: frozenset[str]) -> Iterator[tuple[PredictionRow, ShardLine]]:
        """Yields the rows that have no score, with one of ``codes`` or with any, each with its line of the shard."""
        redriven = self._redriven()
        for number in range(self.job.parts):
            rows = [redriven.get(row.row, row) for row in self.part(number)]
            wanted = [row for row in rows if row.error_code is not None and (not codes or row.error_code in codes)]
            if wanted:
                asked = {line.row: line for line in self.shard(number)}
                yield from ((row, asked.get(row.row) or _line_of(row)) for row in wanted)

    def has_decisions(self) -> bool:
        """Returns whether a band of unsure scores was set, so that rows have a decision.

        Asks the summary, or the reports of all parts where there is none yet. Redrives may have been scored by another
        version of the model, with a band or without.
        """
        if self.job.unsure is not None or self._has_band():
            return True
        return any(Results(self.record.sibling(name)).has_decisions() for name in self.record.redrives())

    def _has_band(self) -> bool:
        # Asked first: the summary of a job that had the name before may be there still.
        summary = self.record.summary() if self.record.is_complete(self.job) else None
        if summary is not None:
            return summary.unsure_rows is not None
        with ThreadPoolExecutor(_AHEAD) as pool:
            reports = pool.map(lambda number: self.record.answer(self.job, number), self.numbers())
            return unsure_rows(reports) is not None

    def shard(self, number: int) -> list[ShardLine]:
        """Returns the lines of a shard, or nothing when the job was short and has no shards."""
        if self.job.shards is None:
            return []
        uri = self.record.folder.shard(number)
        return read_shard(self.record.storage.read(uri, max_bytes=_MAX_PART_BYTES), uri)

    def numbers(self) -> list[int]:
        """Returns the numbers of the parts that are there."""
        return list(self.record.answered(self.job))

    def _merged(self, number: int, redriven: dict[int, PredictionRow], *, join: bool) -> list[Line]:
        asked = {line.row: line for line in self.shard(number)} if join else {}
        rows = [redriven.get(row.row, row) for row in self.part(number)]
        return [
            Line(row, line.columns, line.version_id) if (line := asked.get(row.row)) else Line(row, {}) for row in rows
        ]

    def part(self, number: int) -> list[PredictionRow]:
        """Returns the rows of a part. Raises UserError when it was altered, or does not hold the rows of its shard."""
        uri = self.record.folder.part(number)
        report = self.record.answer(self.job, number)
        body = self.record.storage.read(uri, max_bytes=_MAX_PART_BYTES)
        if sha256(body).hexdigest() != report.sha256:
            raise UserError(f"{uri} is not the file that the worker wrote: its digest differs.")
        rows = predictions.from_csv(body)
        if len(rows) != self.job.rows_of(number):
            raise UserError(f"{uri} holds {len(rows)} rows, but its shard has {self.job.rows_of(number)} images.")
        return rows

    def _redriven(self) -> dict[int, PredictionRow]:
        """Returns the rows of all redrives by row number: for each, the newest one with a score, or else the newest."""
        found: dict[int, PredictionRow] = {}
        for name in self.record.redrives():
            again = Results(self.record.sibling(name))
            for number in again.numbers():
                for row in again.part(number):
                    if row.error_code is None or row.row not in found or found[row.row].error_code is not None:
                        found[row.row] = row
        return found


def needed_job(record: JobRecord) -> Job:
    """Returns the job. Raises UserError when there is none, or none yet."""
    job, folder = record.job(), record.folder
    if job is not None:
        return job
    if record.has_shards():
        planned = f"{folder.job_id} is still being planned. To wait for it:"
        raise UserError(with_command(planned, f"batch status {folder.job_id} --watch"))
    raise no_such_job(folder.job_id, folder.output_uri, record.storage)


def going_on(job: Job) -> str:
    """Returns what makes a cancelled job go on, as a sentence without its end."""
    if job.parent:
        return f"Run '{program()} batch redrive {job.parent}' to try its images again"
    return "Submit the same again to go on"


def _line_of(row: PredictionRow) -> ShardLine:
    return ShardLine(row=row.row, source_ref=row.source_ref)
