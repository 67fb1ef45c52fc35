"""``twofold train submit|list|status|logs|cancel``: training jobs that run elsewhere, added to the group of ``run``.

The commands import what they need inside their bodies: the AWS SDK would delay --help by half a second.
"""

import inspect
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast, get_args

import typer

from jobs import folder_settings
from jobs.cloud.names import PUSH_AND_DEPLOY, WORKER_STACK
from jobs.cloud.training_request import PLACEHOLDERS, Quote, Target, TrainingJob, TrainingStack, build_request, new_name
from jobs.commands import train_run
from jobs.commands.options import Json, StackName, Yes
from jobs.commands.train_run import app
from jobs.config import TrainConfig
from jobs.question import confirm
from jobs.signals import Stopped
from jobs.user_error import UserError
from jobs.wording import program

if TYPE_CHECKING:
    from jobs.cloud.aws import Client
    from jobs.cloud.training_jobs import TrainingService, TrainingStatus

JobReference = Annotated[str, typer.Argument(metavar="JOB", help="batch:ID or sagemaker:NAME, as submit printed it.")]
_POLL_S: Final = 5.0
#: The default of InstanceTypes in infra/training.yaml.
_BATCH_TYPES: Final = ("g4dn.xlarge", "g5.xlarge", "g6.xlarge")
_THROUGH: Final = "Options of 'train run', which are passed on"
_EXAMPLE: Final = "Example: twofold train submit --data s3://shelter/datasets/pets/ --name pets --image-size 224"


def submit(
    *,
    data: Annotated[
        list[str],
        typer.Option(
            help="s3:// prefix, s3:// or https:// archive or list, or with --on here a local one. Repeatable."
        ),
    ],
    on: Annotated[str, typer.Option("--on", help="batch, sagemaker or here.")] = "batch",
    output: Annotated[
        str | None, typer.Option(help="s3://bucket/prefix for the model.", show_default="models/ in the stack's bucket")
    ] = None,
    limit_h: Annotated[float, typer.Option("--limit", min=0.1, max=120, help="Time limit in hours.")] = 4.0,
    instance_type: Annotated[str, typer.Option(help="Machine type, with --on sagemaker.")] = "ml.g5.xlarge",
    on_demand: Annotated[
        bool, typer.Option("--on-demand", help="Do not use Spot, with --on sagemaker. On Batch the stack decides.")
    ] = False,
    stack_name: StackName = WORKER_STACK,
    yes: Yes = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the request without sending it. Needs no account.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the job to end.")] = False,
    as_json: Json = False,
    **passed_on: object,
) -> None:
    """Train on a cloud GPU, or here in the background. Takes the options of 'train run' too."""
    target = _target(on)
    given = {"data": data[0], "output": output, **passed_on}
    options = {name.replace("_", "-"): str(value) for name, value in given.items() if value is not None}
    _check(options, data)
    stack = TrainingStack() if target == "here" else _stack(stack_name, options, dry_run=dry_run)
    if "output" not in options:
        raise UserError("The model has no destination. Add --output.")
    name = new_name()
    job = TrainingJob(
        target=target,
        name=name,
        options={"version": name.removeprefix("twofold-"), **options},
        more_data=tuple(data[1:]),
        stack=stack,
        limit_s=round(limit_h * 3600),
        instance_type=instance_type,
        spot=not on_demand,
        nodes=stack.Nodes if target == "batch" else 1,
    )
    request = build_request(job)
    if dry_run:
        print(json.dumps(request, indent=2))
    elif target == "here" and detach:
        _run_detached(job, request, as_json=as_json)
    elif target == "here":
        _run_here(options, data, as_json=as_json)
    else:
        if not yes:
            _confirm(job)
        _send(job, request, detach=detach, as_json=as_json)


def _passed_on(fields: Iterable[str]) -> Iterator[inspect.Parameter]:
    """Returns the options of ``train run``, each of which can be left out: what is given is passed on."""
    for parameter in train_run.config_parameters(fields, panel=_THROUGH):
        kind, option = get_args(parameter.annotation)
        if parameter.default is not None:
            option.show_default = str(parameter.default) or False
        yield parameter.replace(default=None, annotation=Annotated[kind | None, option])


_OWN: Final = train_run.named_parameters(submit)


def _run_here(options: dict[str, str], data: list[str], *, as_json: bool) -> None:
    """Trains in this process, so that nothing outlives it.

    Only a version that the user has named is passed on: with a new one each time, the same command would not resume.
    """
    folder_settings.apply(Path.cwd())
    given = {name.replace("-", "_"): value for name, value in options.items()}
    train_run.train_run(as_json=as_json, **given | {"data": data})


def _run_detached(job: TrainingJob, request: dict[str, Any], *, as_json: bool) -> None:
    """Trains in a process that goes on when this terminal is closed."""
    folder_settings.apply(Path.cwd())
    log = Path(f"{job.name}.log")
    with log.open("xb") as file:
        process = subprocess.Popen(
            request["command"], stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
    if as_json:
        print(json.dumps({"process": process.pid, "log": str(log.resolve()), "bundle": job.bundle_uri}))
        return
    print(
        f"The job goes on in the background, as process {process.pid}. The model will be at {job.bundle_uri}\n"
        f"To follow it:  tail -f {log}\n"
        f"To stop it:    kill {process.pid}"
    )


def _send(job: TrainingJob, request: dict[str, Any], *, detach: bool, as_json: bool) -> None:
    from jobs.cloud.aws import explained  # noqa: PLC0415
    from jobs.cloud.training_client import open_service  # noqa: PLC0415

    with explained("Submitting the job"):
        service, log_client = open_service(job.target, log_group=job.stack.JobLogGroup)
        reference = service.send(request)
        if as_json:
            print(json.dumps({"job": reference, "bundle": job.bundle_uri}), flush=True)
        else:
            print(f"{reference}\nThe model will be at {job.bundle_uri}", flush=True)
        if not detach:
            _follow(service, log_client, reference, quiet=as_json)
        elif not as_json:
            print(f"To follow it: {program()} train logs {reference}", file=sys.stderr)


def list_jobs(stack_name: StackName = WORKER_STACK, as_json: Json = False) -> None:
    """List the jobs that were submitted to AWS, the newest first. AWS Batch forgets a job a day after it ends."""
    from jobs.cloud.aws import explained, open_aws  # noqa: PLC0415
    from jobs.cloud.training_client import all_jobs, find_stack  # noqa: PLC0415

    with explained("Listing the jobs"):
        found = all_jobs(open_aws(), find_stack(stack_name)[0])
    if as_json:
        rows = [{"job": job.job, "state": job.state, "created_at": job.created_at.isoformat()} for job in found]
        print(json.dumps(rows))
    elif not found:
        print(f"No jobs yet. '{program()} train submit --help' shows how to submit one.")
    for job in [] if as_json else found:
        print(f"{job.created_at:%Y-%m-%d %H:%M} UTC  {job.state:<9}  {job.job}")


def status(job: JobReference, stack_name: StackName = WORKER_STACK, as_json: Json = False) -> None:
    """Print the state of a job."""
    from jobs.cloud.aws import explained  # noqa: PLC0415

    with explained("Reading the job's status"):
        service, _, identity = _service_of(job, stack_name)
        found = service.status(identity)
    if as_json:
        fields = {"job": found.job, "state": found.state, "reason": found.reason}
        print(json.dumps(fields | {"seconds": found.seconds, "billed_seconds": found.billed_s}))
    else:
        print(_describe(found))


def logs(job: JobReference, stack_name: StackName = WORKER_STACK) -> None:
    """Print a job's log, and follow it until the job ends. Exit status 1: the job failed."""
    from jobs.cloud.aws import explained  # noqa: PLC0415

    with explained("Reading the log"):
        service, log_client, _ = _service_of(job, stack_name)
        _follow(service, log_client, job, quiet=False)


def cancel(job: JobReference, stack_name: StackName = WORKER_STACK) -> None:
    """End a job. What it has saved is kept, and a job with the same options resumes from there."""
    from jobs.cloud.aws import explained  # noqa: PLC0415

    with explained("Cancelling the job"):
        service, _, identity = _service_of(job, stack_name)
        service.cancel(identity)
    print(f"{job} is being cancelled.")


submit.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # which is what typer reads
    [*_OWN, *_passed_on(name for name in TrainConfig.model_fields if name not in {one.name for one in _OWN})]
)
app.command("submit", epilog=_EXAMPLE)(submit)
app.command("list", epilog="Example: twofold train list")(list_jobs)
app.command("status", epilog="Example: twofold train status batch:5a6b… --json")(status)
app.command("logs", epilog="Example: twofold train logs batch:5a6b…")(logs)
app.command("cancel", epilog="Example: twofold train cancel batch:5a6b…")(cancel)


def _target(on: str) -> Target:
    if on not in get_args(Target):
        raise typer.BadParameter(f"must be batch, sagemaker or here, not {on!r}", param_hint="--on")
    return cast("Target", on)


def _check(options: dict[str, str], data: list[str]) -> None:
    """Checks the options of ``train run`` now, and not only when a machine has started."""
    named = {name.replace("-", "_"): value for name, value in options.items()}
    TrainConfig.model_validate({"output": "s3://bucket/models"} | named | {"data": data})


def _stack(stack_name: str, options: dict[str, str], *, dry_run: bool) -> TrainingStack:
    """Returns the stack for training, and adds its bucket to the options if they have no output.

    A dry run takes placeholders for what is not there, and says so.
    """
    from jobs.cloud.aws import explained  # noqa: PLC0415
    from jobs.cloud.training_client import find_stack  # noqa: PLC0415

    lacking = PUSH_AND_DEPLOY
    try:
        with explained("Submitting the job"):
            stack, bucket = find_stack(stack_name)
    except (UserError, ValueError) as error:
        if not dry_run:
            raise
        stack, bucket, lacking = TrainingStack(), None, str(error)
    if dry_run and stack.JobQueue is None:
        also = "" if bucket or "output" in options else ", and s3://bucket,"  # capitals are not allowed there
        stack, bucket = PLACEHOLDERS, bucket or "bucket"
        print(f"The names in capitals{also} stand for what is not there yet. {lacking}", file=sys.stderr)
    if "output" not in options and bucket:
        options["output"] = f"s3://{bucket}/models"
    return stack


def _service_of(job: str, stack_name: str) -> "tuple[TrainingService, Client, str]":
    """Returns the service that runs a job, a client for its log, and the job's name there."""
    from jobs.cloud.training_client import find_stack, open_service  # noqa: PLC0415
    from jobs.cloud.training_jobs import parse_reference  # noqa: PLC0415

    target, identity = parse_reference(job)
    service, log_client = open_service(target, log_group=find_stack(stack_name)[0].JobLogGroup)
    return service, log_client, identity


def _confirm(job: TrainingJob) -> None:
    """Shows the price, the time limit and what Spot saves, and asks whether to proceed. Raises UserError for a no."""
    from jobs.cloud.training_client import spot_usd_per_h  # noqa: PLC0415

    types = _BATCH_TYPES if job.target == "batch" else (job.instance_type,)
    spot = spot_usd_per_h(types) if job.target == "batch" else None
    for line in Quote(types, job.limit_s, job.nodes, job.attempts, spot).lines():
        print(line, file=sys.stderr)
    if job.target == "sagemaker" and job.spot:
        print("On Spot: up to 90 % less, according to AWS. The saving is known when the job ends.", file=sys.stderr)
    if not confirm("Proceed?"):
        raise UserError("Nothing was sent.")


def _follow(service: "TrainingService", log_client: "Client", job: str, *, quiet: bool) -> None:
    from jobs.cloud.training_jobs import TrainingStatus, follow  # noqa: PLC0415

    last = None
    try:
        for event in follow(service, log_client, job, wait=lambda: time.sleep(_POLL_S)):
            if isinstance(event, TrainingStatus):
                last = event
                print(_describe(event), file=sys.stderr)
            elif not quiet:
                print(event, flush=True)
    except Stopped as stopped:
        stopped.text, stopped.status = f"{job} keeps running. Run '{program()} train logs {job}' to follow it again.", 0
        raise
    if last is None or last.state != "succeeded":
        raise typer.Exit(1)


def _describe(status: "TrainingStatus") -> str:
    from jobs.cloud.aws import next_step  # noqa: PLC0415

    text = f"{status.job} {status.state}"
    if status.reason and status.state != "succeeded":
        text += f": {status.reason}"
        text += f" {next_step(status.reason)}" if next_step(status.reason) else ""
    if status.ended and status.seconds is not None:
        text += f", {status.seconds / 60:.0f} min"
    if status.ended and status.seconds and status.billed_s is not None:
        text += f", {status.billed_s / 60:.0f} min of it billed ({1 - status.billed_s / status.seconds:.0%} saved)"
    return text
