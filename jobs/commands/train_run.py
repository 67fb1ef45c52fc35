"""``twofold train run``: trains a model from images, and writes a bundle."""

import inspect
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from pydantic.fields import FieldInfo

from jobs.commands.conventions import InFolder
from jobs.commands.options import Json
from jobs.config import OptionHelp, TrainConfig
from jobs.progress import Reporter, hushed
from jobs.training.interruption import Interruption
from jobs.wording import counted

if TYPE_CHECKING:
    from jobs.train import TrainedBundle

app = typer.Typer()

_EPILOG: Final = (
    "Example: twofold train run --data pets/ --output s3://shelter/models --name pets\n\n"
    "--data takes a folder with one folder for each of the two classes, or with train/ and optionally validation/ and "
    "test/, each of which holds the two; a .zip, .tar, .tar.gz or .tgz archive of such a folder; the https:// address "
    "of an archive, followed by #sha256=DIGEST to have it checked; an s3:// prefix, or an archive in a bucket."
)


def with_config_options(
    command: Callable[..., None], *, panel: str | None = None, needed: bool = True
) -> Callable[..., None]:
    """Gives a command one option for each field of TrainConfig that it does not name itself, in the group ``panel``.

    With ``needed`` False, all of them can be left out, and are then None.
    """
    named = inspect.signature(command, eval_str=True).parameters
    own = [parameter for parameter in named.values() if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
    added = [
        _parameter(name, field, panel=panel, needed=needed)
        for name, field in TrainConfig.model_fields.items()
        if name not in named
    ]
    # Which is what typer reads.
    command.__signature__ = inspect.Signature(added + own if needed else own + added)  # type: ignore[attr-defined]
    return command


def _parameter(name: str, field: FieldInfo, *, panel: str | None, needed: bool) -> inspect.Parameter:
    """Returns the parameter that typer turns into an option. Pydantic checks its value, typer only its type."""
    shown = next((item for item in field.metadata if isinstance(item, OptionHelp)), OptionHelp())
    kind: Any = field.annotation if field.annotation in {int, float, Path} else str
    default = inspect.Parameter.empty if field.is_required() else field.default
    words: str | bool = shown.default or True
    if shown.default or not needed:
        words = shown.default or str(field.default) or False
        kind, default = kind | None, None
    option = typer.Option(help=field.description, rich_help_panel=panel or shown.panel, show_default=words)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])


@app.command("run", epilog=_EPILOG, cls=InFolder)
@with_config_options
def train_run(*, as_json: Json = False, **options: object) -> None:
    """Train on this machine, and write a model bundle with its evaluation."""
    run(options, as_json=as_json)


def run(options: Mapping[str, object], *, as_json: bool) -> None:
    """Runs a training job with the options that are not None, and prints its result."""
    given = {name: value for name, value in options.items() if value is not None}
    config = TrainConfig.model_validate({"cache": _default_cache()} | given)
    reporter, interruption = Reporter(), Interruption()
    with interruption.listening():
        with reporter.step("Starting"):
            from jobs.data.prepare import open_dataset  # noqa: PLC0415 - imports scikit-learn, which takes a second

        dataset = open_dataset(config, reporter)  # first, so that a wrong folder is reported before TensorFlow starts
        with reporter.step("Starting TensorFlow"), hushed():
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
            logging.getLogger("tensorflow").setLevel(logging.ERROR)
            from jobs.train import train  # noqa: PLC0415 - takes seconds
            from jobs.training import devices  # noqa: PLC0415

            devices.gpus()  # CUDA says aloud that there is none

        trained = train(config, dataset, reporter, interruption)
    if as_json:
        print(json.dumps({"uri": trained.uri, "champion": trained.champion, "evaluation": trained.evaluation}))
    else:
        _print_summary(trained)


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "twofold"


def _print_summary(trained: "TrainedBundle") -> None:
    from rich.console import Console  # noqa: PLC0415 - --help does not need it
    from rich.table import Table  # noqa: PLC0415

    table = Table("on the test images", "")
    for figure, value in trained.manifest.metrics.items():
        table.add_row(figure.replace("_", " "), f"{value:.4f}")
    table.add_row("images", f"{trained.evaluation['n']:,}")
    table.add_row("threshold", f"{trained.manifest.threshold:.4f}")
    Console(highlight=False).print(table)
    quarantined = trained.evaluation["images"]["quarantined"]
    if quarantined:
        were = "was" if quarantined == 1 else "were"
        print(f"{counted(quarantined, 'file')} {were} left out. quarantine.csv lists each with its reason.")
    print(f"The bundle is at {trained.uri}{' and is the champion' if trained.champion else ''}.")
