"""``twofold train run``: trains a model from images, and writes a bundle."""

import inspect
import json
import logging
import os
import re
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.table import Table

from jobs.commands.conventions import InFolder
from jobs.commands.options import Json
from jobs.config import OptionHelp, TrainConfig
from jobs.data.dataset import describe_sources
from jobs.extras import require
from jobs.metrics import threshold_rule, unsure_rule
from jobs.metrics.titles import title_of
from jobs.progress import Reporter, hushed
from jobs.training import weights
from jobs.training.interruption import Interruption
from jobs.training.spot_notice import watching
from jobs.unsure_band import described
from jobs.user_error import UserError
from jobs.wording import counted, program

if TYPE_CHECKING:
    from jobs.train import TrainedBundle

#: For ``twofold local``, which serves the version that it has trained, whatever the champion of its folder is.
AnyClasses = Annotated[bool, typer.Option("--any-classes", hidden=True)]

app = typer.Typer(help="Train a classifier.", no_args_is_help=True)

_EPILOG: Final = (
    "Example: twofold train run --data pets/ --output s3://shelter/models --name pets\n\n"
    "--data takes a folder with one folder for each of the two classes, or with train/ and optionally validation/ and "
    "test/, each of which holds the two; a .zip, .tar, .tar.gz or .tgz archive of such a folder; the https:// address "
    "of an archive, followed by #sha256=DIGEST to have it checked; an s3:// prefix, or an archive in a bucket; or a "
    "labelled list: a CSV of source_ref,label, JSON Lines, or an augmented manifest of SageMaker.\n\n"
    "Several sources: --data pets/ --data reviewed.csv. Where two have the same image, the later one's label counts."
)


def _with_config_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command one option for each field of TrainConfig, in addition to the parameters that it names."""
    command.__signature__ = inspect.Signature(config_parameters(TrainConfig.model_fields) + named_parameters(command))  # type: ignore[attr-defined]  # which is what typer reads
    return command


def config_parameters(fields: Iterable[str], *, panel: str | None = None) -> list[inspect.Parameter]:
    """Returns the parameters of these fields of TrainConfig. ``panel`` is the title of their group in the help."""
    return [_parameter(name, TrainConfig.model_fields[name], panel) for name in fields]


def named_parameters(command: Callable[..., None]) -> list[inspect.Parameter]:
    """Returns the parameters that a command names."""
    parameters = inspect.signature(command, eval_str=True).parameters.values()
    return [parameter for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]


def _parameter(name: str, field: FieldInfo, panel: str | None) -> inspect.Parameter:
    """Returns the parameter that typer turns into an option. Pydantic checks its value, typer only its type."""
    shown = next((item for item in field.metadata if isinstance(item, OptionHelp)), OptionHelp())
    option = typer.Option(
        help=field.description, rich_help_panel=panel or shown.panel, show_default=shown.default or True
    )
    kind: Any = field.annotation if field.annotation in {int, float, Path} else list[str] if shown.repeated else str
    default = inspect.Parameter.empty if field.is_required() else field.default
    if shown.default:
        kind, default = kind | None, None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])


@app.callback()
def group() -> None:
    """Train a classifier."""
    # Without a callback, typer takes a single command for the whole group, and rejects its name.


@app.command("run", epilog=_EPILOG, cls=InFolder)
@_with_config_options
def train_run(*, as_json: Json = False, any_classes: AnyClasses = False, **options: object) -> None:
    """Train on this machine, and write a model bundle with its evaluation."""
    require("train")
    given = {name: value for name, value in options.items() if value is not None}
    config = TrainConfig.model_validate({"cache": default_cache()} | given)
    reporter, interruption = Reporter(), Interruption()
    with interruption.listening(), watching(os.environ, say=reporter.say):
        _check_early(config)
        with reporter.step("Loading the libraries"):
            from jobs.data.prepare import open_dataset  # noqa: PLC0415 - imports scikit-learn, which takes a second

        dataset = open_dataset(config, reporter)  # first, so that a wrong folder is reported before TensorFlow starts
        if not any_classes:
            _check_classes(config, dataset.labels)
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
        _print_next(trained, config)


def _check_early(config: TrainConfig) -> None:
    """Raises UserError for what need not wait until TensorFlow has started: no weights, or a version that exists."""
    from jobs.models.bundle import check_free  # noqa: PLC0415
    from jobs.models.location import open_output  # noqa: PLC0415

    weights.check(config.weights)
    output = open_output(config.output) if config.version else None
    if config.version and output is not None and not _was_begun(config):
        check_free(output, name=config.name, version=config.version)


def _check_classes(config: TrainConfig, labels: tuple[str, str]) -> None:
    """Raises UserError if the model has a champion with other classes, which this version could never replace."""
    from jobs.models.champion import Champions  # noqa: PLC0415
    from jobs.models.location import open_output  # noqa: PLC0415
    from jobs.models.registry import read_manifest  # noqa: PLC0415

    output = open_output(config.output)
    champion = Champions(output, config.name).current() if output is not None else None
    if output is None or champion is None:
        return
    version = champion.tenure.version
    try:
        theirs = read_manifest(output, config.name, version).labels
    except UserError:  # a damaged champion must not keep anybody from training the next one
        return
    if theirs != labels:
        raise UserError(
            f"The classes of this data set are {labels[0]} (0) and {labels[1]} (1), those of {config.name} "
            f"{version}, the champion, {theirs[0]} (0) and {theirs[1]} (1). This version could not replace it.\n"
            f"Train it as another model: --name {'-'.join(labels) if _is_name('-'.join(labels)) else 'NAME'}\n"
            f"Or, if that champion is a mistake, delete {output.uri}/{config.name} first."
        )


def _is_name(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", text) is not None


def _was_begun(config: TrainConfig) -> bool:
    """Returns whether an interrupted job may have written this version. Then the job itself knows if it resumes."""
    from jobs.data.cache import ArrayCache  # noqa: PLC0415
    from jobs.store import open_store  # noqa: PLC0415

    store = open_store(config.checkpoint or str(config.cache))
    entries = (name for name in store.names("jobs/") if name.endswith("/begun.arrays"))
    begun = (ArrayCache(store, name.removesuffix("/begun.arrays")).get_bytes("begun") for name in entries)
    return any(json.loads(entry)[0] == config.version for entry in begun if entry is not None)


def default_cache() -> Path:
    """Returns the folder of everything that is downloaded or computed only once."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "twofold"


def _print_summary(trained: "TrainedBundle") -> None:
    out = Console(highlight=False)
    table = Table("on the test images", "value")
    for figure, value in trained.manifest.metrics.items():
        table.add_row(title_of(figure), f"{value:.4f}")
    table.add_row("images", f"{trained.evaluation['n']:,}")
    table.add_row("threshold", f"{trained.manifest.threshold:.4f}")
    band = unsure_rule.of_evaluation(trained.evaluation)
    if band:
        table.add_row("unsure", f"{described(band.band)}: {band.unsure.value:.4f} of the images")
        table.add_row("right where not unsure", "" if band.right.value is None else f"{band.right.value:.4f}")
    out.print(table)
    rule = threshold_rule.outcome(trained.evaluation)
    if rule and not rule.borne_out:
        out.print(f"The test images do not bear out the threshold: {rule}. {rule.advice}", style="yellow")
    unmet = band.unmet(trained.manifest.labels) if band else None
    if unmet:
        out.print(f"The test images do not bear out the band of unsure scores: {unmet}.", style="yellow")
    if sources := describe_sources(trained.evaluation):
        print(sources)
    quarantined = trained.evaluation["images"]["quarantined"]
    if quarantined:
        were, each = ("was", "it") if quarantined == 1 else ("were", "each")
        print(f"{counted(quarantined, 'file')} {were} left out. {trained.uri}/quarantine.csv lists {each} and why.")
    print(f"The bundle is at {trained.uri}{' and is the champion' if trained.champion else ''}.")


def _print_next(trained: "TrainedBundle", config: TrainConfig) -> None:
    """Prints what to type next: how to use this version, and how to make it the champion if it is not."""
    from jobs.models.champion import Champions  # noqa: PLC0415 - takes a moment, as the AWS SDK does
    from jobs.store import open_store  # noqa: PLC0415

    where = shlex.quote(trained.uri)
    if not trained.champion:
        current = Champions(open_store(config.output), config.name).current()
        still = f"The champion is still {current.tenure.version}. " if current else ""
        print(f"{still}To put this version in its place: {program()} model promote {where}")
    if not config.output.startswith("s3://"):
        print(f"To classify images with this version on this machine: {program()} local --model {where}")
