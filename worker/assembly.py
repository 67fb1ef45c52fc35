"""Puts a worker together, the same way for the loop and for a Lambda."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from worker.batch import Batch
from worker.clients import open_sqs, open_storage
from worker.completion import Completion, no_notice
from worker.contract import ClassifyRequest
from worker.dispatch import Dispatch
from worker.intake import Intake
from worker.model import Models
from worker.notice import open_notifier
from worker.outbox import Outbox
from worker.pipeline import Pipeline, is_allowed
from worker.planner import Planner
from worker.settings import WorkerSettings

if TYPE_CHECKING:
    import boto3


def check_settings(settings: WorkerSettings) -> None:
    """Raises ValueError where each variable is right by itself and all together make no sense."""
    prefixes = settings.prefixes()
    if not prefixes:
        raise ValueError(
            "nothing says which buckets requests may use: set TWOFOLD_OUTPUT_URI, or TWOFOLD_ALLOWED_PREFIXES"
        )
    if settings.output_uri and not is_allowed(settings.output_uri, prefixes):
        raise ValueError("TWOFOLD_OUTPUT_URI is outside TWOFOLD_ALLOWED_PREFIXES: every request would be refused")


@contextmanager
def open_dispatch(settings: WorkerSettings, session: "boto3.Session") -> Iterator[Dispatch]:
    """A dispatch that is ready: the default model, if there is one, has scored a picture.

    Raises ValueError for settings that make no sense, Reject or Retry where the model cannot be had.
    """
    check_settings(settings)
    prefixes = settings.prefixes()
    storage = open_storage(session)
    models = Models(storage=storage)
    if settings.model_uri:
        models.get(settings.model_uri)
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

        def send(requests: Iterable[ClassifyRequest]) -> None:
            # Opened when it is needed: most workers never plan anything.
            Outbox(sqs=open_sqs(session), url=settings.queue_url).send(requests)

        intake = Intake(storage=storage, batch=batch, planner=Planner(storage=storage, send=send))
        # As late as this: most workers tell nobody, and need no client for it.
        notify = open_notifier(session, settings.notify_arn) if settings.notify_arn else no_notice
        yield Dispatch(batch=batch, intake=intake, completion=Completion(storage=storage, notify=notify))
