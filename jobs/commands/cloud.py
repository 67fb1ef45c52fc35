"""``twofold cloud``: deploying the worker and the training to an AWS account."""

import shlex
from typing import Annotated

import typer

from jobs.cloud import deploy, lambda_zip, stack
from jobs.cloud.aws import explained, open_aws
from jobs.cloud.docker import Docker, ImageKind, build_and_push, log_in, newest, pinned_base
from jobs.cloud.lambda_zip import Architecture
from jobs.commands.options import StackName
from jobs.progress import Reporter
from jobs.user_error import UserError
from worker.uris import split

app = typer.Typer(help="Deploy Twofold to an AWS account.", no_args_is_help=True)

Parameters = Annotated[
    list[str] | None, typer.Option("--parameter", help="NAME=VALUE for a parameter of a template. Repeatable.")
]


@app.command("push", epilog="Example: twofold cloud push")
def push(
    stack_name: StackName = deploy.WORKER_STACK,
    worker: Annotated[
        bool, typer.Option("--worker", help="Also push the worker's image, for Fargate. Lambda runs a zip.")
    ] = False,
    base: Annotated[
        str | None,
        typer.Option(help="Base image, python@sha256:…", show_default="that of the Dockerfile, by its current digest"),
    ] = None,
) -> None:
    """Build the training image with Docker and push it to the account."""
    reporter = Reporter()
    docker = Docker.find()
    with explained("Pushing the image"):
        connect = open_aws()
        outputs = deploy.deploy_repositories(connect, name=stack_name, reporter=reporter)
        log_in(docker, connect("ecr"))
        kinds: tuple[ImageKind, ...] = ("train", "worker") if worker else ("train",)
        for kind in kinds:
            pinned = base or pinned_base(docker, kind)
            architecture: Architecture = "x86_64" if kind == "train" else "arm64"
            name = build_and_push(
                docker,
                kind,
                repository=outputs[f"{kind.capitalize()}Repository"],
                base=pinned,
                architecture=architecture,
                reporter=reporter,
            )
            print(f"{kind}: {name}\n  from {pinned}")


@app.command(
    "deploy", epilog="Example: twofold cloud deploy --parameter AlarmEmail=me@example.com --parameter Model=pets"
)
def deploy_all(
    stack_name: StackName = deploy.WORKER_STACK,
    parameter: Parameters = None,
    architecture: Annotated[str, typer.Option(help="Processor architecture of the worker: arm64 or x86_64.")] = "arm64",
) -> None:
    """Create or update the stacks: bucket, queues and Lambda, and AWS Batch once a training image has been pushed."""
    reporter = Reporter()
    worker, training = _parameters(parameter or [])
    if architecture not in {"arm64", "x86_64"}:
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
        outputs = stack.Stacks(connect("cloudformation")).outputs(deploy.training_stack_name(stack_name)) or {}
        image = newest(connect("ecr"), outputs["TrainRepository"]) if outputs else None
        if image:
            deploy.deploy_training(
                connect,
                name=stack_name,
                image=image,
                bucket=split(settings["TWOFOLD_OUTPUT_URI"])[0],
                parameters=training,
                reporter=reporter,
            )
        else:
            reporter.say(
                "There is no training image yet. To use 'twofold train submit', run 'twofold cloud push' and then "
                "this command again."
            )
    for name, value in settings.items():
        print(f"export {name}={shlex.quote(value)}")


def _parameters(pairs: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Returns the parameters of the worker's and of the training template, from pairs NAME=VALUE."""
    given = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UserError(f"--parameter {pair} is not of the form NAME=VALUE.")
        given[name] = value
    worker, training = (stack.parameters_of(lambda_zip.infra(name)) for name in ("worker.yaml", "training.yaml"))
    unknown = ", ".join(sorted(given.keys() - worker - training))
    if unknown:
        raise typer.BadParameter(f"no template has the parameter {unknown}", param_hint="--parameter")
    return (
        {name: value for name, value in given.items() if name in worker},
        {name: value for name, value in given.items() if name in training},
    )
