"""The folder of a job, ``<output_uri>/<job_id>/``, and what it holds.

job.json                   what was asked for; written once all shards are there
shards/00000.jsonl         500 images each, only if the job was planned
parts/part-00000.csv       one row for each image of the shard with that number; its report is in the metadata
errors/part-00000.csv      the failed rows of that part, if any
redrives/<job_id>          one for each job that retries failed images of this one
submitted, cancelled       markers
summary.json, _SUCCESS     written when the last part is in

The name of a cancelled job can be used again, by a job with an edition, while a worker of the first is in the middle of
a part. What a job writes once its requests are sent therefore carries its edition in the metadata: readers take an
object of another edition for one that is not there, and writers replace it. A worker looks at the object, then asks
``cancelled`` which edition is answered, and then replaces what it saw: since that marker names an edition before its
first request is sent and never comes back to an earlier one, an object of a later edition is never replaced.
"""

import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

from pydantic import ValidationError

from worker.aws.storage import Storage
from worker.contract import Job, PartReport, Summary, explain
from worker.errors import ErrorCode, Reject, Retry
from worker.threads import pool_of

#: The images of a submitter's machine are uploaded here, next to the jobs. No job's name begins with an underscore.
UPLOADS: Final = "_uploads"
#: Where the files of a list would be that were not there: no object ever is.
MISSING_UPLOADS: Final = f"{UPLOADS}/missing"

#: The user metadata of a part.
DIGEST: Final = "request-digest"
REPORT: Final = "part-report"
#: That of what a job with an edition writes once its requests are sent. That of the marker ``cancelled``, once the name
#: is in use again: the edition that is not cancelled.
EDITION: Final = "edition"

_PART: Final = re.compile(r"part-(\d{5})\.csv")
_MAX_JSON_BYTES: Final = 1024 * 1024
#: Of 100,000 parts, 200 bytes each.
_MAX_SUMMARY_BYTES: Final = 64 * 1024 * 1024
_READERS: Final = 8
_TRIES: Final = 5


@dataclass(frozen=True)
class JobFolder:
    """The prefix of one job."""

    output_uri: str
    job_id: str

    @property
    def uri(self) -> str:
        """The prefix itself, without a slash at its end."""
        return f"{self.output_uri.rstrip('/')}/{self.job_id}"

    @property
    def job(self) -> str:
        """What was asked for."""
        return f"{self.uri}/job.json"

    @property
    def submitted(self) -> str:
        """The marker that shows that a message was sent for every shard."""
        return f"{self.uri}/submitted"

    @property
    def cancelled(self) -> str:
        """The marker that makes workers drop the job's requests."""
        return f"{self.uri}/cancelled"

    @property
    def summary(self) -> str:
        """Counts, parts and cost, once all parts are in."""
        return f"{self.uri}/summary.json"

    @property
    def success(self) -> str:
        """The marker that shows that all parts and the summary are there."""
        return f"{self.uri}/_SUCCESS"

    @property
    def parts(self) -> str:
        """The prefix of all parts."""
        return f"{self.uri}/parts/"

    @property
    def redrives(self) -> str:
        """The prefix of the markers that name the redrives of this job."""
        return f"{self.uri}/redrives/"

    def part(self, number: int = 0) -> str:
        """Returns the URI of a part, a CSV."""
        return f"{self.uri}/parts/part-{number:05}.csv"

    def errors(self, number: int = 0) -> str:
        """Returns the URI of a part's failed rows, which are there if it has any."""
        return f"{self.uri}/errors/part-{number:05}.csv"

    def shard(self, number: int) -> str:
        """Returns the URI of the images that a part answers."""
        return f"{self.uri}/shards/{number:05}.jsonl"


@dataclass(frozen=True)
class JobRecord:
    """What a job's folder holds now. Nothing is cached: each call asks storage."""

    folder: JobFolder
    storage: Storage

    def sibling(self, job_id: str) -> Self:
        """Returns the record of another job with the same ``output_uri``."""
        return type(self)(JobFolder(self.folder.output_uri, job_id), self.storage)

    def job(self) -> Job | None:
        """Reads ``job.json``, if it is there. Raises Reject ``conflict`` when it is not a job."""
        body = self.storage.find(self.folder.job, max_bytes=_MAX_JSON_BYTES)
        if body is None:
            return None
        try:
            return Job.model_validate_json(body)
        except ValidationError as error:
            reason = explain(error)
            raise Reject(ErrorCode.CONFLICT, f"{self.folder.job} was not written by twofold: {reason}") from None

    def summary(self) -> Summary | None:
        """Reads ``summary.json``, if it is there. It is that of a job for which ``is_complete`` is true.

        Raises Reject ``conflict`` when it is not a summary.
        """
        body = self.storage.find(self.folder.summary, max_bytes=_MAX_SUMMARY_BYTES)
        if body is None:
            return None
        try:
            return Summary.model_validate_json(body)
        except ValidationError as error:
            reason = explain(error)
            raise Reject(ErrorCode.CONFLICT, f"{self.folder.summary} was not written by twofold: {reason}") from None

    def create(self, job: Job) -> bool:
        """Writes ``job.json`` unless it is there. Returns whether it was written."""
        body = job.model_dump_json(indent=2).encode()
        return self.storage.write_once(self.folder.job, body, content_type="application/json", metadata={})

    def has_shards(self) -> bool:
        """Returns whether the job was planned, or is being planned."""
        return next(iter(self.storage.list(f"{self.folder.uri}/shards/")), None) is not None

    def commit(
        self, uri: str, body: bytes, *, edition: str | None, content_type: str, metadata: dict[str, str] | None = None
    ) -> bool:
        """Writes an object of this edition once, over what another one left. Returns whether it was written.

        Raises Reject ``conflict`` when the edition was cancelled, and Retry where others write at the same time.
        """
        marked = (metadata or {}) | ({EDITION: edition} if edition else {})
        for _ in range(_TRIES):
            self._refuse_cancelled(edition)
            if self.storage.write_once(uri, body, content_type=content_type, metadata=marked):
                return True
            seen = self.storage.look(uri)
            if seen is None:
                continue
            if seen.metadata.get(EDITION) == edition:
                return False
            self._refuse_cancelled(edition)  # after the look: see above
            if self.storage.overwrite(uri, body, etag=seen.etag, content_type=content_type, metadata=marked):
                return True
        raise Retry(ErrorCode.UNAVAILABLE, f"{uri} changed while it was in use")

    def is_submitted(self, job: Job | None) -> bool:
        """Returns whether a message was sent for every shard of the job. None: there is no ``job.json``."""
        return job is not None and self._metadata(self.folder.submitted, job.edition) is not None

    def is_cancelled(self) -> bool:
        """Returns whether the job was cancelled."""
        marker = self.storage.metadata(self.folder.cancelled)
        return marker is not None and EDITION not in marker

    def drops(self, edition: str | None) -> bool:
        """Returns whether the requests of this edition were cancelled. Another job may have the name since."""
        marker = self.storage.metadata(self.folder.cancelled)
        return marker is not None and marker.get(EDITION) != (edition or "")

    def is_complete(self, job: Job | None) -> bool:
        """Returns whether all parts and the summary of the job are there. None: there is no ``job.json``."""
        return job is not None and self._metadata(self.folder.success, job.edition) is not None

    def answered(self, job: Job, *, known: Container[int] = ()) -> dict[int, datetime]:
        """Returns the parts of the job that are there, each with the time it was written. ``known`` ones are its own.

        A listing does not show editions. Where there can be another one, each part is asked for its own.
        """
        found = {number: at for number, at in self.parts() if number < job.parts}
        if job.edition is None or self.is_complete(job):
            return found

        def is_own(number: int) -> bool:
            return number in known or self._metadata(self.folder.part(number), job.edition) is not None

        with pool_of(_READERS, "read") as pool:
            return {number: found[number] for number, own in zip(found, pool.map(is_own, found), strict=True) if own}

    def parts(self, *, start: int = 0) -> Iterator[tuple[int, datetime]]:
        """Lists the parts that are there, from number ``start`` on, each with the time it was written."""
        after = self.folder.part(start - 1) if start else None
        for item in self.storage.list(self.folder.parts, start_after=after):
            found = _PART.fullmatch(item.uri.removeprefix(self.folder.parts))
            if found:
                yield int(found[1]), item.modified_at

    def part_numbers(self, *, start: int = 0) -> Iterator[int]:
        """Lists the numbers of the parts that are there, ascending, from ``start`` on."""
        return (number for number, _ in self.parts(start=start))

    def report(self, number: int = 0, *, edition: str | None = None, answering: str | None = None) -> PartReport | None:
        """Reads the report of a part of this edition, if it is there.

        Raises Reject ``conflict`` when no worker wrote the part, or when it does not answer the request with the digest
        ``answering``.
        """
        uri = self.folder.part(number)
        metadata = self._metadata(uri, edition)
        if metadata is None:
            return None
        if answering is not None and metadata.get(DIGEST) != answering:
            raise Reject(ErrorCode.CONFLICT, f"{uri} answers a different request: choose another job_id")
        return from_metadata(metadata, uri)

    def answer(self, job: Job, number: int) -> PartReport:
        """Reads the report of a part that must be there.

        Raises Reject: ``not_found``, or ``conflict`` when the part does not answer the request of ``job`` for it.
        """
        folder, report = self.folder, self.report(number, edition=job.edition)
        if report is None:
            raise Reject(ErrorCode.NOT_FOUND, f"{folder.part(number)} is not there")
        asked = job.request(number, shard_uri=folder.shard(number)).digest() if job.shards else job.digest
        if report.request_digest != asked:
            raise Reject(ErrorCode.CONFLICT, f"{folder.part(number)} answers another request than {folder.job} asks")
        return report

    def answers(self, job: Job, *, advance: Callable[[int], None] = lambda _: None) -> list[PartReport]:
        """Reads the reports of all parts, in order. Raises what ``answer`` raises, and what ``advance`` raises."""
        reports = []
        with pool_of(_READERS, "read") as pool:
            for report in pool.map(lambda number: self.answer(job, number), range(job.parts)):
                reports.append(report)
                advance(1)
        return reports

    def redrives(self) -> list[str]:
        """Lists the jobs that retry failed images of this one, oldest first."""
        names = [item.uri.rpartition("/")[2] for item in self.storage.list(self.folder.redrives)]
        return sorted(names, key=lambda name: int(name.rpartition("-r")[2]))

    def _metadata(self, uri: str, edition: str | None) -> dict[str, str] | None:
        """Returns the metadata of an object of this edition, or None where there is none."""
        metadata = self.storage.metadata(uri)
        return None if metadata is None or metadata.get(EDITION) != edition else metadata

    def _refuse_cancelled(self, edition: str | None) -> None:
        if self.drops(edition):
            raise Reject(ErrorCode.CONFLICT, f"job {self.folder.job_id} was cancelled: choose another job_id")


def as_metadata(report: PartReport) -> dict[str, str]:
    """Returns the metadata of a part."""
    return {DIGEST: report.request_digest, REPORT: report.model_dump_json()}


def from_metadata(metadata: Mapping[str, str], uri: str) -> PartReport:
    """Returns the report on the part ``uri``. Raises Reject ``conflict`` when no worker wrote it."""
    try:
        return PartReport.model_validate_json(metadata.get(REPORT, ""))
    except ValidationError as error:
        raise Reject(ErrorCode.CONFLICT, f"{uri} was not written by a worker: {explain(error)}") from None


def unsure_rows(reports: Iterable[PartReport]) -> int | None:
    """Returns how many rows of some parts are unsure, or None where no part has a band of unsure scores."""
    counts = [report.unsure_rows for report in reports if report.unsure_rows is not None]
    return sum(counts) if counts else None
