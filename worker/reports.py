"""What stands in a part's metadata: the digest of the request it answers, and the report on it.

User metadata of an object is ASCII, and at most 2 KB of it:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html
"""

from collections.abc import Mapping
from typing import Final

from pydantic import ValidationError

from worker.contract import Job, PartReport, explain
from worker.errors import ErrorCode, Reject
from worker.layout import JobFolder

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
