"""The command that runs a worker.

    python -m worker            until SIGTERM or SIGINT
    python -m worker --drain    until the queue is empty

Exit status: 0 stopped or drained, 1 the queue or the model cannot be used, or the worker cannot go on, 2 a setting is
missing or invalid.
"""

import gc

gc.disable()  # until everything is loaded: imports leave no garbage, and collecting takes a tenth of the start

import os
import signal
import time

_STARTED_S = time.perf_counter()


def _end_early(_number: int, _frame: object) -> None:
    """Ends a worker that holds no message yet."""
    os.write(2, b"stopped before it was ready\n")
    os._exit(0)


if __name__ == "__main__":  # before the imports below, which take most of a second
    # The kernel drops a signal to process 1 of a container that has no handler for it.
    for _number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(_number, _end_early)
    # The image starts with both blocked, so that one that came before these lines has waited.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))

from worker.scoring.template import Template

#: Started before anything else is imported: it loads LiteRT and Pillow while this process loads the AWS SDK.
_TEMPLATE = Template() if __name__ == "__main__" else None

import argparse
import faulthandler
import logging
import sys
from collections.abc import Callable
from types import FrameType
from typing import Final, NoReturn

from pydantic import ValidationError

from worker import logs
from worker.aws.clients import open_lease_sqs, open_session
from worker.bootstrap import check_settings, open_dispatch, open_queue
from worker.cloudwatch import LoopMeter
from worker.consumer import Consumer, Stop
from worker.delivery import LeaseKeeper, attempt_s
from worker.dispatch import FATAL, Outcome, explain_fatal
from worker.errors import TwofoldError
from worker.health import Heartbeat
from worker.scoring.pipeline import Stages
from worker.settings import WorkerSettings, explain_settings

log = logging.getLogger("worker")

#: The time for giving messages back after the grace period. With the default of 20 s a worker stops well within the
#: 30 s of a container.
_STOP_MARGIN_S: Final = 4


def main(arguments: list[str] | None = None) -> int:
    """Reads the settings, runs the worker, and returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m worker",
        description="Answer the classification requests on a queue until SIGTERM or SIGINT.",
        epilog="Settings are environment variables that begin with TWOFOLD_. TWOFOLD_QUEUE_URL is required.",
    )
    parser.add_argument("--drain", action="store_true", help="exit when the queue is empty")
    options = parser.parse_args(arguments)
    try:
        settings = WorkerSettings()
        logs.configure(settings.log_level)
        return _run(settings, drain=options.drain)
    except ValidationError as error:
        print(explain_settings(error), file=sys.stderr)
        return 2
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except TwofoldError as error:
        print(error, file=sys.stderr)
        return 1
    except FATAL as error:
        print(explain_fatal(error), file=sys.stderr)
        return 1


def _run(settings: WorkerSettings, *, drain: bool) -> int:
    check_settings(settings)
    session = open_session()
    queue = open_queue(settings, session)
    keeper = LeaseKeeper(queue.over(open_lease_sqs(session, limit_s=attempt_s(settings.visibility_s))))
    stages = Stages()
    with open_dispatch(settings, session, template=_TEMPLATE, stages=stages) as dispatch:
        gc.freeze()
        gc.enable()
        stop = Stop(grace_s=settings.stop_s)
        _stop_on_signals(stop, limit_s=settings.stop_s + _STOP_MARGIN_S)
        log.info("ready: %s", settings.queue_url)
        consumer = Consumer(
            queue=queue,
            dispatch=dispatch,
            stop=stop,
            keeper=keeper,
            beat=Heartbeat(settings.heartbeat),
            count=_counting(settings.metrics, stages),
        )
        consumer.run(drain=drain)
    log.info("stopped")
    return 0


def _counting(name: str | None, stages: Stages) -> Callable[[str, Outcome], None]:
    """Returns what prints the metrics of a message, or does nothing where they have no name."""
    if name is None:
        return lambda *_: None
    return LoopMeter(name=name, stages=stages, start_ms=(time.perf_counter() - _STARTED_S) * 1000).count


def _stop_on_signals(stop: Stop, *, limit_s: float) -> None:
    def on_signal(number: int, _frame: FrameType | None) -> None:
        stop.request()
        # Should anything hang, this prints where and ends the process, and SQS delivers the message again. An alarm
        # would not do: the kernel drops SIGALRM, too, for process 1 of a container.
        faulthandler.dump_traceback_later(limit_s, exit=True)
        signal.signal(number, signal.SIG_DFL)  # a second signal ends the process at once

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)


def _exit_now(status: int) -> NoReturn:
    """Ends the process at once. Python would first wait for its threads, which may wait for storage forever."""
    logging.shutdown()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _exit_now(main())
