"""``twofold train submit|status|logs|cancel``: jobs that run elsewhere."""

import json
import subprocess
import sys
import time
from contextlib import suppress
from typing import Annotated, Final, cast, get_args

import typer

from jobs.cloud import deploy
from jobs.cloud.aws import Client, explained, next_step, open_aws
from jobs.cloud.stack import Stacks
from jobs.cloud.training_jobs import BatchJobs, Remote, SageMakerJobs, Status, follow, split_job
from jobs.cloud.training_request import Cloud, Place, Quote, Submission, build_request, new_name
from jobs.commands.options import Json, Stack
from jobs.config import TrainConfig
from jobs.user_error import UserError

Job = Annotated[str, typer.Argument(help="batch:ID or sagemaker:NAME, as submit printed it.")]
_POLL_S: Final = 5.0
#: What the stack gives a job, unless told otherwise (infra/training.yaml, InstanceTypes).
_BATCH_TYPES: Final = ("g4dn.xlarge", "g5.xlarge", "g6.xlarge")


def register(app: typer.Typer) -> None:
    """Adds the commands to ``twofold train``."""
    # What it does not know are options of train run, and go through.
    through = {"allow_extra_args": True, "ignore_unknown_options": True}
    example = "Example: twofold train submit --on batch --data s3://shelter/datasets/pets/ --name pets --image-size 224"
    app.command("submit", epilog=example, context_settings=through)(submit)
    app.command("status", epilog="Example: twofold train status batch:5a6b… --json")(status)
    app.command("logs", epilog="Example: twofold train logs batch:5a6b…")(logs)
    app.command("cancel", epilog="Example: twofold train cancel batch:5a6b…")(cancel)


def submit(
    context: typer.Context,
    data: Annotated[str, typer.Option(help="s3:// prefix or archive, or https:// archive; with --on here, a folder.")],
    on: Annotated[str, typer.Option("--on", help="batch, sagemaker or here.")] = "batch",
    output: Annotated[
        str | None, typer.Option(help="s3://bucket/prefix for the model.", show_default="models/ of the stack's bucket")
    ] = None,
    limit_h: Annotated[float, typer.Option("--limit", min=0.1, max=120, help="Hours that it may run.")] = 4.0,
    instance_type: Annotated[str, typer.Option(help="Machine, with --on sagemaker.")] = "ml.g5.xlarge",
    on_demand: Annotated[
        bool, typer.Option("--on-demand", help="No Spot, with --on sagemaker. On Batch the stack decides.")
    ] = False,
    stack_name: Stack = deploy.WORKER_STACK,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the request, and send nothing.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the end.")] = False,
    as_json: Json = False,
) -> None:
    """Train on a cloud GPU. Further options are those of twofold train run."""
    place = _place(on)
    options = _options(context.args, {"data": data, **({"output": output} if output else {})})
    with explained("Submitting the job"):
        cloud = Cloud() if place == "here" else _cloud(stack_name, options)
        if "output" not in options:
            raise UserError("Where shall the model go? Give --output.")
        job = Submission(
            place=place,
            name=new_name(),
            options={"version": new_name().removeprefix("twofold-"), **options},
            cloud=cloud,
            limit_s=round(limit_h * 3600),
            instance_type=instance_type,
            spot=not on_demand,
            nodes=cloud.Nodes if place == "batch" else 1,
        )
        _check(job)
        request = build_request(job)
        if dry_run:
            print(json.dumps(request, indent=2))
            return
        if place == "here":
            sys.exit(subprocess.run(request["command"], check=False).returncode)
        if not yes:
            _ask(job)
        remote, log_client = _open(place, cloud.JobLogGroup)
        reference = remote.send(request)
        print(_sent(reference, job, as_json=as_json), flush=True)
        if not detach:
            _follow(remote, log_client, reference, quiet=as_json)


def _sent(reference: str, job: Submission, *, as_json: bool) -> str:
    if as_json:
        return json.dumps({"job": reference, "bundle": job.bundle_uri})
    return f"{reference}\nIts model will be at {job.bundle_uri}"


def status(job: Job, stack_name: Stack = deploy.WORKER_STACK, as_json: Json = False) -> None:
    """Say how a job stands."""
    with explained("Asking for the job"):
        remote, _ = _open(split_job(job)[0], _log_group(stack_name))
        found = remote.status(split_job(job)[1])
    if as_json:
        told = {"job": found.job, "state": found.state, "reason": found.reason}
        print(json.dumps(told | {"seconds": found.seconds, "billed_seconds": found.billed_s}))
    else:
        print(_in_words(found))


def logs(job: Job, stack_name: Stack = deploy.WORKER_STACK) -> None:
    """Print a job's log, and what comes, until it ends. Exit status: 1 where the job failed."""
    with explained("Reading the log"):
        remote, log_client = _open(split_job(job)[0], _log_group(stack_name))
        _follow(remote, log_client, job, quiet=False)


def cancel(job: Job, stack_name: Stack = deploy.WORKER_STACK) -> None:
    """End a job. What it has saved stays, and a job with the same options goes on from there."""
    with explained("Cancelling the job"):
        place, identity = split_job(job)
        remote, _ = _open(place, _log_group(stack_name))
        remote.cancel(identity)
    print(f"{job} is told to end.")


def _place(on: str) -> Place:
    if on not in get_args(Place):
        raise typer.BadParameter(f"{on!r} is none of {', '.join(get_args(Place))}", param_hint="--on")
    return cast("Place", on)


def _options(arguments: list[str], own: dict[str, str]) -> dict[str, str]:
    """``--name value`` and ``--name=value`` pairs, by name; ours first."""
    options = dict(own)
    remaining = iter(arguments)
    for argument in remaining:
        name, equals, value = argument.partition("=")
        if not name.startswith("--"):
            raise typer.BadParameter(f"{argument!r} belongs to no option")
        options[name.removeprefix("--")] = value if equals else next(remaining, "")
    return options


def _check(job: Submission) -> None:
    """Here and now, and not when a machine has started: the options are those of a training job."""
    TrainConfig.model_validate({name.replace("-", "_"): value for name, value in job.options.items()})


def _cloud(stack_name: str, options: dict[str, str]) -> Cloud:
    outputs = Stacks(open_aws()("cloudformation")).outputs(deploy.training_stack(stack_name)) or {}
    if "output" not in options and "Bucket" in outputs:
        options["output"] = f"s3://{outputs['Bucket']}/models"
    return Cloud.model_validate(outputs)


def _log_group(stack_name: str) -> str:
    return _cloud(stack_name, {}).JobLogGroup


def _open(place: Place, log_group: str) -> tuple[Remote, Client]:
    connect = open_aws()
    log_client = connect("logs")
    if place == "batch":
        return BatchJobs(connect("batch"), log_group=log_group), log_client
    return SageMakerJobs(connect("sagemaker"), log_client), log_client


def _ask(job: Submission) -> None:
    """The price, the time limit and what Spot saves; and then whether to go on."""
    types = _BATCH_TYPES if job.place == "batch" else (job.instance_type,)
    spot = _spot_usd_per_h(types) if job.place == "batch" else None
    for line in Quote(types, job.limit_s, job.nodes, spot).lines():
        print(line, file=sys.stderr)
    if job.place == "sagemaker" and job.spot:
        print("On Spot: what it saved is told when it has ended; by AWS's word up to 90 %.", file=sys.stderr)
    if not typer.confirm("Proceed?", err=True):
        raise UserError("Nothing was sent.")


def _spot_usd_per_h(types: tuple[str, ...]) -> float | None:
    """The lowest Spot price of the dearest type now; None where it cannot be asked for."""
    history = []
    with suppress(UserError), explained("Asking for prices"):
        asked = {"InstanceTypes": list(types), "ProductDescriptions": ["Linux/UNIX"], "MaxResults": 100}
        history = open_aws()("ec2").describe_spot_price_history(**asked)["SpotPriceHistory"]
    lowest: dict[str, float] = {}
    for item in history:
        price = float(item["SpotPrice"])
        lowest[item["InstanceType"]] = min(price, lowest.get(item["InstanceType"], price))
    return max(lowest.values(), default=None)


def _follow(remote: Remote, log_client: Client, job: str, *, quiet: bool) -> None:
    found = None
    try:
        for told in follow(remote, log_client, job, wait=lambda: time.sleep(_POLL_S)):
            if isinstance(told, Status):
                found = told
                print(_in_words(told), file=sys.stderr)
            elif not quiet:
                print(told, flush=True)
    except KeyboardInterrupt:
        print(f"\n{job} goes on. twofold train logs {job} looks again, cancel ends it.", file=sys.stderr)
        raise typer.Exit(0) from None
    if found is None or found.state != "succeeded":
        raise typer.Exit(1)


def _in_words(status: Status) -> str:
    said = f"{status.job} {status.state}"
    if status.reason and status.state != "succeeded":
        said += f": {status.reason}"
        said += f" {next_step(status.reason)}" if next_step(status.reason) else ""
    if status.ended and status.seconds is not None:
        said += f", {status.seconds / 60:.0f} min"
    if status.ended and status.seconds and status.billed_s is not None:
        said += f", {status.billed_s / 60:.0f} min of it billed ({1 - status.billed_s / status.seconds:.0%} saved)"
    return said
