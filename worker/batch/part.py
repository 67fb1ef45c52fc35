"""One request to one part: fetch, decode, score, write. Never sees a queue.

The part's key follows from the request, and one conditional write commits it. All else is derived from what was
committed, so a request that is answered again, by this worker or another, finds the part and changes nothing.
"""

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from worker import predictions
from worker.aws.storage import Storage
from worker.batch.job_folder import DIGEST, JobFolder, as_metadata, from_metadata
from worker.batch.resolve import Reader
from worker.contract import (
    ClassifyRequest,
    ModelManifest,
    PartReport,
    PredictionRow,
    S3Uri,
    ShardLine,
)
from worker.errors import ErrorCode, Reject, Retry, TwofoldError
from worker.predictions import Rule
from worker.scoring.models import Model, Models
from worker.scoring.pipeline import Pipeline
from worker.uris import check_allowed

log = logging.getLogger(__name__)

_MAX_PART_BYTES: Final = 1024 * 1024 * 1024


class Batch:
    """Answers requests. ``default_model`` and ``default_output`` stand in for what a request leaves out."""

    def __init__(
        self,
        *,
        storage: Storage,
        models: Models,
        pipeline: Pipeline,
        allowed_prefixes: tuple[S3Uri, ...],
        default_model: str | None = None,
        default_output: str | None = None,
    ) -> None:
        self.reader = Reader(storage=storage, allowed_prefixes=allowed_prefixes)  #: of what requests ask for
        self._storage = storage
        self._models = models
        self._pipeline = pipeline
        self._allowed = allowed_prefixes
        self._default_model = default_model
        self._default_output = default_output

    def answer(
        self, request: ClassifyRequest, *, last_try: bool = False, cancelled: Callable[[], bool] = lambda: False
    ) -> PartReport | None:
        """Writes the part, unless it is there, and reports on it. None, and nothing done: the request is to be planned,
        since there are too many images for one part, or there is more to keep of them than their names.

        An image that storage cannot deliver now fails the request with Retry; on the ``last_try`` it becomes a row.
        ``cancelled`` is asked between images. Raises Reject for a request that can never be answered, Retry otherwise.
        """
        started = time.monotonic()
        folder, number = self.folder(request), request.shard or 0
        part = folder.part(number)
        report = self._committed(part, request)
        if report is None:
            asked = self.reader.lines(request, folder)
            if asked is None:
                return None
            model = self._models.get(self.model_uri(request))
            rule = Rule.of(model.manifest, threshold=request.threshold)
            rows = list(self._rows(asked, model, rule, last_try=last_try, cancelled=cancelled))
            body = predictions.to_csv(rows)
            report = _report(request, rows, body, model.manifest, seconds=time.monotonic() - started)
            report = self._commit(part, body, report, request)
        else:
            log.info("job %s is answered already", request.job_id)
        if report.failed:
            self._write_errors(part, folder.errors(number))
        return report

    def folder(self, request: ClassifyRequest) -> JobFolder:
        """Where the answer goes. Raises Reject when nothing says so, or it must not go there."""
        output = request.output_uri or self._default_output
        if output is None:
            raise Reject(ErrorCode.BAD_REQUEST, "no output_uri, and the worker has no TWOFOLD_OUTPUT_URI")
        check_allowed(output, self._allowed)
        return JobFolder(output, request.job_id)

    def model_uri(self, request: ClassifyRequest) -> str:
        """What is to score the images. Raises Reject when nothing says so, or it must not be read."""
        if request.model_uri is not None:
            check_allowed(request.model_uri, self._allowed)
            return request.model_uri
        if self._default_model is None:
            raise Reject(ErrorCode.BAD_REQUEST, "no model_uri, and the worker has no TWOFOLD_MODEL_URI")
        return self._default_model

    def _rows(
        self, asked: list[ShardLine], model: Model, rule: Rule, *, last_try: bool, cancelled: Callable[[], bool]
    ) -> Iterator[PredictionRow]:
        scores = self._pipeline.scores(
            ((line.source_ref, line.version_id) for line in asked), model, cancelled=cancelled
        )
        for line, score in zip(asked, scores, strict=True):
            if isinstance(score, Retry) and not last_try:
                raise score
            if isinstance(score, TwofoldError):
                yield rule.failed(line.row, line.source_ref, score)
            else:
                yield rule.scored(line.row, line.source_ref, score)

    def _committed(self, part: str, request: ClassifyRequest) -> PartReport | None:
        metadata = self._storage.metadata(part)
        if metadata is None:
            return None
        if metadata.get(DIGEST) != request.digest():
            raise Reject(ErrorCode.CONFLICT, f"{part} answers another request: choose another job_id")
        return from_metadata(metadata, part)

    def _commit(self, part: str, body: bytes, report: PartReport, request: ClassifyRequest) -> PartReport:
        """The one conditional write. Whoever lost the race reports what the winner wrote."""
        metadata = as_metadata(report)
        with self._pipeline.stages.timed("write"):
            written = self._storage.write_once(part, body, content_type=predictions.CONTENT_TYPE, metadata=metadata)
        if written:
            return report
        winner = self._committed(part, request)
        if winner is None:
            raise Retry(ErrorCode.UNAVAILABLE, f"{part} was there and is gone")
        return winner

    def _write_errors(self, part: str, uri: str) -> None:
        """From the part as committed, so that the two agree whoever wrote it; also where a worker died in between."""
        body = predictions.only_failed(self._storage.read(part, max_bytes=_MAX_PART_BYTES))
        self._storage.write(uri, body, content_type=predictions.CONTENT_TYPE)


def _report(
    request: ClassifyRequest, rows: list[PredictionRow], body: bytes, model: ModelManifest, *, seconds: float
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
        threshold=model.threshold if request.threshold is None else request.threshold,
        seconds=round(seconds, 3),
    )
