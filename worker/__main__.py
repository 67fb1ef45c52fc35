"""Runs a worker.

    python -m worker            until SIGTERM or SIGINT
    python -m worker --drain    until the queue is empty

Exit status: 0 stopped or drained, 1 the queue or the model cannot be used, 2 a setting is missing or wrong.
"""

import gc

gc.disable()  # until all is loaded: imports make thousands of objects and no garbage, a tenth of the start

import argparse
import logging
import os
import signal
import sys
import time
from types import FrameType
from typing import Final, NoReturn

from pydantic import ValidationError

from worker.batch import Batch
from worker.clients import open_session, open_sqs, open_storage
from worker.consumer import Consumer, Stop
from worker.errors import TwofoldError
from worker.model import Models
from worker.pipeline import Pipeline, is_allowed
from worker.queue import Queue
from worker.settings import WorkerSettings, name_settings

log = logging.getLogger("worker")

#: For giving messages back after the grace is over; with the default of 20 s it is out in 0.8 of a container's 30 s.
_STOP_MARGIN_S: Final = 4


def main(arguments: list[str] | None = None) -> int:
    """Reads the settings, runs the worker, and returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m worker", description="Answers classify requests from a queue.")
    parser.add_argument("--drain", action="store_true", help="stop when the queue is empty")
    options = parser.parse_args(arguments)
    try:
        settings = WorkerSettings.read()
        _configure_logging(settings.log_level)
        return _run(settings, drain=options.drain)
    except ValidationError as error:
        print(name_settings(error), file=sys.stderr)
        return 2
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except TwofoldError as error:
        print(error, file=sys.stderr)
        return 1


def _run(settings: WorkerSettings, *, drain: bool) -> int:
    prefixes = settings.prefixes()
    if not prefixes:
        raise ValueError(
            "nothing says which buckets requests may use: set TWOFOLD_OUTPUT_URI, or TWOFOLD_ALLOWED_PREFIXES"
        )
    if settings.output_uri and not is_allowed(settings.output_uri, prefixes):
        raise ValueError("TWOFOLD_OUTPUT_URI is outside TWOFOLD_ALLOWED_PREFIXES: every request would be refused")
    stop = Stop(grace_s=settings.stop_s)
    _stop_on_signals(stop, limit_s=settings.stop_s + _STOP_MARGIN_S)
    session = open_session()
    storage = open_storage(session)
    queue = Queue.open(
        sqs=open_sqs(session),
        url=settings.queue_url,
        dead_letter_url=settings.dead_letter_url,
        visibility_s=settings.visibility_s,
    )
    models = Models(storage=storage)
    if settings.model_uri:
        models.get(settings.model_uri)  # ready means that it has scored a picture
    gc.freeze()
    gc.enable()
    with Pipeline(
        storage=storage, allowed_prefixes=prefixes, threads=settings.threads, fetchers=settings.fetchers
    ) as pipeline:
        batch = Batch(
            storage=storage,
            models=models,
            pipeline=pipeline,
            allowed_prefixes=prefixes,
            default_model=settings.model_uri,
            default_output=settings.output_uri,
        )
        log.info("ready: %s", settings.queue_url)
        Consumer(queue=queue, batch=batch, stop=stop).run(drain=drain)
    log.info("stopped")
    return 0


def _stop_on_signals(stop: Stop, *, limit_s: int) -> None:
    def on_signal(number: int, _frame: FrameType | None) -> None:
        stop.request()
        # Whatever hangs then, SIGALRM ends the process, and the message comes back by itself.
        signal.alarm(limit_s)
        signal.signal(number, signal.SIG_DFL)  # the second one ends the process

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)


def _configure_logging(level: str) -> None:
    logging.basicConfig(
        level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%SZ"
    )
    logging.Formatter.converter = time.gmtime
    logging.captureWarnings(capture=True)  # Pillow's remarks on odd files belong in the log
    for name in ("botocore", "boto3", "urllib3", "PIL"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _leave(status: int) -> NoReturn:
    """Ends the process now. Python would first wait for threads whose storage may never answer."""
    logging.shutdown()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _leave(main())
