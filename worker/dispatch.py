"""A message's body to an outcome, without a queue. Both ``worker.consumer`` and the Lambda call it.

outcome = dispatch.handle(body, last_try=receive_count >= max_receives, cancelled=stop.overdue)

Done     the message can be deleted
Reject   it can never succeed: it goes to the dead-letter queue, with the reason
Retry    it may succeed later: it goes back to the queue, after ``delay_s`` or a backoff
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from worker import logs, messages
from worker.batch.completion import Completion
from worker.batch.part import PartWriter
from worker.batch.plan import Planner
from worker.batch.resolve import JobToPlan, RequestResolver
from worker.contract import ClassifyRequest, PartReport
from worker.errors import ErrorCode, Reject, Retry

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Done:
    """Everything that the message asked for is written."""

    what: str  #: a line for the log
    reports: tuple[PartReport, ...] = ()  #: of the parts that it asked for


Outcome = Done | Reject | Retry


class Dispatch:
    """Handles messages."""

    def __init__(
        self, *, resolver: RequestResolver, parts: PartWriter, planner: Planner, completion: Completion
    ) -> None:
        self._resolver = resolver
        self._parts = parts
        self._planner = planner
        self._completion = completion

    def handle(self, body: str, *, last_try: bool, cancelled: Callable[[], bool]) -> Outcome:
        """Does what the message asks for. Never raises.

        ``last_try``: there is no further receive, so a failure that would be tried again becomes a row or a rejection.
        ``cancelled`` is called between images; once it returns True, the outcome is a Retry without delay.
        """
        try:
            requests = messages.read(body)
        except ValueError as error:
            return Reject(ErrorCode.BAD_REQUEST, str(error))
        if not requests:
            return Done("a notification without a request")
        outcomes = [self._answer(request, last_try=last_try, cancelled=cancelled) for request in requests]
        # An event may name several objects. If one can be tried again, the message is: the answered ones stay answered.
        for kind in (Retry, Reject):
            for outcome in outcomes:
                if isinstance(outcome, kind):
                    return outcome
        done = [outcome for outcome in outcomes if isinstance(outcome, Done)]
        return Done("; ".join(one.what for one in done), tuple(report for one in done for report in one.reports))

    def _answer(self, request: ClassifyRequest, *, last_try: bool, cancelled: Callable[[], bool]) -> Outcome:
        logs.note(job_id=request.job_id)
        try:
            return self._carry_out(request, last_try=last_try, cancelled=cancelled)
        except Reject as error:
            return error
        except Retry as error:
            outcome = error
        except Exception as error:  # a bug must not end the loop, and the message must not be lost
            log.exception("job %s", request.job_id)
            outcome = Retry(ErrorCode.INTERNAL, f"{type(error).__name__}: {error}")
        if last_try:  # SQS alone would move it to the dead-letter queue without the reason
            return Reject(outcome.code, f"on the last receive: {outcome.message}")
        return outcome

    def _carry_out(self, request: ClassifyRequest, *, last_try: bool, cancelled: Callable[[], bool]) -> Done:
        record = self._resolver.record(request)
        if record.is_cancelled():
            return Done(f"job {request.job_id} was cancelled")
        planned = self._completion.admit(record, request)
        # Before the manifest is read: a redelivery needs neither the manifest nor the model.
        report = None if planned else self._parts.committed(request, record)
        if report is None:
            resolved = self._resolver.resolve(request, record, planned=planned)
            if isinstance(resolved, JobToPlan):
                job = self._planner.plan(resolved, cancelled=cancelled)
                return Done(f"job {job.job_id}: {job.images} images planned as {job.parts} parts")
            report = self._parts.write(resolved, last_try=last_try, cancelled=cancelled)
        self._completion.check(record, request, report)
        part = "" if request.shard is None else f" part {request.shard}"
        what = f"job {report.job_id}{part}: {report.rows} rows, {report.failed} failed, {report.seconds:.3f} s"
        return Done(what, (report,))
