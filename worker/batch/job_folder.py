"""Where everything of a job lies: ``<output_uri>/<job_id>/…``.

job.json                   what was asked for; written when all shards are there
shards/00000.jsonl         500 images each, only where the job was planned
predictions/part-00000.csv one row for every image of the shard of that number
errors/part-00000.csv      its failed rows, if any
redrives/<job_id>          one for each job that asks for failed images of this one again
submitted, cancelled       markers
summary.json, _SUCCESS     written when the last part is in
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from worker.aws.storage import Storage
from worker.contract import Job, PartReport, explain
from worker.errors import ErrorCode, Reject

_PART: Final = re.compile(r"/part-(\d{5})\.csv$")

#: Images of this machine are uploaded here, beside the jobs: no job's name begins so.
UPLOADS: Final = "_uploads"


@dataclass(frozen=True)
class JobFolder:
    """The prefix of one job."""

    output_uri: str
    job_id: str

    @property
    def uri(self) -> str:
        """The prefix itself, without a slash at its end."""
        return f"{self.output_uri.rstrip('/')}/{self.job_id}"

    def part(self, number: int = 0) -> str:
        """The CSV of a part."""
        return f"{self.uri}/predictions/part-{number:05}.csv"

    def errors(self, number: int = 0) -> str:
        """The failed rows of a part, if there are any."""
        return f"{self.uri}/errors/part-{number:05}.csv"

    def shard(self, number: int) -> str:
        """The images of a part."""
        return f"{self.uri}/shards/{number:05}.jsonl"

    @property
    def job(self) -> str:
        """What was asked for."""
        return f"{self.uri}/job.json"

    @property
    def submitted(self) -> str:
        """Marks that a message was sent for every shard."""
        return f"{self.uri}/submitted"

    @property
    def cancelled(self) -> str:
        """Marks that no more is to be done."""
        return f"{self.uri}/cancelled"

    @property
    def summary(self) -> str:
        """Counts, parts and cost, when all parts are in."""
        return f"{self.uri}/summary.json"

    @property
    def success(self) -> str:
        """Marks that all parts are in, and the summary too."""
        return f"{self.uri}/_SUCCESS"

    @property
    def parts(self) -> str:
        """The prefix of all parts."""
        return f"{self.uri}/predictions/"

    @property
    def redrives(self) -> str:
        """The prefix of the pointers to the jobs that ask again."""
        return f"{self.uri}/redrives/"


def part_number(uri: str) -> int | None:
    """The number in a part's name."""
    found = _PART.search(uri)
    return int(found[1]) if found else None


def part_uri(output_uri: str, job_id: str, number: int = 0) -> str:
    """Where a part of a job lies."""
    return JobFolder(output_uri, job_id).part(number)


def errors_uri(output_uri: str, job_id: str, number: int = 0) -> str:
    """Where the failed rows of a part lie, if there are any."""
    return JobFolder(output_uri, job_id).errors(number)


DIGEST: Final = "request-digest"
REPORT: Final = "part-report"


def as_metadata(report: PartReport) -> dict[str, str]:
    """The metadata of a part."""
    return {DIGEST: report.request_digest, REPORT: report.model_dump_json()}


def from_metadata(metadata: Mapping[str, str], uri: str) -> PartReport:
    """The report on the part ``uri``. Raises Reject ``conflict`` where no worker of ours has written it."""
    try:
        return PartReport.model_validate_json(metadata.get(REPORT, ""))
    except ValidationError as error:
        raise Reject(ErrorCode.CONFLICT, f"{uri} was not written by a worker: {explain(error)}") from None


def check_answers(report: PartReport, job: Job, folder: JobFolder, number: int) -> None:
    """Raises Reject ``conflict`` where the part of that number answers another request than the job's."""
    asked = job.request(number, shard_uri=folder.shard(number)).digest() if job.shards else job.digest
    if report.request_digest != asked:
        raise Reject(ErrorCode.CONFLICT, f"{folder.part(number)} answers another request than {folder.job} asks")


_MAX_JSON_BYTES: Final = 1024 * 1024


def find_job(folder: JobFolder, storage: Storage) -> Job | None:
    """The job of that name, if there is one."""
    body = storage.find(folder.job, max_bytes=_MAX_JSON_BYTES)
    if body is None:
        return None
    try:
        return Job.model_validate_json(body)
    except ValidationError as error:
        raise Reject(ErrorCode.CONFLICT, f"{folder.job} was not written by twofold: {explain(error)}") from None


def part_numbers(folder: JobFolder, storage: Storage) -> Iterator[int]:
    """The parts that are there, ascending."""
    for item in storage.list(folder.parts):
        number = part_number(item.uri)
        if number is not None:
            yield number
