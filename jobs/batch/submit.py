"""From sources to a job: read, plan, estimate, upload, write, send."""

import hashlib
from collections.abc import Sequence
from typing import Final

from pydantic import BaseModel, ConfigDict

from jobs.batch.cancelling import NameUse
from jobs.batch.file_names import base_of, recorded
from jobs.batch.inputs import Inputs
from jobs.printable import printable
from jobs.progress import Reporter
from jobs.signals import if_stopped
from jobs.unsure_band import Band, as_typed
from jobs.wording import counted, program
from worker.batch import cost
from worker.batch.job_folder import JobFolder, JobRecord
from worker.batch.plan import ModelChoice, Planner, new_job
from worker.batch.shards import Shards
from worker.contract import Job, NamedFiles
from worker.messages import job_id_of

#: Characters of sources in a line of the progress.
_LINE: Final = 60
#: Images between two updates of the progress.
_UPDATE: Final = 10_000
#: Bytes a second to a bucket: 40 Mbit/s, a common home connection; and to an emulator on this machine.
_UPLOAD_BYTES_S: Final = 5e6
_LOCAL_BYTES_S: Final = 100e6
#: A larger job is sent after a question: US dollars, and seconds of uploading and of one worker.
_LARGE_USD: Final = 1.0
_LARGE_S: Final = 3600.0


class SubmitOptions(BaseModel):
    """The options of a job."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output_uri: str
    job_id: str | None = None
    model: ModelChoice = ModelChoice()
    threshold: float | None = None
    unsure: Band | None = None


class Estimate(BaseModel):
    """The expected time and cost of a job, and what is left out of it."""

    images: int
    parts: int
    worker_s: float  #: of one worker with two processors
    upload_s: float  #: for all files of this machine, of which some may be uploaded already
    cost_usd: float | None  #: None: an emulator costs nothing
    assumes: str | None = None
    skipped: dict[str, NamedFiles]  #: files of folders that get no row, by reason
    model_uri: str | None  #: the bundle; None: the workers' own
    unusable: dict[str, NamedFiles]  #: names in lists whose rows will have an error code, by reason

    @property
    def is_large(self) -> bool:
        """Whether a person should confirm the job."""
        return (self.cost_usd or 0.0) > _LARGE_USD or self.worker_s + self.upload_s > _LARGE_S


def estimate(job: Job, inputs: Inputs, *, emulated: bool) -> Estimate:
    """Estimates a job from the milliseconds that an image was measured to take, and from the bytes to upload."""
    worker_s = cost.estimated_s(job.images)
    price = cost.usd(images=job.images, parts=job.parts, worker_s=worker_s)
    speed = _LOCAL_BYTES_S if emulated else _UPLOAD_BYTES_S
    return Estimate(
        images=job.images,
        parts=job.parts,
        worker_s=round(worker_s, 1),
        upload_s=round(inputs.upload_bytes() / speed, 1),
        cost_usd=None if emulated else round(price, 6),
        assumes=None if emulated else f"{cost.ASSUMES}, an upload of {_UPLOAD_BYTES_S / 1e6:.0f} MB a second",
        skipped=inputs.skipped.groups(),
        model_uri=job.model_uri,
        unusable=inputs.unusable.groups(),
    )


def read_sources(names: Sequence[str], inputs: Inputs, shards: Shards, reporter: Reporter) -> None:
    """Adds the images of all sources to the shards, one source after another."""
    inputs.base = base_of(recorded(names))
    with reporter.step(f"Reading {_shown(names)}") as advance:
        for name in names:
            for ref in inputs.references(name):
                shards.add(ref)
                if shards.images % _UPDATE == 0:  # an update takes longer than an image
                    advance(_UPDATE)


def _shown(names: Sequence[str]) -> str:
    """Returns the names of sources, or, where they do not fit a line, the first one and how many follow."""
    seen = [*map(printable, names)]
    whole = ", ".join(seen)
    return whole if len(seen) == 1 or len(whole) <= _LINE else f"{seen[0]} and {counted(len(seen) - 1, 'more source')}"


def plan_job(names: Sequence[str], shards: Shards, options: SubmitOptions, inputs: Inputs) -> Job:
    """Returns the job that the shards make. Nothing is written.

    Its default name is derived from the first source, the images and the options, so that the same command gives
    the same name.
    """
    asked = f"{shards.digest} {options.model.pinned} {options.threshold} {options.output_uri.rstrip('/')}"
    if options.unsure is not None:  # without it, the names are those that earlier versions gave
        asked += f" {as_typed(options.unsure)}"
    identity = hashlib.sha256(asked.encode()).hexdigest()
    job = new_job(
        JobFolder(options.output_uri, options.job_id or job_id_of(names[0], identity=identity)),
        shards,
        sources=recorded(names),
        model=options.model,
        threshold=options.threshold,
        unsure=options.unsure,
    )
    return job.model_copy(update={"skipped": inputs.skipped.groups()})


def check_name(job: Job, inputs: Inputs) -> NameUse:
    """Returns what holds the name of the job. Raises UserError when that is another job that was not cancelled."""
    return NameUse.of(JobRecord(JobFolder(job.output_uri, job.job_id), inputs.storage), job)


def upload(inputs: Inputs, reporter: Reporter) -> None:
    """Uploads files to where the workers can read them."""
    if inputs.files:
        with reporter.step("Uploading images", total=len(inputs.files)) as advance:
            new = inputs.upload(advance)
        reporter.say(f"  {new:,} new, {len(inputs.files) - new:,} already there")


def submit_job(shards: Shards, job: Job, inputs: Inputs, planner: Planner, reporter: Reporter) -> tuple[Job, int]:
    """Uploads, writes and sends what is not there yet. Returns the job and the number of requests that were sent.

    Raises UserError before anything is uploaded when another job has the name, unless that was cancelled.
    """
    with if_stopped(
        "Stopped. No request was sent; what was uploaded is kept. Run the same command again: it goes on where it was."
    ):
        name = check_name(job, inputs)
        upload(inputs, reporter)
        job = name.prepare(job)
        with reporter.step("Writing the plan", total=job.parts) as advance:
            job = planner.write(shards, job, advance=advance)
    with if_stopped(
        f"Stopped while sending. Workers answer what was sent. Run the same command again to send the rest, or "
        f"'{program()} batch cancel {job.job_id}' to drop it."
    ):
        name.revive(job)
        with reporter.step("Sending requests", total=job.parts) as advance:
            return job, planner.submit(job, advance=advance)
