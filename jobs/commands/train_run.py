"""``twofold train``: a folder of pictures to a model bundle."""

import json
import logging
import os
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from jobs.commands.options import Json
from jobs.config import TrainConfig
from jobs.progress import Reporter, hushed
from jobs.training.interruption import Interruption

app = typer.Typer(help="Train a classifier.", no_args_is_help=True)

_FINE: Final = "Fine points"
_EXAMPLE: Final = (
    "Example: twofold train run --data pets/ --output s3://shelter/models --name pets\n\n"
    "--data takes a folder of two class folders, or of train/ and validation/ and/or test/ with them; a .zip, .tar, "
    ".tar.gz or .tgz of that; the https:// address of such an archive, with #sha256=DIGEST behind it if it is to be "
    "checked; an s3:// prefix, or an archive in a bucket."
)


@app.callback()
def train() -> None:
    """Train a classifier."""
    # Without a callback typer would take a single command for the whole group, and refuse its name.


@app.command(
    "run",
    epilog=_EXAMPLE,
)
def train_run(
    data: Annotated[
        str, typer.Option(help="Folder or archive of two class folders, https:// address of one, or s3:// prefix.")
    ],
    output: Annotated[str, typer.Option(help="s3://bucket/prefix or a folder, for <name>/<version>/.")],
    name: Annotated[str, typer.Option(help="The model's name.")] = "model",
    version: Annotated[str | None, typer.Option(help="The bundle's version.", show_default="the time now")] = None,
    image_size: Annotated[int, typer.Option(help="Width and height the model sees, in pixels.")] = 160,
    weights: Annotated[
        str, typer.Option(help="The backbone's: auto, imagenet, package, a file or an s3:// URI.")
    ] = "auto",
    threshold: Annotated[
        str, typer.Option(help="A number, or a rule: max-f1, precision>=0.95, recall>=0.99, kept on validation images.")
    ] = "0.5",
    augment: Annotated[
        int,
        typer.Option(
            help="Views of each image to learn from: 2 its mirror image too, more also crops. "
            "Each costs as much time as the images themselves, once."
        ),
    ] = 1,
    fine_tune: Annotated[
        int, typer.Option(help="Layers at the top of the backbone that learn too; kept only if that helps.")
    ] = 0,
    max_quarantined: Annotated[
        float, typer.Option(help="Share of a class's files that may be left out; more stop the job.")
    ] = 0.05,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder for what is downloaded or computed once.", show_default="$XDG_CACHE_HOME/twofold"),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help="Folder or s3:// prefix for features and unfinished work: the same command goes on from there.",
            show_default="the cache",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images a step of fine-tuning.", rich_help_panel=_FINE)] = 32,
    l2: Annotated[float, typer.Option(help="Weight of the squared weights.", rich_help_panel=_FINE)] = 0.01,
    fine_tune_epochs: Annotated[int, typer.Option(help="At the most.", rich_help_panel=_FINE)] = 10,
    fine_tune_rate: Annotated[float, typer.Option(help="Of RMSprop.", rich_help_panel=_FINE)] = 1e-5,
    validation_split: Annotated[
        float, typer.Option(help="Share of the training images to decide by.", rich_help_panel=_FINE)
    ] = 0.2,
    test_split: Annotated[
        float, typer.Option(help="Share of all images, where there is no test set.", rich_help_panel=_FINE)
    ] = 0.2,
    seed: Annotated[int, typer.Option(help="Of the splits and of the head.", rich_help_panel=_FINE)] = 123,
    precision: Annotated[
        str,
        typer.Option(help="auto, float32, mixed_float16; auto is mixed_float16 on a GPU.", rich_help_panel=_FINE),
    ] = "auto",
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
        threshold=threshold,
        augment=augment,
        fine_tune=fine_tune,
        max_quarantined=max_quarantined,
        cache=cache or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "twofold",
        checkpoint=checkpoint,
        batch_size=batch_size,
        l2=l2,
        fine_tune_epochs=fine_tune_epochs,
        fine_tune_rate=fine_tune_rate,
        validation_split=validation_split,
        test_split=test_split,
        seed=seed,
        precision=precision,
    )
    reporter, interruption = Reporter(), Interruption()
    with interruption.listening():
        with reporter.step("Starting"):
            from jobs.data.prepare import open_dataset  # noqa: PLC0415 - imports scikit-learn, which takes a second

        dataset = open_dataset(config, reporter)  # first, so that a wrong folder is reported before TensorFlow starts
        with reporter.step("Starting TensorFlow"), hushed():
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
            logging.getLogger("tensorflow").setLevel(logging.ERROR)
            from jobs.train import train  # noqa: PLC0415 - takes seconds

        trained = train(config, dataset, reporter, interruption)
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
