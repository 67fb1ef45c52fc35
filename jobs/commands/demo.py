"""``twofold demo``: the whole loop on one machine."""

import json
import tempfile
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from jobs.commands.environment import forget_environment
from jobs.commands.options import Json
from jobs.progress import Reporter
from worker.contract import PredictionRow

EXAMPLE: Final = "Example: twofold demo --data cats_and_dogs_filtered --keep out/"


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
        from jobs import demo as loop  # noqa: PLC0415
        from jobs.training.metrics import headline  # noqa: PLC0415

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
