"""What is left after a scenario: rows in the bucket, dead letters, and what workers logged."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from botocore.exceptions import ClientError

from tests.chaos.fault_proxy import Receipt
from tests.conftest import Bench
from worker.contract import PredictionRow, Summary
from worker.predictions import from_csv

_OUTPUT: Final = "predictions/"
#: What every worker writes anew: the same bytes, derived from what is written once.
_MAY_BE_REWRITTEN: Final = re.compile(r"errors/.+|submitted")


@dataclass(frozen=True)
class Letter:
    """A dead letter. ``code`` is empty when SQS moved it by itself, without a reason."""

    body: str
    code: str


@dataclass(frozen=True)
class Evidence:
    """What a bucket, its queues and the logs of the workers hold."""

    rows: dict[str, list[PredictionRow]]  #: by job, of every version of every part
    failed: dict[str, list[PredictionRow]]  #: by job, of the files of failed rows
    rewritten: list[str]  #: keys that were written more than once, without those that may be
    complete: set[str]  #: jobs with ``_SUCCESS`` and a summary of so many rows
    letters: list[Letter]
    received_again: list[str]  #: the bodies of messages that were received more than once
    tracebacks: int  #: in the logs


@dataclass(frozen=True)
class _Version:
    """A version of an object."""

    key: str
    version_id: str
    is_latest: bool

    @property
    def job_id(self) -> str:
        return self.key.split("/")[1]

    @property
    def name(self) -> str:
        """The key below the folder of the job."""
        return self.key.removeprefix(f"{_OUTPUT}{self.job_id}/")


def collect(bench: Bench, receipts: Iterable[Receipt], logs: Sequence[str]) -> Evidence:
    """Collects the evidence. Dead letters are hidden afterwards."""
    written = sorted(_written(bench), key=lambda version: version.key)
    rows = _rows(bench, [version for version in written if version.name.startswith("parts/")])
    times = Counter(version.key for version in written if not _MAY_BE_REWRITTEN.fullmatch(version.name))
    latest = [version for version in written if version.is_latest and version.name.startswith("errors/")]
    return Evidence(
        rows=rows,
        failed=_rows(bench, latest),
        rewritten=[key for key, number in times.items() if number > 1],
        complete={job_id for job_id, found in rows.items() if _is_complete(bench, job_id, len(found))},
        letters=list(_letters(bench)),
        received_again=[receipt.body for receipt in receipts if receipt.receives > 1],
        tracebacks=sum(log.count("Traceback") for log in logs),
    )


def unclosed_jobs(bench: Bench) -> set[str]:
    """Returns the jobs that have a part and no ``_SUCCESS``."""
    written = list(_written(bench))
    with_part = {version.job_id for version in written if version.name.startswith("parts/")}
    return with_part - {version.job_id for version in written if version.name == "_SUCCESS"}


def job_of(body: str) -> str:
    """Returns the job of a message, or an empty text where it has none."""
    try:
        return str(json.loads(body)["job_id"])
    except (ValueError, KeyError, TypeError):
        return ""


def _written(bench: Bench) -> Iterator[_Version]:
    """Yields every version of every object below the output prefix."""
    pages = bench.s3.get_paginator("list_object_versions").paginate(Bucket=bench.bucket, Prefix=_OUTPUT)
    for page in pages:
        for item in page.get("Versions", ()):
            yield _Version(item["Key"], item["VersionId"], item["IsLatest"])


def _rows(bench: Bench, versions: Iterable[_Version]) -> dict[str, list[PredictionRow]]:
    """Reads CSVs, and returns their rows by job."""
    rows: defaultdict[str, list[PredictionRow]] = defaultdict(list)
    for version in versions:
        found = bench.s3.get_object(Bucket=bench.bucket, Key=version.key, VersionId=version.version_id)
        rows[version.job_id] += from_csv(found["Body"].read())
    return dict(rows)


def _is_complete(bench: Bench, job_id: str, rows: int) -> bool:
    try:
        bench.get(f"{bench.output_uri}{job_id}/_SUCCESS")
        summary = Summary.model_validate_json(bench.get(f"{bench.output_uri}{job_id}/summary.json"))
    except ClientError:
        return False
    return summary.rows == rows


def _letters(bench: Bench) -> Iterator[Letter]:
    while letters := _some_letters(bench):
        for letter in letters:
            reason = letter.get("MessageAttributes", {}).get("error_code", {})
            yield Letter(letter["Body"], reason.get("StringValue", ""))


def _some_letters(bench: Bench) -> list[dict[str, Any]]:
    answer = bench.sqs.receive_message(
        QueueUrl=bench.queues.dead_letter_url,
        MaxNumberOfMessages=10,
        VisibilityTimeout=43_200,
        MessageAttributeNames=["error_code"],
    )
    return list(answer.get("Messages", ()))
