"""One request to one part: fetch, decode, score, write. No queue is involved.

The key of the part follows from the request, and one conditional write commits it. Everything else is derived from the
committed part, so a request that is answered again, by this worker or another, finds the part and changes nothing.
"""

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Iterator
from typing import Final

from worker import predictions
from worker.batch.attempt import Attempt
from worker.batch.job_folder import MISSING_UPLOADS, JobRecord, as_metadata
from worker.batch.resolve import PartToWrite
from worker.contract import UNSURE, ClassifyRequest, ModelManifest, PartReport, PredictionRow
from worker.errors import ErrorCode, Reject, Retry, TwofoldError
from worker.predictions import Rule
from worker.scoring.models import Model, Models
from worker.scoring.pipeline import Pipeline

log = logging.getLogger(__name__)

_MAX_PART_BYTES: Final = 1024 * 1024 * 1024


class PartWriter:
    """Answers requests with one part each."""

    def __init__(self, *, models: Models, pipeline: Pipeline) -> None:
        self._models = models
        self._pipeline = pipeline

    def committed(self, request: ClassifyRequest, record: JobRecord) -> PartReport | None:
        """Returns the report of the request's part if it is there already. Its failed rows are then written too.

        Raises Reject ``conflict`` when the part answers another request.
        """
        report = _report_on(request, record)
        if report is not None:
            log.info("job %s is answered already", request.job_id)
            write_errors(record, report, request.shard or 0, edition=request.edition)
        return report

    def write(self, part: PartToWrite, attempt: Attempt) -> PartReport:
        """Scores the images, commits the part and returns its report.

        An image that storage cannot deliver at the moment raises Retry; on the last try it becomes a row. Raises Reject
        for a request that can never be answered, or else Retry.
        """
        request = part.request
        model = self._models.get(part.model_uri)
        rule = Rule.of(model.manifest, threshold=request.threshold, unsure=request.unsure)
        rows = []
        for row in self._rows(part, model, rule, attempt):
            rows.append(row)
            attempt.progress()
        body = predictions.to_csv(rows, decided=rule.unsure is not None)
        report = _report(request, rows, body, model.manifest, rule, seconds=time.monotonic() - part.started_s)
        report = self._commit(part, body, report)
        write_errors(part.record, report, request.shard or 0, edition=request.edition)
        return report

    def _rows(self, part: PartToWrite, model: Model, rule: Rule, attempt: Attempt) -> Iterator[PredictionRow]:
        missing = f"{part.record.folder.output_uri.rstrip('/')}/{MISSING_UPLOADS}/"
        images = ((line.source_ref, line.version_id) for line in part.lines)
        scores = self._pipeline.scores(images, model, cancelled=attempt.cancelled, patience_s=attempt.patience_s)
        for line, score in zip(part.lines, scores, strict=True):
            if isinstance(score, Retry) and not attempt.last_try:
                raise score
            if isinstance(score, TwofoldError):
                yield rule.failed(line.row, line.source_ref, _reworded(score, line.source_ref, missing))
            else:
                yield rule.scored(line.row, line.source_ref, score)

    def _commit(self, part: PartToWrite, body: bytes, report: PartReport) -> PartReport:
        """Writes the part and returns its report, or that of the other worker if it wrote the part first."""
        uri = part.record.folder.part(part.request.shard or 0)
        edition, metadata, kind = part.request.edition, as_metadata(report), predictions.CONTENT_TYPE
        with self._pipeline.stages.timed("write"):
            written = part.record.commit(uri, body, edition=edition, content_type=kind, metadata=metadata)
        if written:
            return report
        winner = _report_on(part.request, part.record)
        if winner is None:
            raise Retry(ErrorCode.UNAVAILABLE, f"{uri} disappeared while it was in use")
        return winner


def _reworded(error: TwofoldError, ref: str, missing: str) -> TwofoldError:
    """Returns an error that names the file of a list, for one that was not there, and not where it would be stored."""
    if error.code is not ErrorCode.NOT_FOUND or not ref.startswith(missing):
        return error
    return Reject(error.code, f"{ref.removeprefix(missing)} was not there when the list was submitted")


def write_errors(record: JobRecord, report: PartReport, number: int, *, edition: str | None) -> None:
    """Writes the failed rows of a part to a file of their own, if it has any."""
    if report.failed:
        # From the committed part: the two agree, whichever worker wrote it, and whether or not it died in between.
        body = predictions.only_failed(record.storage.read(record.folder.part(number), max_bytes=_MAX_PART_BYTES))
        uri = record.folder.errors(number)
        record.commit(uri, body, edition=edition, content_type=predictions.CONTENT_TYPE)


def _report_on(request: ClassifyRequest, record: JobRecord) -> PartReport | None:
    return record.report(request.shard or 0, edition=request.edition, answering=request.digest())


def _report(
    request: ClassifyRequest,
    rows: list[PredictionRow],
    body: bytes,
    model: ModelManifest,
    rule: Rule,
    *,
    seconds: float,
) -> PartReport:
    errors = Counter(row.error_code for row in rows if row.error_code is not None)
    return PartReport(
        job_id=request.job_id,
        request_digest=request.digest(),
        rows=len(rows),
        scored=len(rows) - errors.total(),
        failed=errors.total(),
        errors=dict(errors),
        positives=sum(row.score is not None and row.score >= row.threshold for row in rows),
        sha256=hashlib.sha256(body).hexdigest(),
        size_bytes=len(body),
        model_name=model.name,
        model_version=model.version,
        threshold=rule.threshold,
        unsure=rule.unsure,
        unsure_rows=None if rule.unsure is None else sum(row.decision == UNSURE for row in rows),
        seconds=round(seconds, 3),
    )
