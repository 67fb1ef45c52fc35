"""From sources to a job: read, plan, estimate, upload, write, send."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from jobs.batch.inputs import Inputs
from jobs.printable import printable
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

#: Images between two updates of the progress.
_UPDATE: Final = 10_000


class SubmitOptions(BaseModel):
    """The options of a job."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output_uri: str
    job_id: str | None = None
    model_uri: str | None = None
    threshold: float | None = None


class Estimate(BaseModel):
    """The expected time and cost of a job."""

    images: int
    parts: int
    worker_s: float  #: of one worker with two processors
    cost_usd: float
    assumes: str = cost.ASSUMES


def estimate(job: Job) -> Estimate:
    """Estimates a job from the milliseconds that an image was measured to take."""
    worker_s = cost.estimated_s(job.images)
    price = cost.usd(images=job.images, parts=job.parts, worker_s=worker_s)
    return Estimate(images=job.images, parts=job.parts, worker_s=round(worker_s, 1), cost_usd=round(price, 6))


def read_sources(names: Sequence[str], inputs: Inputs, shards: Shards, reporter: Reporter) -> None:
    """Adds the images of all sources to the shards, one source after another."""
    with reporter.step(f"Reading {', '.join(map(printable, names))[:60]}") as advance:
        for name in names:
            for ref in inputs.references(name):
                shards.add(ref)
                if shards.images % _UPDATE == 0:  # an update takes longer than an image
                    advance(_UPDATE)


def plan_job(names: Sequence[str], shards: Shards, options: SubmitOptions, storage: Storage) -> Job:
    """Returns the job that the shards make. Nothing is written.

    Its default name is derived from the first source, the images and the options, so that the same command gives
    the same name.
    """
    model_uri = options.model_uri
    if model_uri is not None:
        if not model_uri.startswith("s3://"):
            raise UserError(f"--model {model_uri} is not an s3:// URI, which workers on other machines need.")
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
    """Uploads files to where the workers can read them."""
    if inputs.files:
        with reporter.step("Uploading images", total=len(inputs.files)) as advance:
            new = inputs.upload(advance)
        reporter.say(f"  {new:,} new, {len(inputs.files) - new:,} already there")


def submit_job(shards: Shards, job: Job, inputs: Inputs, planner: Planner, reporter: Reporter) -> tuple[Job, int]:
    """Uploads, writes and sends what is not there yet. Returns the job and the number of requests that were sent."""
    upload(inputs, reporter)
    with reporter.step("Writing the plan", total=job.parts) as advance:
        job = planner.write(shards, job, advance=advance)
    with reporter.step("Sending requests", total=job.parts) as advance:
        return job, planner.submit(job, advance=advance)
