"""``twofold demo`` and ``twofold local``: Twofold on this machine, against an emulator of AWS."""

import inspect
import json
import os
import shlex
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from jobs.commands.options import Json
from jobs.commands.train_run import config_parameters, default_cache, named_parameters
from jobs.config import TrainConfig
from jobs.extras import require
from jobs.folder_settings import FILE, offer, read
from jobs.printable import printable
from jobs.progress import Reporter
from jobs.signals import Stopped, if_stopped, stop
from jobs.user_error import UserError
from jobs.wording import fitted, program, with_command

if TYPE_CHECKING:
    from jobs.local.demo import DemoResult
    from jobs.local.playground import Playground, Serving
    from worker.contract import PredictionRow

DEMO_EXAMPLE: Final = "Example: twofold demo --data cats_and_dogs_filtered --keep out/"
LOCAL_EXAMPLE: Final = "Example: twofold local --model out/models"
_FIRST_ROWS: Final = 5
#: The options of training that change its result most.
_TRAINING: Final = ("name", "image_size", "weights", "threshold", "augment", "fine_tune", "max_quarantined")


def demo(
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder or archive with a folder of images for each of two classes, or labeled list. Repeatable.",
            show_default="scikit-learn's digits, three and eight",
        ),
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Folder for images, model, manifest and CSV.", show_default="a temporary one")
    ] = None,
    weights: Annotated[str, typer.Option(help=f"{TrainConfig.model_fields['weights'].description}")] = "auto",
    as_json: Json = False,
) -> None:
    """Run everything once on this machine: an emulated cloud, a training job, a queue, a worker and its CSV."""
    require("train", "local")
    reporter = Reporter()
    with reporter.step("Loading the libraries"):
        from jobs.local import demo as loop  # noqa: PLC0415 - scikit-learn would delay --help by a second

    folder = keep or Path(tempfile.mkdtemp(prefix="twofold-demo-"))
    with if_stopped("Stopped, with everything that the demo had started. Run the same command to start over."):
        result = loop.run(data=data, keep=folder, weights=weights, reporter=reporter)
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
    *,
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Option(
            help="The model to serve: a folder or s3:// prefix of models, of one model (its champion), or a version.",
            show_default="the one served last, at first a sample",
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Train on these images first, and serve that model: a folder, an archive or an address, "
            f"as for '{program()} train run --data'."
        ),
    ] = None,
    keep: Annotated[
        Path, typer.Option(help="Folder for the bucket, the queues and models; reused if it exists.")
    ] = Path("out/local"),
    port: Annotated[
        int | None,
        typer.Option(
            min=1024, max=65535, help="Port on 127.0.0.1.", show_default="the one of the last start, at first 4566"
        ),
    ] = None,
    serverless: Annotated[
        bool, typer.Option("--serverless", help="Deploy infra/worker.yaml as on AWS; its queue runs the Lambda.")
    ] = False,
    as_json: Json = False,
    **training: object,
) -> None:
    """Run a bucket, queues, a model and a worker on this machine until Ctrl-C. No account, no Docker."""
    require("local")
    signal.signal(signal.SIGINT, stop)  # a shell's "&" leaves it ignored
    stored = f"Everything has stopped. {keep} keeps its data: run the same command to go on."
    with if_stopped(stored if keep.exists() else "Everything has stopped. Nothing had been started yet."):
        from jobs.local.playground import open_playground  # noqa: PLC0415 - boto3 would delay --help

    reporter = Reporter()
    given = {name for name in training if str(context.get_parameter_source(name)).endswith("COMMANDLINE")}
    options = {name: value for name, value in training.items() if value is not None}
    serving = _serving(model, data, given=given, options=options, keep=keep, reporter=reporter)
    ready = False
    try:
        with (
            if_stopped(stored),
            open_playground(keep=keep, port=port, serving=serving, reporter=reporter, serverless=serverless) as running,
        ):
            if as_json:
                print(json.dumps(_facts(running)), flush=True)
            else:
                written = offer(running.environment, written_by="twofold local")
                print(fitted(_instructions(running, written=written), sys.stdout), flush=True)
            ready = True
            running.watch()
    except Stopped as stopped:
        if ready:
            stopped.status = 0  # which is how it is meant to end
        raise


local.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # which is what typer reads
    named_parameters(local) + config_parameters(_TRAINING, panel="Options of training, with --data")
)


def _serving(
    model: str | None,
    data: list[str] | None,
    *,
    given: set[str],
    options: dict[str, object],
    keep: Path,
    reporter: Reporter,
) -> "Serving":
    """Returns what the options ask to be served. Raises typer.BadParameter for options that do not fit together."""
    from jobs.local.playground import BUCKET, Serving, bundle_at  # noqa: PLC0415 - see above
    from jobs.local.sample import train_on  # noqa: PLC0415

    if model is not None and data:
        raise typer.BadParameter("--data trains a model and --model names one: give one of the two.")
    if data:
        config = TrainConfig.model_validate(
            options | {"data": data, "output": str(keep / "models"), "cache": default_cache()}
        )
        environment = dict(os.environ)
        return Serving(bundle=lambda: bundle_at(train_on(config, environment=environment, reporter=reporter), reporter))
    if others := sorted(given - {"weights"}):
        raise typer.BadParameter(f"--{others[0].replace('_', '-')} is an option of training: add --data.")
    if model is None:
        return Serving(weights=str(options["weights"]))
    own = f"s3://{BUCKET}/models/"
    if model.startswith(own):
        return Serving(name=model.removeprefix(own).split("/")[0])
    return Serving(bundle=lambda: bundle_at(model, reporter))


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
    if "model" in result.files:
        models = shlex.quote(str(result.files["model"].parent))
        print(
            with_command("Everything has stopped, and the files stay. To serve this model:", f"local --model {models}")
        )


def _first_rows(rows: "list[PredictionRow]") -> Table:
    title = f"The first {_FIRST_ROWS} of {len(rows):,} rows"
    table = Table("row", "source_ref", "label", "confidence", "error_code", title=title)
    for row in rows[:_FIRST_ROWS]:
        confidence = "" if row.confidence is None else f"{row.confidence:.4f}"
        table.add_row(str(row.row), row.source_ref, row.label or "", confidence, row.error_code or "")
    return table


def _facts(running: "Playground") -> dict[str, object]:
    model = running.model
    return {
        "environment": running.environment,
        "images": None if running.images is None else str(running.images),
        "model": {"name": model.name, "version": model.version, "labels": model.labels},
    }


def _instructions(running: "Playground", *, written: bool) -> str:
    """Returns what is served, and what to type next; ``written`` says whether the folder has the settings."""
    model = running.model
    accuracy = f", test accuracy {model.metrics['accuracy']:.3f}" if "accuracy" in model.metrics else ""
    photos = "PHOTOS" if running.images is None else shlex.quote(str(running.images.resolve()))
    exports = [f"  export {name}={shlex.quote(value)}" for name, value in running.environment.items()]
    lines = [
        f"\nServing {model.name}, version {model.version}: {' or '.join(map(printable, model.labels))}{accuracy}.",
        *([] if written else _other_settings()),
        f"It runs until Ctrl-C. Type in another terminal{', in this folder' if written else ''}:\n",
        *([] if written else exports),
        f"  {program()} batch submit {photos} --job-id june --wait",
        f"  {program()} batch results june\n",
        f"A list of images that is uploaded to {running.inbox_uri} starts a job as well. For programs, or by hand:\n",
        f"  curl -T list.csv {running.environment['AWS_ENDPOINT_URL']}/{running.bucket}/inbox/\n",
    ]
    return "\n".join(lines)


def _other_settings() -> list[str]:
    """Returns a line about the settings of this folder, if there are some: commands that are typed here use them."""
    try:
        found = read(Path.cwd())
    except UserError:
        return []
    model = found.get("TWOFOLD_MODEL_URI", "").removesuffix("/champion.json").rpartition("/")[2]
    uses = f", and their model {model}" if model else ""
    kept = f"{FILE} was not replaced. Without these exports, commands in this folder use its settings{uses}."
    return [kept] if found else []
