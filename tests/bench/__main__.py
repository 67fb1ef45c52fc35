"""The command line of the benchmarks. Exit status 0: measured, 1: a step failed, 2: a wrong option."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from botocore.exceptions import BotoCoreError, ClientError

from jobs.progress import Reporter
from jobs.user_error import UserError
from tests.bench import bill, figures, label, submit, train, worker

app = typer.Typer(
    name="python -m tests.bench",
    help="Measure Twofold against what you would write without it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _in_a_folder(path: Path | None) -> Path | None:
    if path is not None and not path.parent.is_dir():
        raise typer.BadParameter(f"{path.parent} is not a folder", param_hint="--json")
    return path


Data = Annotated[
    Path | None,
    typer.Option(
        envvar="TWOFOLD_DATA",
        help="Folder of images, as for 'twofold train run'.",
        show_default="scikit-learn's digits, 3 against 8",
    ),
]
JsonFile = Annotated[
    Path | None,
    typer.Option("--json", dir_okay=False, callback=_in_a_folder, help="File for the medians and for every run."),
]


@app.command("worker", epilog="Example: python -m tests.bench worker --data cats_and_dogs_filtered --json worker.json")
def measure_worker(
    data: Data = None,
    images: Annotated[int, typer.Option(min=1, help="Images per request, repeating the test images.")] = 1000,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each worker. The medians are printed.")] = 3,
    json_file: JsonFile = None,
) -> None:
    """The worker against boto3, Pillow and Keras, with the same images, cloud and model."""
    figures.show(worker.run(data=data, images=images, runs=runs, reporter=Reporter()), json_file)


@app.command("lambda", epilog="Example: python -m tests.bench lambda --data cats_and_dogs_filtered --json lambda.json")
def measure_lambda(
    data: Data = None,
    images: Annotated[int, typer.Option(min=1, help="Images in the second call. The first has one.")] = 500,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each handler. The medians are printed.")] = 3,
    json_file: JsonFile = None,
) -> None:
    """The cold start of the Lambda against the same handler with Keras, and the cost of a million images."""
    compared = worker.run(data=data, images=images, runs=runs, reporter=Reporter(), is_lambda=True)
    figures.show(compared, json_file)
    ours, peer = (median["cpu_ms_per_image"] for median in compared.medians())
    bill.show(bill.lines(cpu_ms_per_image=ours, peer_cpu_ms_per_image=peer))


@app.command("submit", epilog="Example: python -m tests.bench submit --json submit.json")
def measure_submit(
    rows: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Rows of a list. Repeatable.", show_default="10,000, 100,000 and 1,000,000"),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", dir_okay=False, help="File for the figures.")] = None,
) -> None:
    """Submitting long lists: 10,000 rows, 100,000 rows and a million."""
    submit.show(submit.run(rows or [10_000, 100_000, 1_000_000], Reporter()), json_file)


@app.command("label", epilog="Example: python -m tests.bench label --data cats_and_dogs_filtered")
def measure_label(
    data: Annotated[Path, typer.Option(envvar="TWOFOLD_DATA", exists=True, file_okay=False, help="Folder of images.")],
    images: Annotated[int, typer.Option(min=1, max=5000, help="Images on the page, repeating those there are.")] = 5000,
    runs: Annotated[int, typer.Option(min=1, help="How often the page is opened. The medians are printed.")] = 5,
    json_file: JsonFile = None,
) -> None:
    """The page for labelling: its size, how fast it opens, and its memory in headless Chromium."""
    label.show(label.run(data, images=images, runs=runs, reporter=Reporter()), json_file)


@app.command("train", epilog="Example: python -m tests.bench train --data cats_and_dogs_filtered --json train.json")
def measure_train(
    data: Annotated[
        Path,
        typer.Option(
            envvar="TWOFOLD_DATA",
            exists=True,
            file_okay=False,
            help="Folder with train/ and validation/, each with a folder of images for each of two classes.",
        ),
    ],
    runs: Annotated[int, typer.Option(min=1, help="Runs of each. The medians are printed.")] = 3,
    weights: Annotated[
        str, typer.Option(help="Weights of both backbones: auto, imagenet, package, a file or an s3:// URI.")
    ] = "auto",
    json_file: JsonFile = None,
) -> None:
    """A training job against the recipe it is based on, with the same images and weights."""
    figures.show(train.run(data=data, weights=weights, runs=runs, reporter=Reporter()), json_file)


def main() -> int:
    """Runs the command. What the user can fix is reported without a traceback."""
    try:
        app()
    except (UserError, BotoCoreError, ClientError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
