"""``twofold local``: a cloud on this machine, left running to play with."""

import json
import os
import shlex
import signal
import tempfile
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from jobs.commands.options import Json
from jobs.progress import Reporter
from jobs.user_error import UserError
from worker.contract import PredictionRow

DEMO_EXAMPLE: Final = "Example: twofold demo --data cats_and_dogs_filtered --keep out/"


def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="Folder or archive of two class folders.", show_default="scikit-learn's digits, 3 against 8"),
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Folder for images, model, manifest and CSV.", show_default="a temporary one")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the whole loop here: a cloud on this machine, a training job, a queue, a worker, a CSV."""
    reporter = Reporter()
    with reporter.step("Starting"):  # scikit-learn takes a second that --help need not wait
        from jobs.local import demo as loop  # noqa: PLC0415
        from jobs.metrics.classification import headline  # noqa: PLC0415

    forget_environment()
    folder = keep or Path(tempfile.mkdtemp(prefix="twofold-demo-"))
    outcome = loop.run(data=data, keep=folder, reporter=reporter)
    rate = outcome.report.rows / max(outcome.report.seconds, 1e-3)
    if as_json:
        figures = outcome.report.model_dump(mode="json") | {
            "accuracy": outcome.accuracy,
            "images_per_s": rate,
            "worker_s": outcome.worker_s,
            "evaluation": outcome.evaluation,
            "files": {name: str(path) for name, path in outcome.files.items()},
        }
        print(json.dumps(figures))
        return
    out = Console(highlight=False)
    out.print(_first_rows(outcome.rows))
    report, told = outcome.report, headline(outcome.evaluation)["accuracy"]
    out.print(
        f"{report.rows:,} images asked for = {report.scored:,} scored + {report.failed:,} with an error code.\n"
        f"Accuracy {outcome.accuracy:.4f} in the CSV, {told:.4f} in the training report.\n"
        f"{rate:,.0f} images a second; {outcome.worker_s:.1f} s from the worker's start to its end."
    )
    for name, path in outcome.files.items():
        out.print(f"{name:<9} {path}", soft_wrap=True)


def _first_rows(rows: list[PredictionRow], count: int = 5) -> Table:
    table = Table(
        "row", "source_ref", "label", "confidence", "error_code", title=f"The first {count} of {len(rows):,} rows"
    )
    for row in rows[:count]:
        confidence = "" if row.confidence is None else f"{row.confidence:.4f}"
        table.add_row(str(row.row), row.source_ref, row.label or "", confidence, row.error_code or "")
    return table


def forget_environment() -> None:
    """Profiles, endpoints, settings and proxies of the person's own must not steer them."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "TWOFOLD_")) or name.lower().endswith("_proxy"):
            del os.environ[name]


LOCAL_EXAMPLE: Final = "Example: twofold local --keep out/local"


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
    from jobs.local.playground import open_playground  # noqa: PLC0415 - boto3 takes a moment that --help need not wait

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
