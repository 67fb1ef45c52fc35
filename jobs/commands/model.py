"""``twofold model``: which versions of a model exist, and which one is in use."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from pydantic import TypeAdapter
from rich.console import Console

from jobs.commands import model_view
from jobs.commands.options import Json
from jobs.progress import Reporter
from jobs.user_error import UserError
from jobs.wording import program

if TYPE_CHECKING:
    from jobs.models.bundle import ImagePlaces
    from jobs.models.copying import BundleCopy
    from jobs.models.promotion import Change
    from jobs.store import Store

# The commands import what they need inside their bodies: SciPy, LiteRT and the AWS SDK would delay --help by a second.

app = typer.Typer()

_OUTPUT: Final = "s3://shelter/models"
_MODEL: Final = f"{_OUTPUT}/pets"
_VERSION: Final = f"{_MODEL}/20261124T140509Z"

#: 5 images in 1,000. That is half of the uncertainty of an accuracy on that many images (0.976 has the interval 0.966
#: to 0.985). A smaller difference may be chance, and must not hold back a challenger that learned from newer images.
_MARGIN: Final = 0.005

Data = Annotated[
    list[str] | None,
    typer.Option(
        help="Folder with its test images, found by their content, or another source as in training. Repeatable."
    ),
]


@app.command("list", epilog=f"Example: twofold model list {_OUTPUT}")
def list_models(
    where: Annotated[str, typer.Argument(help="What you passed to training as --output, or one model in it.")],
    as_json: Json = False,
) -> None:
    """List the models and their versions, and mark each champion.

    It reads each version's model.json and nothing else: verify says whether the other files are whole.
    """
    from jobs.models import registry  # noqa: PLC0415

    with Reporter().step("Reading the models"):
        found = registry.find_all(where)
    if as_json:
        print(json.dumps([model_view.version_json(version) for version in found]))
        return
    out = _console()
    for table in model_view.models(found):
        out.print(table)


@app.command(epilog=f"Example: twofold model show {_VERSION}")
def show(
    where: Annotated[str, typer.Argument(help="A version, a model (its champion), or a folder with one model.")],
    digests: Annotated[
        bool, typer.Option("--digests", help="Show the digests of files, images and decoder, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what is known about a version: its accuracy, all figures with intervals, how it was made, the history."""
    from jobs.models import registry  # noqa: PLC0415
    from jobs.models.champion import Champions  # noqa: PLC0415
    from jobs.models.location import find_bundle  # noqa: PLC0415

    location = find_bundle(where)
    version = location.bundle()
    manifest = registry.read_manifest(location.store, location.name, version)
    evaluation = registry.read_evaluation(location.store, location.name, version)
    history = Champions(location.store, location.name).history()
    if as_json:
        shown = {"manifest": manifest, "evaluation": evaluation, "history": history}
        print(TypeAdapter(dict[str, Any]).dump_json(shown).decode())
        return
    out = _console()
    out.print(model_view.headline(manifest, evaluation))
    if (unmet := model_view.unmet(evaluation, manifest.labels)) is not None:
        out.print(unmet, style="yellow")
    if (sources := model_view.sources(evaluation)) is not None:
        out.print(sources, soft_wrap=True)
    out.print(model_view.evaluation(evaluation, manifest.labels))
    out.print(model_view.manifest(manifest, digests=digests))
    out.print(model_view.history(history))


@app.command(epilog=f"Example: twofold model promote {_VERSION} --data pets/")
def promote(
    where: Annotated[str, typer.Argument(help="The version to promote.")],
    data: Data = None,
    margin: Annotated[
        float,
        typer.Option(help="How far its accuracy may fall below the champion's, on the same test images.", min=0, max=1),
    ] = _MARGIN,
    force: Annotated[
        bool, typer.Option("--force", help="Promote it even if it is worse, or cannot be compared.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a version the champion, unless it is damaged or worse than the current one on the same test images."""
    from jobs.models import promotion  # noqa: PLC0415
    from jobs.models.gate import Gate, PromotionRefused  # noqa: PLC0415
    from jobs.models.location import find  # noqa: PLC0415

    location = find(where)
    if location.version is None:
        raise UserError(
            f"{where} is a model. Name one of its versions. Run '{program()} model list {where}' to list them."
        )
    try:
        reporter = Reporter()
        gate = Gate(margin=margin, force=force, data=_places(data, reporter), reporter=reporter)
        change = promotion.promote(location.store, location.name, location.version, gate)
    except PromotionRefused as error:
        if as_json:
            print(json.dumps({"moved": False, "refused": str(error), "comparison": error.comparison}))
        elif error.comparison:
            _console().print(model_view.comparison(error.comparison))
        raise
    _print_change(change, as_json=as_json)


@app.command(epilog=f"Example: twofold model copy out/models {_OUTPUT}")
def copy(
    source: Annotated[
        str, typer.Argument(metavar="FROM", help="A version, a model (its champion), or a folder with one model.")
    ],
    target: Annotated[
        str, typer.Argument(metavar="TO", help="A folder or s3:// prefix of models. Names and versions stay.")
    ],
    champion: Annotated[
        bool, typer.Option("--champion", help=f"Promote the copy, as '{program()} model promote' does.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Copy a version between folders and buckets, and check every digest. Run it again after an interruption.

    The first version of a model becomes its champion. Otherwise the champion stays, unless you add --champion.
    """
    from jobs.models.bundle import point_champion, read_bundle  # noqa: PLC0415
    from jobs.models.champion import Champions  # noqa: PLC0415
    from jobs.models.copying import copy_bundle, output_of  # noqa: PLC0415
    from jobs.models.location import find_bundle  # noqa: PLC0415
    from jobs.store import open_store  # noqa: PLC0415

    reporter = Reporter()
    location = find_bundle(source)
    bundle = read_bundle(location.store, location.name, location.bundle(), reporter)
    store = open_store(output_of(target, bundle.manifest))
    copied = copy_bundle(bundle, store, reporter)
    if champion:
        _promote_copy(store, copied, reporter)
    else:
        point_champion(store, bundle.manifest)
    leader = Champions(store, copied.name).current()
    current = leader.tenure.version if leader else None
    if as_json:
        print(json.dumps(asdict(copied) | {"champion": current}))
    else:
        _console().print(model_view.copied(copied, current), soft_wrap=True)


@app.command(epilog=f"Example: twofold model rollback {_MODEL}")
def rollback(
    where: Annotated[
        str, typer.Argument(help="The model whose previous champion is to be restored, or a folder with one model.")
    ],
    as_json: Json = False,
) -> None:
    """Go back to the previous champion. Run it twice to go back two."""
    from jobs.models import promotion  # noqa: PLC0415
    from jobs.models.location import find_model  # noqa: PLC0415

    location = find_model(where)
    if location.version is not None:
        raise UserError(f"{where} is a version. Name the model instead: {location.store.uri}/{location.name}")
    _print_change(promotion.rollback(location.store, location.name, Reporter()), as_json=as_json)


@app.command(epilog=f"Example: twofold model verify {_VERSION} --data pets/")
def verify(
    where: Annotated[str, typer.Argument(help="A version, a model (its champion), or a folder with one model.")],
    data: Data = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Largest accepted difference in a score.",
            show_default="1e-6, or 0.1 if the decoder or LiteRT differs from that of the training",
            min=0,
            max=1,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check every file of a version against its digest, and score its test images again. Exit status 1: a finding."""
    from jobs.models.bundle import read_bundle  # noqa: PLC0415
    from jobs.models.location import find_bundle  # noqa: PLC0415
    from jobs.models.verification import verify as check  # noqa: PLC0415

    location = find_bundle(where)
    reporter = Reporter()
    bundle = read_bundle(location.store, location.name, location.bundle(), reporter)
    verification = check(bundle, data=_places(data, reporter), tolerance=tolerance, reporter=reporter)
    if as_json:
        print(json.dumps(asdict(verification)))
    else:
        out = _console()
        if verification.findings:
            out.print(model_view.findings(verification))
        out.print(model_view.verdict(verification, searched=data is not None), soft_wrap=True)
    if verification.findings:
        raise typer.Exit(1)


def _places(data: list[str] | None, reporter: Reporter) -> "ImagePlaces | None":
    """Returns where the images of ``--data`` are. What is not on this machine is copied to the cache of training."""
    from jobs.commands.train_run import default_cache  # noqa: PLC0415
    from jobs.data.listed_images import files_of  # noqa: PLC0415
    from jobs.models.bundle import ImagePlaces  # noqa: PLC0415

    if not data:
        return None
    folders = tuple(Path(source) for source in data if Path(source).is_dir())
    cache = default_cache().expanduser() / "data"
    files = [path for source in data if not Path(source).is_dir() for path in files_of(source, cache, reporter)]
    return ImagePlaces(", ".join(data), folders, tuple(files))


def _promote_copy(store: "Store", copied: "BundleCopy", reporter: Reporter) -> None:
    from jobs.models import promotion  # noqa: PLC0415
    from jobs.models.gate import Gate, PromotionRefused  # noqa: PLC0415

    try:
        promotion.promote(store, copied.name, copied.version, Gate(margin=_MARGIN, reporter=reporter))
    except PromotionRefused as error:
        raise UserError(f"The copy is complete, but not the champion. {error}") from error


def _print_change(change: "Change", *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(change)))
        return
    out = _console()
    if change.comparison:
        out.print(model_view.comparison(change.comparison))
    out.print(model_view.changed(change), soft_wrap=True)


def _console() -> Console:
    return Console(highlight=False)
