"""``twofold train submit|status|logs|cancel``: training jobs that run elsewhere."""

import json
import subprocess
import sys
import time
from contextlib import suppress
from typing import Annotated, Any, Final, cast, get_args

import typer

from jobs.cloud import deploy
from jobs.cloud.aws import Client, explained, next_step, open_aws
from jobs.cloud.stack import Stacks
from jobs.cloud.training_jobs import (
    BatchJobs,
    SageMakerJobs,
    TrainingService,
    TrainingStatus,
    follow,
    parse_reference,
)
from jobs.cloud.training_request import Quote, Target, TrainingJob, TrainingStack, build_request, new_name
from jobs.commands.options import Json, StackName
from jobs.config import TrainConfig
from jobs.signals import Stopped
from jobs.user_error import UserError

JobReference = Annotated[str, typer.Argument(metavar="JOB", help="batch:ID or sagemaker:NAME, as submit printed it.")]
_POLL_S: Final = 5.0
#: The default of InstanceTypes in infra/training.yaml.
_BATCH_TYPES: Final = ("g4dn.xlarge", "g5.xlarge", "g6.xlarge")


def register(app: typer.Typer) -> None:
    """Adds the commands to ``twofold train``."""
    # Unknown options belong to train run and are passed through.
    through = {"allow_extra_args": True, "ignore_unknown_options": True}
    example = "Example: twofold train submit --on batch --data s3://shelter/datasets/pets/ --name pets --image-size 224"
    app.command("submit", epilog=example, context_settings=through)(submit)
    app.command("status", epilog="Example: twofold train status batch:5a6b… --json")(status)
    app.command("logs", epilog="Example: twofold train logs batch:5a6b…")(logs)
    app.command("cancel", epilog="Example: twofold train cancel batch:5a6b…")(cancel)


def submit(
    context: typer.Context,
    data: Annotated[
        str, typer.Option(help="s3:// prefix, s3:// or https:// archive, or with --on here a local folder.")
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
    stack_name: StackName = deploy.WORKER_STACK,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the request without sending it.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the job to end.")] = False,
    as_json: Json = False,
) -> None:
    """Train on a cloud GPU. All other options are passed to 'twofold train run'."""
    target = _target(on)
    options = _options(context.args, {"data": data, **({"output": output} if output else {})})
    with explained("Submitting the job"):
        stack = TrainingStack() if target == "here" else _stack(stack_name, options)
        if "output" not in options:
            raise UserError("The model has no destination. Add --output.")
        job = TrainingJob(
            target=target,
            name=new_name(),
            options={"version": new_name().removeprefix("twofold-"), **options},
            stack=stack,
            limit_s=round(limit_h * 3600),
            instance_type=instance_type,
            spot=not on_demand,
            nodes=stack.Nodes if target == "batch" else 1,
        )
        _check(job)
        request = build_request(job)
        if dry_run:
            print(json.dumps(request, indent=2))
        elif target == "here":
            sys.exit(subprocess.run(request["command"], check=False).returncode)
        else:
            if not yes:
                _confirm(job)
            _send(job, request, detach=detach, as_json=as_json)


def _send(job: TrainingJob, request: dict[str, Any], *, detach: bool, as_json: bool) -> None:
    service, log_client = _open(job.target, job.stack.JobLogGroup)
    reference = service.send(request)
    if as_json:
        print(json.dumps({"job": reference, "bundle": job.bundle_uri}), flush=True)
    else:
        print(f"{reference}\nThe model will be at {job.bundle_uri}", flush=True)
    if not detach:
        _follow(service, log_client, reference, quiet=as_json)


def status(job: JobReference, stack_name: StackName = deploy.WORKER_STACK, as_json: Json = False) -> None:
    """Print the state of a job."""
    with explained("Reading the job's status"):
        target, identity = parse_reference(job)
        service, _ = _open(target, _log_group(stack_name))
        found = service.status(identity)
    if as_json:
        fields = {"job": found.job, "state": found.state, "reason": found.reason}
        print(json.dumps(fields | {"seconds": found.seconds, "billed_seconds": found.billed_s}))
    else:
        print(_describe(found))


def logs(job: JobReference, stack_name: StackName = deploy.WORKER_STACK) -> None:
    """Print a job's log, and follow it until the job ends. Exit status 1: the job failed."""
    with explained("Reading the log"):
        service, log_client = _open(parse_reference(job)[0], _log_group(stack_name))
        _follow(service, log_client, job, quiet=False)


def cancel(job: JobReference, stack_name: StackName = deploy.WORKER_STACK) -> None:
    """End a job. What it has saved is kept, and a job with the same options resumes from there."""
    with explained("Cancelling the job"):
        target, identity = parse_reference(job)
        service, _ = _open(target, _log_group(stack_name))
        service.cancel(identity)
    print(f"{job} is being cancelled.")


def _target(on: str) -> Target:
    if on not in get_args(Target):
        raise typer.BadParameter(f"{on!r} is not one of {', '.join(get_args(Target))}", param_hint="--on")
    return cast("Target", on)


def _options(arguments: list[str], own: dict[str, str]) -> dict[str, str]:
    """Returns ``own`` and the pairs ``--name value`` and ``--name=value`` by name."""
    options = dict(own)
    remaining = iter(arguments)
    for argument in remaining:
        name, equals, value = argument.partition("=")
        if not name.startswith("--"):
            raise typer.BadParameter(f"{argument!r} does not belong to an option")
        options[name.removeprefix("--")] = value if equals else next(remaining, "")
    return options


def _check(job: TrainingJob) -> None:
    """Checks the options of ``train run`` now, and not only when a machine has started."""
    TrainConfig.model_validate({name.replace("-", "_"): value for name, value in job.options.items()})


def _stack(stack_name: str, options: dict[str, str]) -> TrainingStack:
    outputs = Stacks(open_aws()("cloudformation")).outputs(deploy.training_stack_name(stack_name)) or {}
    if "output" not in options and "Bucket" in outputs:
        options["output"] = f"s3://{outputs['Bucket']}/models"
    return TrainingStack.model_validate(outputs)


def _log_group(stack_name: str) -> str:
    return _stack(stack_name, {}).JobLogGroup


def _open(target: Target, log_group: str) -> tuple[TrainingService, Client]:
    connect = open_aws()
    log_client = connect("logs")
    if target == "batch":
        return BatchJobs(connect("batch"), log_group=log_group), log_client
    return SageMakerJobs(connect("sagemaker"), log_client), log_client


def _confirm(job: TrainingJob) -> None:
    """Shows the price, the time limit and what Spot saves, and asks whether to proceed. Raises UserError for a no."""
    types = _BATCH_TYPES if job.target == "batch" else (job.instance_type,)
    spot = _spot_usd_per_h(types) if job.target == "batch" else None
    for line in Quote(types, job.limit_s, job.nodes, spot).lines():
        print(line, file=sys.stderr)
    if job.target == "sagemaker" and job.spot:
        print("On Spot: up to 90 % less, according to AWS. The saving is known when the job ends.", file=sys.stderr)
    if not typer.confirm("Proceed?", err=True):
        raise UserError("Nothing was sent.")


def _spot_usd_per_h(types: tuple[str, ...]) -> float | None:
    """Returns the lowest current Spot price of the most expensive type; None if it is not available."""
    history = []
    with suppress(UserError), explained("Reading the Spot prices"):
        query = {"InstanceTypes": list(types), "ProductDescriptions": ["Linux/UNIX"], "MaxResults": 100}
        history = open_aws()("ec2").describe_spot_price_history(**query)["SpotPriceHistory"]
    lowest: dict[str, float] = {}
    for item in history:
        price = float(item["SpotPrice"])
        lowest[item["InstanceType"]] = min(price, lowest.get(item["InstanceType"], price))
    return max(lowest.values(), default=None)


def _follow(service: TrainingService, log_client: Client, job: str, *, quiet: bool) -> None:
    last = None
    try:
        for event in follow(service, log_client, job, wait=lambda: time.sleep(_POLL_S)):
            if isinstance(event, TrainingStatus):
                last = event
                print(_describe(event), file=sys.stderr)
            elif not quiet:
                print(event, flush=True)
    except Stopped as stopped:
        stopped.text, stopped.status = f"{job} keeps running. Run 'twofold train logs {job}' to follow it again.", 0
        raise
    if last is None or last.state != "succeeded":
        raise typer.Exit(1)


def _describe(status: TrainingStatus) -> str:
    text = f"{status.job} {status.state}"
    if status.reason and status.state != "succeeded":
        text += f": {status.reason}"
        text += f" {next_step(status.reason)}" if next_step(status.reason) else ""
    if status.ended and status.seconds is not None:
        text += f", {status.seconds / 60:.0f} min"
    if status.ended and status.seconds and status.billed_s is not None:
        text += f", {status.billed_s / 60:.0f} min of it billed ({1 - status.billed_s / status.seconds:.0%} saved)"
    return text
