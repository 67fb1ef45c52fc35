"""The entry point on AWS Lambda: takes messages from the queue, and returns the ones that must come back.

    {"Records": [{"messageId": …, "receiptHandle": …, "body": …, "attributes": …}]}  ->  {"batchItemFailures": […]}

Lambda receives the messages. The function deletes or rejects each one itself, as the loop does, and names those that
must come back; Lambda deletes the others, which does no harm. If the answer names a blank or unknown message, Lambda
takes all of them as failed. So the ids are checked before any work, and no content of a message can raise. A function
that cannot work at all, as with a wrong setting, does raise: its messages come back, and the alarm on errors goes off.
Where the process cannot go on, as without memory, it gives its messages back and ends.
"""

import gc

gc.disable()  # until everything is loaded: imports leave no garbage, and collecting takes a tenth of the start

import time

_STARTED_S = time.perf_counter()

from worker.scoring.template import Template

#: Started before anything else is imported: it loads LiteRT and Pillow while this process loads the AWS SDK.
_TEMPLATE = Template()

import logging
import os
import sys
from contextlib import ExitStack, suppress
from contextvars import copy_context
from functools import cache
from typing import Any, Final, NoReturn, Protocol

from worker import logs
from worker.aws.clients import open_session
from worker.aws.queue import Message, Queue, renewals
from worker.bootstrap import open_dispatch, open_queue
from worker.cloudwatch import Meter
from worker.delivery import give_back, settle
from worker.dispatch import FATAL, Dispatch, Outcome, explain_fatal
from worker.errors import Broken, ErrorCode, Interrupted
from worker.scoring.pipeline import Stages
from worker.settings import WorkerSettings
from worker.threads import pool_of

log = logging.getLogger(__name__)
_IMPORTS_MS: Final = (time.perf_counter() - _STARTED_S) * 1000

#: Kept at the end of a call for giving messages back: Lambda kills the process when the time is up.
_CUT_MS: Final = 3000
#: What is still at work with so little left waits for something that does not answer, and cannot be stopped.
_HUNG_MS: Final = 1500


class Context(Protocol):
    """A call, as Lambda describes it: https://docs.aws.amazon.com/lambda/latest/dg/python-context.html ."""

    aws_request_id: str
    function_name: str

    def get_remaining_time_in_millis(self) -> int:
        """Returns the time until the process is killed."""


class Serverless:
    """Answers calls. No request is started with less than ``start_s`` seconds left; the start took ``cold_ms``."""

    def __init__(self, *, queue: Queue, dispatch: Dispatch, stages: Stages, start_s: float, cold_ms: float) -> None:
        self._queue = queue
        self._dispatch = dispatch
        self._stages = stages
        self._start_ms = start_s * 1000
        self._cold_ms: float | None = cold_ms  # reported once
        self._thread = pool_of(1, "call")

    def handle(self, event: dict[str, Any], context: Context) -> dict[str, list[dict[str, str]]]:
        """Answers the messages of one call, one after another, and returns the ones that must come back."""
        messages = read_event(event)
        cold_ms, self._cold_ms = self._cold_ms, None
        self._stages.take()
        meter = Meter(function=context.function_name, request_id=context.aws_request_id, cold=cold_ms is not None)
        failed = []
        for place, message in enumerate(messages):
            with logs.about(message_id=message.message_id):
                try:
                    outcome = self._answer(message, context)
                except FATAL as error:
                    give_back(self._queue, message, error)
                    self._release(messages[place + 1 :], "the process ends")
                    raise
                except TimeoutError:
                    self._release(messages[place:], "storage does not answer, and the process ends")
                    raise Broken("a call to storage has not returned at the end of the time of Lambda") from None
                meter.count(outcome)
                if not settle(self._queue, message, outcome):
                    failed.append({"itemIdentifier": message.message_id})
        for line in meter.lines(now_ms=time.time_ns() // 1_000_000, stages=self._stages.take(), start_ms=cold_ms):
            print(line)
        return {"batchItemFailures": failed}

    def _answer(self, message: Message, context: Context) -> Outcome:
        left_ms = context.get_remaining_time_in_millis()
        if left_ms < self._start_ms:
            left = f"{left_ms:,} ms of the call were left, and TWOFOLD_STOP_S asks for {self._start_ms:,.0f}"
            return Interrupted(ErrorCode.UNAVAILABLE, f"not started: {left}", delay_s=0)
        # In a thread, since a call of the SDK that never returns cannot be cancelled. It can be left alone.
        answer = self._thread.submit(
            copy_context().run,
            self._dispatch.handle,
            message.body,
            last_try=self._queue.is_last_try(message),
            cancelled=lambda: context.get_remaining_time_in_millis() < _CUT_MS,
            left_s=(left_ms - 2 * _CUT_MS) / 1000,  # so that what storage has delivered can be written
        )
        return answer.result(timeout=max(0.0, left_ms - _HUNG_MS) / 1000)

    def _release(self, messages: list[Message], reason: str) -> None:
        """Gives messages back, since the process ends: Lambda would hide them for long."""
        for message in messages:
            with suppress(Exception):  # the reason why the process ends is what counts
                settle(self._queue, message, Interrupted(ErrorCode.UNAVAILABLE, reason, delay_s=0))


def read_event(event: dict[str, Any]) -> list[Message]:
    """Reads the messages of an SQS event, but not their bodies. Raises ValueError unless each one has an id."""
    try:
        messages = [
            Message(
                message_id=record["messageId"],
                receipt_handle=record["receiptHandle"],
                body=record["body"],
                receive_count=int(record["attributes"]["ApproximateReceiveCount"]),
                renewed=renewals(record.get("messageAttributes"), value="stringValue"),
            )
            for record in event["Records"]
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"not an event of an SQS queue: {error!r}. Was the function called by hand?") from error
    if not all(message.message_id for message in messages):
        raise ValueError("not an event of an SQS queue: a record without messageId")
    return messages


@cache
def _serverless() -> Serverless:
    """Wires the worker at the first call and keeps it. If that fails, the next call tries again."""
    started_s = time.perf_counter()
    settings = WorkerSettings()
    logs.configure_lambda(settings.log_level)
    session = open_session()
    stages = Stages()
    queue = open_queue(settings, session)
    # A stack exists before its first model does, and its bucket sends a test event at once, which must not fail.
    dispatch = _open.enter_context(
        open_dispatch(settings, session, template=_TEMPLATE, stages=stages, needs_model=False)
    )
    gc.freeze()
    cold_ms = _IMPORTS_MS + (time.perf_counter() - started_s) * 1000
    return Serverless(queue=queue, dispatch=dispatch, stages=stages, start_s=settings.stop_s, cold_ms=cold_ms)


_open: Final = ExitStack()  # never closed: Lambda ends a process without notice


def handler(event: dict[str, Any], context: Context) -> dict[str, list[dict[str, str]]]:
    """Answers a call of Lambda, which knows this function as ``worker.serverless.handler``."""
    try:
        try:
            serverless = _serverless()
        finally:
            gc.enable()
        return serverless.handle(event, context)
    except FATAL as error:
        _end(error)


def _end(error: BaseException) -> NoReturn:
    """Ends the process: Lambda starts a fresh one for the next call, while this one would fail again."""
    log.critical("the process ends: %s", explain_fatal(error))
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
