"""``twofold local``: a cloud on this machine, left running to play with."""

import json
import shlex
import signal
from pathlib import Path
from typing import Annotated, Final

import typer

from jobs.commands.environment import forget_environment
from jobs.commands.options import Json
from jobs.errors import UserError
from jobs.progress import Reporter

EXAMPLE: Final = "Example: twofold local --keep out/local"


def local(
    keep: Annotated[Path, typer.Option(help="Folder for bucket, queues and pictures; found again.")] = Path(
        "out/local"
    ),
    port: Annotated[int, typer.Option(min=1024, max=65535, help="Of 127.0.0.1.")] = 4566,
    serverless: Annotated[
        bool, typer.Option("--serverless", help="infra/worker.yaml as on AWS, whose queue runs the Lambda.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run bucket, queues, a sample model and a worker on this machine, until Ctrl-C."""
    from jobs.cloud.playground import open_playground  # noqa: PLC0415 - boto3 takes a moment that --help need not wait

    forget_environment()
    # Both end it as Ctrl-C does, so that what is to be kept is written down; a shell's "&" would leave SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    reporter = Reporter()
    try:
        with open_playground(keep=keep, port=port, reporter=reporter, serverless=serverless) as running:
            if as_json:
                print(json.dumps({"environment": running.environment, "images": str(running.images)}), flush=True)
            else:
                print(_instructions(running.environment, running.images, running.inbox_uri), flush=True)
            if running.worker is None:
                signal.pause()
                return
            status = running.worker.wait()
            raise UserError(f"The worker ended by itself, with exit status {status}; its reason stands above.")
    except KeyboardInterrupt:
        reporter.say(f"Stopped. What was in the bucket and the queues is in {keep}, for the next start.")
        raise typer.Exit(0) from None


def _instructions(environment: dict[str, str], images: Path, inbox: str) -> str:
    exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in environment.items())
    return (
        f"\nRunning, until Ctrl-C. In another shell:\n\n{exports}\n"
        f"twofold batch submit {shlex.quote(str(images.resolve()))} --wait\n\n"
        f"A list that is written below {inbox} is a job as well.\n"
    )
