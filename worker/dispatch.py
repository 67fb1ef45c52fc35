"""A message's body to an outcome, without a queue. Both ``worker.consumer`` and the Lambda call it.

outcome = dispatch.handle(body, last_try=queue.is_last_try(message), cancelled=stop.overdue)

Done          the message can be deleted
Reject        it can never succeed: it goes to the dead-letter queue, with the reason
Retry         it may succeed later: it goes back to the queue, after ``delay_s`` or a backoff
Interrupted   a Retry whose work was stopped: it is never refused for that, not even on the last receive
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from worker import logs, messages
from worker.batch.attempt import Attempt
from worker.batch.completion import Completion
from worker.batch.part import PartWriter
from worker.batch.plan import Planner
from worker.batch.resolve import JobToPlan, RequestResolver
from worker.contract import ClassifyRequest, PartReport
from worker.errors import Broken, ErrorCode, Interrupted, Reject, Retry

log = logging.getLogger(__name__)

#: What no request answers for, and no worker survives: the message goes back, and the process ends with the reason.
FATAL: Final = (MemoryError, Broken)


def explain_fatal(error: BaseException) -> str:
    """Returns why a worker ends, in one sentence; ``error`` is one of ``FATAL``."""
    if isinstance(error, MemoryError):
        detail = str(error) or "nothing more could be allocated"
        return f"out of memory: {detail}. Give the worker more memory, or lower TWOFOLD_THREADS and TWOFOLD_FETCHERS"
    return str(error)


@dataclass(frozen=True)
class Done:
    """Everything that the message asked for is written."""

    what: str  #: a line for the log
    reports: tuple[PartReport, ...] = ()  #: of the parts that it asked for


Outcome = Done | Reject | Retry


class Dispatch:
    """Handles messages."""

    def __init__(
        self,
        *,
        resolver: RequestResolver,
        parts: PartWriter,
        planner: Planner,
        completion: Completion,
        request_s: float = math.inf,
    ) -> None:
        self._request_s = request_s
        self._resolver = resolver
        self._parts = parts
        self._planner = planner
        self._completion = completion

    def handle(
        self,
        body: str,
        *,
        last_try: bool,
        cancelled: Callable[[], bool],
        progress: Callable[[], None] = lambda: None,
        left_s: float = math.inf,
    ) -> Outcome:
        """Does what the message asks for. Raises what is ``FATAL``, and nothing else.

        ``last_try``, ``cancelled`` and ``progress`` are those of an ``Attempt``. ``left_s``: storage is waited for
        no longer than this, and no longer than ``request_s`` for each request.
        """
        ends_s = time.monotonic() + left_s
        try:
            requests = messages.read(body)
        except ValueError as error:
            return Reject(ErrorCode.BAD_REQUEST, str(error))
        if not requests:
            return Done("a notification without a request")
        outcomes: list[Outcome] = []
        for request in requests:
            patience_s = min(self._request_s, ends_s - time.monotonic())
            attempt = Attempt(last_try=last_try, patience_s=patience_s, cancelled=cancelled, progress=progress)
            outcomes.append(self._answer(request, attempt))
            if isinstance(outcomes[-1], Interrupted):
                break
        # An event may name several objects. If one can be tried again, the message is: the answered ones stay answered.
        for kind in (Retry, Reject):
            for outcome in outcomes:
                if isinstance(outcome, kind):
                    return outcome
        done = [outcome for outcome in outcomes if isinstance(outcome, Done)]
        return Done("; ".join(one.what for one in done), tuple(report for one in done for report in one.reports))

    def _answer(self, request: ClassifyRequest, attempt: Attempt) -> Outcome:
        logs.note(job_id=request.job_id)
        failure: Reject | Retry
        written: list[PartReport] = []
        try:
            return self._carry_out(request, attempt, written)
        except FATAL:
            raise
        except (Reject, Retry) as error:
            failure = error
        except Exception as error:  # a bug must not end the loop, and the message must not be lost
            log.exception("job %s", request.job_id)
            failure = Retry(ErrorCode.INTERNAL, f"{type(error).__name__}: {error}")
        return self._judge(request, failure, written, last_try=attempt.last_try)

    def _carry_out(self, request: ClassifyRequest, attempt: Attempt, written: list[PartReport]) -> Done:
        """Does what the request asks for. ``written`` gets the report of its part as soon as that is there."""
        record = self._resolver.record(request)
        if record.drops(request.edition):
            return Done(f"job {request.job_id} was cancelled")
        planned = self._completion.admit(record, request)
        # Before the manifest is read: a redelivery needs neither the manifest nor the model.
        report = None if planned else self._parts.committed(request, record)
        if report is None:
            resolved = self._resolver.resolve(request, record, planned=planned)
            if isinstance(resolved, JobToPlan):
                job = self._planner.plan(resolved, cancelled=attempt.cancelled, progress=attempt.progress)
                return Done(f"job {job.job_id}: {job.images} images planned as {job.parts} parts")
            report = self._parts.write(resolved, attempt)
        written.append(report)
        self._completion.check(record, request, report, cancelled=attempt.cancelled, progress=attempt.progress)
        part = "" if request.shard is None else f" part {request.shard}"
        what = f"job {report.job_id}{part}: {report.rows} rows, {report.failed} failed, {report.seconds:.3f} s"
        return Done(what, (report,))

    def _judge(
        self, request: ClassifyRequest, failure: Reject | Retry, written: list[PartReport], *, last_try: bool
    ) -> Outcome:
        """Decides what a failure means: a request whose part is written is answered, whatever failed afterwards."""
        if isinstance(failure, Retry) and not last_try:
            return failure
        if self._is_dropped(request):  # while it was at work: what it did not find has been cleared
            return Done(f"job {request.job_id} was cancelled")
        report = written[0] if written else self._report(request)
        if report is not None and not last_try:
            return Retry(failure.code, f"answered, but the job is not completed: {failure.message}")
        if report is not None:
            hint = f"the next request of the job or 'twofold batch status {request.job_id}' completes it"
            log.warning("job %s is answered, but not completed: %s; %s", request.job_id, failure.message, hint)
            return Done(f"job {request.job_id}: {report.rows} rows, {report.failed} failed", (report,))
        if isinstance(failure, Reject | Interrupted):
            return failure
        # SQS alone would move it to the dead-letter queue without the reason.
        return Reject(failure.code, f"on the last try: {failure.message}")

    def _report(self, request: ClassifyRequest) -> PartReport | None:
        try:
            record = self._resolver.record(request)
            return record.report(request.shard or 0, edition=request.edition, answering=request.digest())
        except FATAL:
            raise
        except Exception:  # noqa: BLE001 - then nobody knows, and the failure before it counts
            return None

    def _is_dropped(self, request: ClassifyRequest) -> bool:
        try:
            return self._resolver.record(request).drops(request.edition)
        except FATAL:
            raise
        except Exception:  # noqa: BLE001 - see above
            return False
