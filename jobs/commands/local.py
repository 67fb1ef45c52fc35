"""``twofold demo`` and ``twofold local``: Twofold on this machine, against an emulator of AWS."""

import json
import os
import shlex
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from jobs.commands.options import Json
from jobs.extras import require
from jobs.progress import Reporter
from jobs.user_error import UserError

if TYPE_CHECKING:
    from jobs.local.demo import DemoResult
    from worker.contract import PredictionRow

DEMO_EXAMPLE: Final = "Example: twofold demo --data cats_and_dogs_filtered --keep out/"
LOCAL_EXAMPLE: Final = "Example: twofold local --keep out/local"
_FIRST_ROWS: Final = 5


def demo(
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder or archive with a folder of images for each of two classes.",
            show_default="scikit-learn's digits, 3 against 8",
        ),
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Folder for images, model, manifest and CSV.", show_default="a temporary one")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run everything once on this machine: an emulated cloud, a training job, a queue, a worker and its CSV."""
    require("train", "local")
    reporter = Reporter()
    with reporter.step("Starting"):
        from jobs.local import demo as loop  # noqa: PLC0415 - scikit-learn would delay --help by a second

    forget_environment()
    folder = keep or Path(tempfile.mkdtemp(prefix="twofold-demo-"))
    result = loop.run(data=data, keep=folder, reporter=reporter)
    rate = result.report.rows / max(result.report.seconds, 1e-3)
    if as_json:
        figures = result.report.model_dump(mode="json") | {
            "accuracy": result.accuracy,
            "images_per_s": rate,
            "worker_s": result.worker_s,
            "evaluation": result.evaluation,
            "files": {name: str(path) for name, path in result.files.items()},
        }
        print(json.dumps(figures))
    else:
        _print_result(result, rate)


def local(
    keep: Annotated[
        Path, typer.Option(help="Folder for the bucket, the queues and images; reused if it exists.")
    ] = Path("out/local"),
    port: Annotated[int, typer.Option(min=1024, max=65535, help="Port on 127.0.0.1.")] = 4566,
    serverless: Annotated[
        bool, typer.Option("--serverless", help="Deploy infra/worker.yaml as on AWS; its queue runs the Lambda.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a bucket, queues, a sample model and a worker on this machine until Ctrl-C."""
    require("local")
    from jobs.local.playground import open_playground  # noqa: PLC0415 - boto3 would delay --help

    forget_environment()
    # Both signals end it like Ctrl-C, so that its state is stored. A shell's "&" would leave SIGINT ignored.
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
            raise UserError(f"The worker ended with exit status {status}. The reason is printed above.")
    except KeyboardInterrupt:
        reporter.say(f"Stopped. The bucket and the queues are stored in {keep} and will be there at the next start.")
        raise typer.Exit(0) from None


def forget_environment() -> None:
    """Removes the user's AWS settings, Twofold settings and proxies, which must not affect the emulator."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "TWOFOLD_")) or name.lower().endswith("_proxy"):
            del os.environ[name]


def _print_result(result: "DemoResult", rate: float) -> None:
    from jobs.metrics.classification import headline  # noqa: PLC0415 - scikit-learn would delay --help by a second

    out = Console(highlight=False)
    out.print(_first_rows(result.rows))
    report, expected = result.report, headline(result.evaluation)["accuracy"]
    out.print(
        f"{report.rows:,} images requested = {report.scored:,} scored + {report.failed:,} with an error code.\n"
        f"Accuracy {result.accuracy:.4f} in the CSV, {expected:.4f} in the training report.\n"
        f"{rate:,.0f} images a second; {result.worker_s:.1f} s from the worker's start to its end."
    )
    for name, path in result.files.items():
        out.print(f"{name:<9} {path}", soft_wrap=True)


def _first_rows(rows: "list[PredictionRow]") -> Table:
    title = f"The first {_FIRST_ROWS} of {len(rows):,} rows"
    table = Table("row", "source_ref", "label", "confidence", "error_code", title=title)
    for row in rows[:_FIRST_ROWS]:
        confidence = "" if row.confidence is None else f"{row.confidence:.4f}"
        table.add_row(str(row.row), row.source_ref, row.label or "", confidence, row.error_code or "")
    return table


def _instructions(environment: dict[str, str], images: Path, inbox: str) -> str:
    exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in environment.items())
    return (
        f"\nRunning until Ctrl-C. In another shell:\n\n{exports}\n"
        f"twofold batch submit {shlex.quote(str(images.resolve()))} --wait\n\n"
        f"A manifest that you upload to {inbox} starts a job as well.\n"
    )
