"""The command line of the benchmarks. Exit status: 0 measured, 1 a step failed, 2 a wrong option."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from botocore.exceptions import BotoCoreError, ClientError

from jobs.errors import UserError
from jobs.progress import Reporter
from tests.bench import figures, submit, worker

app = typer.Typer(
    name="python -m tests.bench",
    help="Measure Twofold against what one would write without it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command("worker", epilog="Example: python -m tests.bench worker --data cats_and_dogs_filtered --json worker.json")
def measure_worker(
    data: Annotated[
        Path | None,
        typer.Option(
            envvar="TWOFOLD_DATA",
            help="Folder of images, as twofold train takes it.",
            show_default="scikit-learn's digits, 3 against 8",
        ),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Images of a request; the test images, over and over.")] = 1000,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each worker; the medians are told.")] = 3,
    json_file: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, help="File for the medians and every run.")
    ] = None,
) -> None:
    """Our worker against boto3, Pillow and Keras: the same images, the same cloud, the same model."""
    if json_file is not None and not json_file.parent.is_dir():
        raise typer.BadParameter(f"{json_file.parent} is no folder", param_hint="--json")
    figures.show(worker.run(data=data, images=images, runs=runs, reporter=Reporter()), json_file)


@app.command("submit", epilog="Example: python -m tests.bench submit --json submit.json")
def measure_submit(
    rows: Annotated[
        list[int] | None, typer.Option(min=1, help="Rows of a list; more than once.", show_default="as promised")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", dir_okay=False, help="File for the figures.")] = None,
) -> None:
    """Long lists planned and submitted: 10,000 rows beside 100,000 and a million."""
    submit.show(submit.run(rows or [10_000, 100_000, 1_000_000], Reporter()), json_file)


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
