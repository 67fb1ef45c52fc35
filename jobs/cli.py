"""The ``twofold`` command. Reads options, calls the rest, prints; knows nothing else."""

import json
import logging
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from jobs.config import TrainConfig
from jobs.errors import UserError
from jobs.progress import Reporter, hushed
from worker.contract import PredictionRow, explain
from worker.errors import TwofoldError

app = typer.Typer(
    name="twofold",
    help="Sort pictures into two piles: train a classifier, and let it work off a queue.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
train_app = typer.Typer(help="Train a classifier.", no_args_is_help=True)
app.add_typer(train_app, name="train")

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on standard output.")]


@train_app.command(
    "run",
    epilog="Example: twofold train run --data pets/ --output s3://shelter/models --name pets",
)
def train_run(
    data: Annotated[
        Path, typer.Option(help="Folder of two class folders, or of train/ and validation/ and/or test/ with them.")
    ],
    output: Annotated[str, typer.Option(help="s3://bucket/prefix or a folder, for <name>/<version>/.")],
    name: Annotated[str, typer.Option(help="The model's name.")] = "model",
    version: Annotated[str | None, typer.Option(help="The bundle's version.", show_default="the time now")] = None,
    image_size: Annotated[int, typer.Option(help="Width and height the model sees, in pixels.")] = 160,
    weights: Annotated[
        str, typer.Option(help="The backbone's: auto, imagenet, package, a file or an s3:// URI.")
    ] = "auto",
    epochs: Annotated[int, typer.Option(help="Passes of the head over the features.")] = 20,
    seed: Annotated[int, typer.Option(help="Of the splits and of the head.")] = 123,
    threshold: Annotated[
        str, typer.Option(help="A number, or a rule: max-f1, precision>=0.95, recall>=0.99, kept on validation images.")
    ] = "0.5",
    as_json: Json = False,
) -> None:
    """Train on this machine, and write a model bundle with its evaluation."""
    config = TrainConfig(
        data=data,
        output=output,
        name=name,
        version=version,
        image_size=image_size,
        weights=weights,
        epochs=epochs,
        seed=seed,
        threshold=threshold,
    )
    reporter = Reporter()
    with reporter.step("Looking at the images"):
        from jobs import dataset  # noqa: PLC0415 - scikit-learn takes a second that --help need not wait

        dataset.find(config)  # a wrong folder is told at once, and not when TensorFlow has started
    with reporter.step("Starting TensorFlow"), hushed():
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        from jobs.train import train  # noqa: PLC0415 - seconds that --help need not wait
    trained = train(config, reporter)
    if as_json:
        print(json.dumps({"uri": trained.uri, "champion": trained.champion, "evaluation": trained.evaluation}))
        return
    out = Console(highlight=False)
    table = Table("on the test images", "", title=None)
    for figure, value in trained.manifest.metrics.items():
        table.add_row(figure.replace("_", " "), f"{value:.4f}")
    table.add_row("images", f"{trained.evaluation['n']:,}")
    table.add_row("threshold", f"{trained.manifest.threshold:.4f}")
    out.print(table)
    left_out = trained.evaluation["images"]["quarantined"]
    if left_out:
        out.print(f"{left_out:,} files were left out; quarantine.csv says which, and why.")
    out.print(f"The bundle is at {trained.uri}{' and is the champion' if trained.champion else ''}.", soft_wrap=True)


@app.command(epilog="Example: twofold demo --data cats_and_dogs_filtered --keep out/")
def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of two class folders.", show_default="scikit-learn's digits, 3 against 8"),
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Folder for images, model, manifest and CSV.", show_default="a temporary one")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the whole loop here: a cloud on this machine, a training job, a queue, a worker, a CSV."""
    reporter = Reporter()
    with reporter.step("Starting"):  # scikit-learn takes a second that --help need not wait
        from jobs import demo as loop  # noqa: PLC0415
        from jobs.metrics import headline  # noqa: PLC0415

    _forget_environment()
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


def _forget_environment() -> None:
    """The demo is about this machine: profiles, endpoints and proxies of the person's own must not steer it."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "TWOFOLD_")) or name.lower().endswith("_proxy"):
            del os.environ[name]


def _first_rows(rows: list[PredictionRow], count: int = 5) -> Table:
    table = Table(
        "row", "source_ref", "label", "confidence", "error_code", title=f"The first {count} of {len(rows):,} rows"
    )
    for row in rows[:count]:
        confidence = "" if row.confidence is None else f"{row.confidence:.4f}"
        table.add_row(str(row.row), row.source_ref, row.label or "", confidence, row.error_code or "")
    return table


def main(arguments: list[str] | None = None) -> int:
    """Runs the command. Exit status: 0 done, 1 failed, 2 a wrong option; never a traceback for a person's mistake."""
    # As Ctrl-C: child processes are ended on the way out, none goes on for nobody.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        app(args=arguments)
    except ValidationError as error:
        print(f"Error: {explain(error)}", file=sys.stderr)
        return 2
    except (UserError, TwofoldError, ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
