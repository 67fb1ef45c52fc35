"""``twofold cloud``: deploying the worker and the training to an AWS account.

The commands import what they need inside their bodies: the AWS SDK would delay --help by half a second.
"""

import shlex
import sys
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from jobs.cloud.names import WORKER_STACK, training_stack_name
from jobs.commands.options import Json, StackName, Yes
from jobs.folder_settings import offer
from jobs.user_error import UserError
from jobs.wording import program

if TYPE_CHECKING:
    from jobs.cloud.aws import Connect
    from jobs.cloud.docker import Docker, ImageKind
    from jobs.progress import Reporter

app = typer.Typer()

Parameters = Annotated[
    list[str] | None,
    typer.Option("--parameter", metavar="NAME=VALUE", help="A parameter of a template. Repeatable."),
]


@app.command("push", epilog="Example: twofold cloud push")
def push(
    stack_name: StackName = WORKER_STACK,
    worker: Annotated[
        bool, typer.Option("--worker", help="Also push the worker's image, for Fargate. Lambda runs a zip.")
    ] = False,
    base: Annotated[
        str | None,
        typer.Option(help="Base image, python@sha256:…", show_default="that of the Dockerfile, by its current digest"),
    ] = None,
) -> None:
    """Build the training image with Docker and push it to the account."""
    from jobs.cloud import deploy  # noqa: PLC0415
    from jobs.cloud.aws import explained, open_aws  # noqa: PLC0415
    from jobs.cloud.docker import Docker, log_in  # noqa: PLC0415
    from jobs.progress import Reporter  # noqa: PLC0415

    reporter = Reporter()
    docker = Docker.find()
    with explained("Pushing the image"):
        connect = open_aws()
        outputs = deploy.deploy_repositories(connect, name=stack_name, reporter=reporter)
        log_in(docker, connect("ecr"))
        kinds: tuple[ImageKind, ...] = ("train", "worker") if worker else ("train",)
        for kind in kinds:
            _push(docker, kind, outputs[f"{kind.capitalize()}Repository"], base, reporter)


def _push(docker: "Docker", kind: "ImageKind", repository: str, base: str | None, reporter: "Reporter") -> None:
    from jobs.cloud.docker import build_and_push, pinned_base  # noqa: PLC0415

    pinned = base or pinned_base(docker, kind)
    name = build_and_push(
        docker,
        kind,
        repository=repository,
        base=pinned,
        architecture="x86_64" if kind == "train" else "arm64",
        reporter=reporter,
    )
    print(f"{kind}: {name}\n  from {pinned}")


@app.command(
    "deploy", epilog="Example: twofold cloud deploy --parameter AlarmEmail=me@example.com --parameter Model=pets"
)
def deploy_all(
    stack_name: StackName = WORKER_STACK,
    parameter: Parameters = None,
    architecture: Annotated[str, typer.Option(help="Processor architecture of the worker: arm64 or x86_64.")] = "arm64",
) -> None:
    """Create or update the stacks: bucket, queues and Lambda, and AWS Batch once a training image has been pushed."""
    from jobs.cloud import deploy  # noqa: PLC0415
    from jobs.cloud.aws import explained, open_aws  # noqa: PLC0415
    from jobs.cloud.lambda_zip import Architecture  # noqa: PLC0415
    from jobs.progress import Reporter  # noqa: PLC0415

    reporter = Reporter()
    worker, training = _parameters(parameter or [])
    if architecture not in get_args(Architecture):
        raise typer.BadParameter("give arm64 or x86_64", param_hint="--architecture")
    with explained("Deploying"):
        connect = open_aws()
        settings = deploy.deploy_worker(
            connect,
            name=stack_name,
            libraries="arm64" if architecture == "arm64" else "x86_64",
            parameters=worker,
            reporter=reporter,
        )
        _deploy_training(connect, stack_name, settings, training, reporter)
        region = connect("s3").meta.region_name
    for name, value in settings.items():
        print(f"export {name}={shlex.quote(value)}")
    offer(settings | {"AWS_REGION": region}, written_by="twofold cloud deploy")


def _deploy_training(
    connect: "Connect", stack_name: str, settings: dict[str, str], parameters: dict[str, str], reporter: "Reporter"
) -> None:
    """Deploys the stack for training if there is an image, or else says how to make one."""
    from jobs.cloud import deploy, stack  # noqa: PLC0415
    from jobs.cloud.docker import newest  # noqa: PLC0415
    from worker.uris import split  # noqa: PLC0415

    outputs = stack.Stacks(connect("cloudformation")).outputs(training_stack_name(stack_name)) or {}
    image = newest(connect("ecr"), outputs["TrainRepository"]) if outputs else None
    if image is None:
        reporter.say(
            f"There is no training image yet. To use '{program()} train submit', run '{program()} cloud push' and then "
            "this command again."
        )
        return
    deploy.deploy_training(
        connect,
        name=stack_name,
        image=image,
        bucket=split(settings["TWOFOLD_OUTPUT_URI"])[0],
        parameters=parameters,
        reporter=reporter,
    )


@app.command("status", epilog="Example: twofold cloud status --json")
def status(stack_name: StackName = WORKER_STACK, as_json: Json = False) -> None:
    """Print what is deployed: the stacks, the queue, refused requests, and whether there is a model."""
    from jobs.cloud.aws import explained, open_aws  # noqa: PLC0415
    from jobs.cloud.overview import look  # noqa: PLC0415

    with explained("Reading the state of the stacks"):
        found = look(open_aws(), stack_name)
    print(found.model_dump_json() if as_json else "\n".join(found.lines()))


@app.command("destroy", epilog="Example: twofold cloud destroy")
def destroy(
    stack_name: StackName = WORKER_STACK,
    with_data: Annotated[
        bool,
        typer.Option("--with-data", help="Also delete the bucket with all models and results, and the dead letters."),
    ] = False,
    yes: Yes = False,
) -> None:
    """Delete the stacks and the container images. Asks first, and keeps the bucket unless --with-data is given."""
    from jobs.cloud import removal  # noqa: PLC0415
    from jobs.cloud.aws import explained, open_aws  # noqa: PLC0415
    from jobs.progress import Reporter  # noqa: PLC0415

    with explained("Deleting the stacks"):
        connect = open_aws()
        deployment = removal.Deployment.find(connect, stack_name)
        print("\n".join(deployment.plan(with_data=with_data)), file=sys.stderr)
        if not yes:
            _confirm(stack_name)
        removal.destroy(connect, deployment, with_data=with_data, reporter=Reporter())


def _confirm(stack_name: str) -> None:
    """Asks for the name of the stack, which nobody types by mistake. Raises UserError for anything else."""
    if not sys.stdin.isatty():
        raise UserError(
            "Nothing was deleted, because nobody can be asked here. Add --yes to delete without a question."
        )
    answer = typer.prompt(f"Type {stack_name} to delete this for good", default="", show_default=False, err=True)
    if answer.strip() != stack_name:
        raise UserError("Nothing was deleted.")


def _parameters(pairs: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Returns the parameters of the worker's and of the training template, from pairs NAME=VALUE."""
    from jobs.cloud import lambda_zip, stack  # noqa: PLC0415
    from worker.contract import nearest  # noqa: PLC0415

    given = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UserError(f"--parameter {pair} is not of the form NAME=VALUE.")
        given[name] = value
    worker, training = (stack.parameters_of(lambda_zip.infra(name)) for name in ("worker.yaml", "training.yaml"))
    unknown = sorted(given.keys() - worker - training)
    if unknown:
        near = nearest(unknown[0], worker | training)
        question = f"; did you mean {near}?" if near else ""
        raise typer.BadParameter(
            f"no template has the parameter {', '.join(unknown)}{question}", param_hint="--parameter"
        )
    return (
        {name: value for name, value in given.items() if name in worker},
        {name: value for name, value in given.items() if name in training},
    )
