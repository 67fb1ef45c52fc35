"""The wiring of a worker, the same for the loop and for the Lambda."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from worker.aws.clients import open_sqs, open_storage
from worker.aws.notifications import open_notifier
from worker.aws.queue import MAX_LEASE_S, Outbox, Queue
from worker.aws.storage import Storage
from worker.batch.completion import Completion, no_notice
from worker.batch.part import PartWriter
from worker.batch.plan import Planner
from worker.batch.resolve import RequestResolver
from worker.contract import ClassifyRequest
from worker.dispatch import Dispatch
from worker.errors import TwofoldError
from worker.health import MAX_AGE_S
from worker.scoring.limits import MIB, ImageLimits
from worker.scoring.models import ModelCache, Models
from worker.scoring.pipeline import Pipeline, Stages
from worker.scoring.sandbox import Sandbox
from worker.scoring.template import Template
from worker.settings import WorkerSettings
from worker.uris import is_allowed, overlap

if TYPE_CHECKING:
    import boto3

log = logging.getLogger(__name__)


def check_settings(settings: WorkerSettings) -> None:
    """Raises ValueError for settings that are each valid and do not fit together."""
    prefixes = settings.prefixes()
    if not prefixes:
        raise ValueError(
            "no setting says which buckets requests may use: set TWOFOLD_OUTPUT_URI, or TWOFOLD_ALLOWED_PREFIXES"
        )
    if settings.output_uri and not is_allowed(settings.output_uri, prefixes):
        raise ValueError("TWOFOLD_OUTPUT_URI is outside TWOFOLD_ALLOWED_PREFIXES: every request would be rejected")
    if settings.stop_s + settings.visibility_s > MAX_LEASE_S:
        raise ValueError(
            f"TWOFOLD_STOP_S ({settings.stop_s:,}) and TWOFOLD_VISIBILITY_S ({settings.visibility_s:,}) together are "
            f"longer than the {MAX_LEASE_S:,} s for which SQS hides a message: no part could use that time. Lower one"
        )
    if settings.image_cpu_s > settings.image_wall_s:
        raise ValueError("TWOFOLD_IMAGE_CPU_S is longer than TWOFOLD_IMAGE_WALL_S, which would always end first")
    if settings.image_wall_s >= MAX_AGE_S:
        raise ValueError(f"TWOFOLD_IMAGE_WALL_S must be under {MAX_AGE_S}: the health check would fail before it ends")
    _check_output_apart(settings)


def _check_output_apart(settings: WorkerSettings) -> None:
    """Raises ValueError where a job could write among the models, or among the images."""
    folders, model, output = settings.model_folders(), settings.model_uri, settings.output_uri
    if model and model.startswith("s3://") and not is_allowed(model, folders):
        raise ValueError("TWOFOLD_MODEL_URI is outside TWOFOLD_MODEL_PREFIXES: long lists would be rejected")
    mixed = [folder for folder in folders if output and overlap(folder, output)]
    if mixed:
        raise ValueError(
            f"a job could overwrite a model: TWOFOLD_OUTPUT_URI is {output}, and models are in {', '.join(mixed)}. "
            "Neither may be inside the other: change TWOFOLD_OUTPUT_URI, or name the models in TWOFOLD_MODEL_PREFIXES"
        )
    below = [prefix for prefix in settings.allowed_prefixes if output and is_allowed(prefix, (output,))]
    inside = [prefix for prefix in below if not is_allowed(str(output), (prefix,))]
    if inside:
        raise ValueError(
            f"a job could write among the images: TWOFOLD_OUTPUT_URI is {output}, and TWOFOLD_ALLOWED_PREFIXES has "
            f"{', '.join(inside)} inside it. Give the output a prefix of its own"
        )


def image_limits(settings: WorkerSettings) -> ImageLimits:
    """Returns what one image may take."""
    return ImageLimits(
        cpu_s=settings.image_cpu_s, wall_s=settings.image_wall_s, memory_bytes=settings.image_memory_mib * MIB
    )


def open_queue(settings: WorkerSettings, session: "boto3.Session") -> Queue:
    """Opens the request queue. Raises Reject or Retry when its redrive policy cannot be read."""
    return Queue.open(
        sqs=open_sqs(session),
        url=settings.queue_url,
        dead_letter_url=settings.dead_letter_url,
        visibility_s=settings.visibility_s,
    )


@contextmanager
def open_dispatch(
    settings: WorkerSettings,
    session: "boto3.Session",
    *,
    template: Template | None = None,
    stages: Stages | None = None,
    needs_model: bool = True,
) -> Iterator[Dispatch]:
    """Opens a dispatch that is ready to work: the default model, if there is one, has scored an image.

    ``template`` is that of the scoring processes, if it runs already. ``stages`` measures the time of each stage.

    Raises ValueError for settings that do not fit together, and Reject or
    Retry when the model cannot be loaded. Without ``needs_model``, only requests that need it fail.
    """
    check_settings(settings)
    prefixes = settings.prefixes()
    storage = open_storage(session, bucket_owner=settings.expected_bucket_owner)
    with Sandbox(processes=settings.threads, limits=image_limits(settings), template=template) as sandbox:
        models = Models(storage=storage, sandbox=sandbox, cache=ModelCache(settings.cache) if settings.cache else None)
        if settings.model_uri:
            try:
                models.get(settings.model_uri)
            except TwofoldError as error:
                if needs_model:
                    raise
                log.warning("no default model yet: %s", error)
        with Pipeline(
            storage=storage,
            sandbox=sandbox,
            allowed_prefixes=prefixes,
            fetchers=settings.fetchers,
            in_flight_bytes=settings.in_flight_mib * MIB,
            stages=stages,
        ) as pipeline:
            yield _wire(settings, session, storage, models, pipeline)


def _wire(
    settings: WorkerSettings, session: "boto3.Session", storage: Storage, models: Models, pipeline: Pipeline
) -> Dispatch:
    resolver = RequestResolver(
        storage=storage,
        allowed_prefixes=settings.prefixes(),
        model_prefixes=settings.model_folders(),
        default_model=settings.model_uri,
        default_output=settings.output_uri,
    )

    def send(requests: Iterable[ClassifyRequest]) -> None:
        # Opened when it is needed: most workers never plan a job.
        Outbox(sqs=open_sqs(session), url=settings.queue_url).send(requests)

    notify = open_notifier(session, settings.notify_arn) if settings.notify_arn else no_notice
    return Dispatch(
        resolver=resolver,
        parts=PartWriter(models=models, pipeline=pipeline),
        planner=Planner(storage=storage, send=send),
        completion=Completion(storage=storage, notify=notify),
        request_s=settings.request_s,
    )
