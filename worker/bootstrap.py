"""Puts a worker together, the same way for the loop and for a Lambda."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from worker.aws.clients import open_sqs, open_storage
from worker.aws.notifications import open_notifier
from worker.aws.queue import Outbox, Queue
from worker.batch.completion import Completion, no_notice
from worker.batch.part import Batch
from worker.batch.plan import Intake, Planner
from worker.contract import ClassifyRequest
from worker.dispatch import Dispatch
from worker.errors import TwofoldError
from worker.scoring.models import ModelCache, Models
from worker.scoring.pipeline import Pipeline, Stages
from worker.settings import WorkerSettings
from worker.uris import is_allowed

if TYPE_CHECKING:
    import boto3

log = logging.getLogger(__name__)


def check_settings(settings: WorkerSettings) -> None:
    """Raises ValueError where each variable is right by itself and all together make no sense."""
    prefixes = settings.prefixes()
    if not prefixes:
        raise ValueError(
            "nothing says which buckets requests may use: set TWOFOLD_OUTPUT_URI, or TWOFOLD_ALLOWED_PREFIXES"
        )
    if settings.output_uri and not is_allowed(settings.output_uri, prefixes):
        raise ValueError("TWOFOLD_OUTPUT_URI is outside TWOFOLD_ALLOWED_PREFIXES: every request would be refused")


def open_queue(settings: WorkerSettings, session: "boto3.Session") -> Queue:
    """The queue of requests. Raises Reject or Retry where it cannot be asked for its redrive policy."""
    return Queue.open(
        sqs=open_sqs(session),
        url=settings.queue_url,
        dead_letter_url=settings.dead_letter_url,
        visibility_s=settings.visibility_s,
    )


@contextmanager
def open_dispatch(
    settings: WorkerSettings, session: "boto3.Session", *, stages: Stages | None = None, needs_model: bool = True
) -> Iterator[Dispatch]:
    """A dispatch that is ready: the default model, if one is set, has scored a picture. ``stages`` times its work.

    Raises ValueError for settings that make no sense, and Reject or Retry where the model cannot be had, unless it is
    not needed yet: then the requests that need it are told.
    """
    check_settings(settings)
    prefixes = settings.prefixes()
    storage = open_storage(session)
    models = Models(storage=storage, cache=ModelCache(settings.cache) if settings.cache else None)
    if settings.model_uri:
        try:
            models.get(settings.model_uri)
        except TwofoldError as error:
            if needs_model:
                raise
            log.warning("no default model yet: %s", error)
    with Pipeline(
        storage=storage,
        allowed_prefixes=prefixes,
        threads=settings.threads,
        fetchers=settings.fetchers,
        stages=stages,
    ) as pipeline:
        batch = Batch(
            storage=storage,
            models=models,
            pipeline=pipeline,
            allowed_prefixes=prefixes,
            default_model=settings.model_uri,
            default_output=settings.output_uri,
        )

        def send(requests: Iterable[ClassifyRequest]) -> None:
            # Opened when it is needed: most workers never plan anything.
            Outbox(sqs=open_sqs(session), url=settings.queue_url).send(requests)

        intake = Intake(storage=storage, batch=batch, planner=Planner(storage=storage, send=send))
        # As late as this: most workers tell nobody, and need no client for it.
        notify = open_notifier(session, settings.notify_arn) if settings.notify_arn else no_notice
        yield Dispatch(batch=batch, intake=intake, completion=Completion(storage=storage, notify=notify))
