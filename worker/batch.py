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

from worker import manifest, predictions
from worker.contract import ClassifyRequest, ModelManifest, PartReport, PredictionRow, S3Uri
from worker.errors import ErrorCode, Reject, Retry, TwofoldError
from worker.model import Model, Models
from worker.pipeline import Pipeline, check_allowed
from worker.predictions import Rule
from worker.storage import Storage

log = logging.getLogger(__name__)

#: User metadata of the part, at most 2 KB of it: https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html
DIGEST: Final = "request-digest"
REPORT: Final = "part-report"

_MAX_PART_BYTES: Final = 1024 * 1024 * 1024


def part_uri(output_uri: str, job_id: str) -> str:
    """Where the CSV of a job lies."""
    return f"{output_uri.rstrip('/')}/{job_id}/predictions/part-00000.csv"


def errors_uri(output_uri: str, job_id: str) -> str:
    """Where its failed rows lie, if there are any."""
    return f"{output_uri.rstrip('/')}/{job_id}/errors/part-00000.csv"


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
        self._storage = storage
        self._models = models
        self._pipeline = pipeline
        self._allowed = allowed_prefixes
        self._default_model = default_model
        self._default_output = default_output

    def answer(
        self, request: ClassifyRequest, *, last_try: bool = False, cancelled: Callable[[], bool] = lambda: False
    ) -> PartReport:
        """Writes the part, unless it is there, and reports on it.

        An image that storage cannot deliver now fails the request with Retry; on the ``last_try`` it becomes a row.
        ``cancelled`` is asked between images. Raises Reject for a request that can never be answered, Retry otherwise.
        """
        started = time.monotonic()
        output = self._output(request)
        part = part_uri(output, request.job_id)
        report = self._committed(part, request)
        if report is None:
            model = self._model(request)
            rule = Rule.of(model.manifest, threshold=request.threshold)
            rows = list(self._rows(request, model, rule, last_try=last_try, cancelled=cancelled))
            body = predictions.to_csv(rows)
            report = _report(request, rows, body, model.manifest, seconds=time.monotonic() - started)
            report = self._commit(part, body, report, request)
        else:
            log.info("job %s is answered already", request.job_id)
        if report.failed:
            self._write_errors(part, errors_uri(output, request.job_id))
        return report

    def _output(self, request: ClassifyRequest) -> str:
        output = request.output_uri or self._default_output
        if output is None:
            raise Reject(ErrorCode.BAD_REQUEST, "no output_uri, and the worker has no TWOFOLD_OUTPUT_URI")
        check_allowed(output, self._allowed)
        return output

    def _model(self, request: ClassifyRequest) -> Model:
        if request.model_uri is not None:
            check_allowed(request.model_uri, self._allowed)
            return self._models.get(request.model_uri)
        if self._default_model is None:
            raise Reject(ErrorCode.BAD_REQUEST, "no model_uri, and the worker has no TWOFOLD_MODEL_URI")
        return self._models.get(self._default_model)

    def _source_refs(self, request: ClassifyRequest) -> tuple[str, ...] | list[str]:
        if request.manifest is None:
            return request.images or ()
        uri = request.manifest.uri
        check_allowed(uri, self._allowed)
        data = self._storage.read(uri, max_bytes=manifest.MAX_BYTES)
        return manifest.source_refs(data, uri=uri, declared=request.manifest.format)

    def _rows(
        self, request: ClassifyRequest, model: Model, rule: Rule, *, last_try: bool, cancelled: Callable[[], bool]
    ) -> Iterator[PredictionRow]:
        refs = self._source_refs(request)
        scores = self._pipeline.scores(refs, model, cancelled=cancelled)
        for row, (ref, score) in enumerate(zip(refs, scores, strict=True)):
            if isinstance(score, Retry) and not last_try:
                raise score
            if isinstance(score, TwofoldError):
                yield rule.failed(row, ref, score)
            else:
                yield rule.scored(row, ref, score)

    def _committed(self, part: str, request: ClassifyRequest) -> PartReport | None:
        metadata = self._storage.metadata(part)
        if metadata is None:
            return None
        if metadata.get(DIGEST) != request.digest():
            raise Reject(ErrorCode.CONFLICT, f"{part} answers another request: choose another job_id")
        return PartReport.model_validate_json(metadata[REPORT])

    def _commit(self, part: str, body: bytes, report: PartReport, request: ClassifyRequest) -> PartReport:
        """The one conditional write. Whoever lost the race reports what the winner wrote."""
        metadata = {DIGEST: report.request_digest, REPORT: report.model_dump_json()}
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
        sha256=hashlib.sha256(body).hexdigest(),
        size_bytes=len(body),
        model_name=model.name,
        model_version=model.version,
        threshold=model.threshold if request.threshold is None else request.threshold,
        seconds=round(seconds, 3),
    )
