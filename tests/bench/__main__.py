"""The command line of the benchmarks. Exit status: 0 measured, 1 a step failed, 2 a wrong option."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from botocore.exceptions import BotoCoreError, ClientError

from jobs.progress import Reporter
from jobs.user_error import UserError
from tests.bench import bill, figures, submit, train, worker

app = typer.Typer(
    name="python -m tests.bench",
    help="Measure Twofold against what one would write without it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _beside(path: Path | None) -> Path | None:
    if path is not None and not path.parent.is_dir():
        raise typer.BadParameter(f"{path.parent} is no folder", param_hint="--json")
    return path


Data = Annotated[
    Path | None,
    typer.Option(
        envvar="TWOFOLD_DATA",
        help="Folder of images, as twofold train takes it.",
        show_default="scikit-learn's digits, 3 against 8",
    ),
]
JsonFile = Annotated[
    Path | None,
    typer.Option("--json", dir_okay=False, callback=_beside, help="File for the medians and every run."),
]


@app.command("worker", epilog="Example: python -m tests.bench worker --data cats_and_dogs_filtered --json worker.json")
def measure_worker(
    data: Data = None,
    images: Annotated[int, typer.Option(min=1, help="Images of a request; the test images, over and over.")] = 1000,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each worker; the medians are told.")] = 3,
    json_file: JsonFile = None,
) -> None:
    """Our worker against boto3, Pillow and Keras: the same images, the same cloud, the same model."""
    figures.show(worker.run(data=data, images=images, runs=runs, reporter=Reporter()), json_file)


@app.command("lambda", epilog="Example: python -m tests.bench lambda --data cats_and_dogs_filtered --json lambda.json")
def measure_lambda(
    data: Data = None,
    images: Annotated[int, typer.Option(min=1, help="Images of the second call; the first has one.")] = 500,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each handler; the medians are told.")] = 3,
    json_file: JsonFile = None,
) -> None:
    """Our Lambda's cold start beside the same handler with Keras, and what a million images cost."""
    compared = worker.run(data=data, images=images, runs=runs, reporter=Reporter(), is_lambda=True)
    figures.show(compared, json_file)
    ours, peer = (median["cpu_ms_per_image"] for median in compared.medians())
    bill.show(bill.lines(cpu_ms_per_image=ours, peer_cpu_ms_per_image=peer))


@app.command("submit", epilog="Example: python -m tests.bench submit --json submit.json")
def measure_submit(
    rows: Annotated[
        list[int] | None, typer.Option(min=1, help="Rows of a list; more than once.", show_default="as promised")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", dir_okay=False, help="File for the figures.")] = None,
) -> None:
    """Long lists planned and submitted: 10,000 rows beside 100,000 and a million."""
    submit.show(submit.run(rows or [10_000, 100_000, 1_000_000], Reporter()), json_file)


@app.command("train", epilog="Example: python -m tests.bench train --data cats_and_dogs_filtered --json train.json")
def measure_train(
    data: Annotated[
        Path,
        typer.Option(
            envvar="TWOFOLD_DATA",
            exists=True,
            file_okay=False,
            help="Folder with train/ and validation/, a folder of images in each for each of two classes.",
        ),
    ],
    runs: Annotated[int, typer.Option(min=1, help="Runs of each; the medians are told.")] = 3,
    weights: Annotated[
        str, typer.Option(help="The backbone's, for both: auto, imagenet, package, a file or an s3:// URI.")
    ] = "auto",
    json_file: JsonFile = None,
) -> None:
    """A training job against the recipe it started from: the same images, the same weights."""
    figures.show(train.run(data=data, weights=weights, runs=runs, reporter=Reporter()), json_file)


def main() -> int:
    """Runs the command; never a traceback for what a person can mend."""
    try:
        app()
    except (UserError, BotoCoreError, ClientError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
