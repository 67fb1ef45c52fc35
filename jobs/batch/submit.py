"""Sources to a job: read, planned, estimated, uploaded, written down, sent."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict
from rich.markup import escape

from jobs.batch.inputs import Inputs
from jobs.progress import Reporter
from jobs.user_error import UserError
from worker.aws.storage import Storage
from worker.batch import cost
from worker.batch.job_folder import JobFolder
from worker.batch.plan import ModelChoice, Planner, new_job
from worker.batch.shards import Shards
from worker.contract import Job
from worker.messages import job_id_of
from worker.scoring.models import pinned

#: Images between two signs of life.
_TOLD: Final = 10_000


class SubmitOptions(BaseModel):
    """What a person asks for, beside the images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output_uri: str
    job_id: str | None = None
    model_uri: str | None = None
    threshold: float | None = None


class Estimate(BaseModel):
    """What a job will take, before anything is sent."""

    images: int
    parts: int
    worker_s: float  #: of one worker with two processors
    cost_usd: float
    assumes: str = cost.ASSUMES


def estimate(job: Job) -> Estimate:
    """Time and cost from the measured milliseconds an image."""
    worker_s = cost.estimated_s(job.images)
    price = cost.usd(images=job.images, parts=job.parts, worker_s=worker_s)
    return Estimate(images=job.images, parts=job.parts, worker_s=round(worker_s, 1), cost_usd=round(price, 6))


def read_sources(names: Sequence[str], inputs: Inputs, shards: Shards, reporter: Reporter) -> None:
    """Puts the images of all sources into the shards, one source after the other."""
    with reporter.step(escape(f"Reading {', '.join(names)[:60]}")) as advance:
        for name in names:
            for ref in inputs.references(name):
                shards.add(ref)
                if shards.images % _TOLD == 0:  # telling takes longer than adding
                    advance(_TOLD)


def plan_job(names: Sequence[str], shards: Shards, options: SubmitOptions, storage: Storage) -> Job:
    """Returns the job that the shards make. Nothing is written.

    Without a name of its own it is called after its first source and all that it asks for: typed again it is the same.
    """
    model_uri = options.model_uri
    if model_uri is not None:
        if not model_uri.startswith("s3://"):
            raise UserError(f"--model {model_uri}: workers on other machines need an s3:// URI.")
        model_uri = pinned(model_uri, storage=storage)
    asked = f"{shards.digest} {model_uri} {options.threshold} {options.output_uri.rstrip('/')}"
    identity = hashlib.sha256(asked.encode()).hexdigest()
    return new_job(
        JobFolder(options.output_uri, options.job_id or job_id_of(names[0], identity=identity)),
        shards,
        sources=tuple(name if name.startswith("s3://") else str(Path(name).resolve()) for name in names),
        model=ModelChoice(asked=options.model_uri, pinned=model_uri),
        threshold=options.threshold,
    )


def upload(inputs: Inputs, reporter: Reporter) -> None:
    """Puts files of this machine where the workers can read them."""
    if inputs.files:
        with reporter.step("Uploading images", total=len(inputs.files)) as advance:
            new = inputs.upload(advance)
        reporter.say(f"  {new:,} new, {len(inputs.files) - new:,} were there")


def submit_job(shards: Shards, job: Job, inputs: Inputs, planner: Planner, reporter: Reporter) -> tuple[Job, int]:
    """Uploads, writes and sends what is not there yet; the job, and how many requests were sent."""
    upload(inputs, reporter)
    with reporter.step("Writing the plan", total=job.parts) as advance:
        job = planner.write(shards, job, advance=advance)
    with reporter.step("Sending requests", total=job.parts) as advance:
        return job, planner.submit(job, advance=advance)
