"""``twofold model``: which versions there are, and which one is in use."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from pydantic import TypeAdapter
from rich.console import Console

from jobs.commands import model_view as tables
from jobs.commands.options import Json
from jobs.progress import Reporter
from jobs.user_error import UserError

if TYPE_CHECKING:
    from jobs.models.promotion import Change

# What these commands do is imported inside them: scipy, LiteRT and the AWS SDK take a second that --help need not wait.

app = typer.Typer(help="List, compare, promote and check trained models.", no_args_is_help=True)

_OUTPUT: Final = "s3://shelter/models"
_MODEL: Final = f"{_OUTPUT}/pets"
_VERSION: Final = f"{_MODEL}/20261124T140509Z"

#: 5 images in 1,000. It is half of how far an accuracy is uncertain on that many (0.976 has the interval 0.966 to
#: 0.985), so less than this is not told from luck, and a challenger that learned from newer pictures is not held back.
_MARGIN: Final = 0.005

Data = Annotated[
    Path | None,
    typer.Option(
        help="Folder with the pictures it was tested on, found by their content.", exists=True, file_okay=False
    ),
]


@app.command("list", epilog=f"Example: twofold model list {_OUTPUT}")
def list_models(
    where: Annotated[str, typer.Argument(help="What training was given as --output, or one model below it.")],
    as_json: Json = False,
) -> None:
    """List the models and their versions, the champion marked."""
    from jobs.models import registry  # noqa: PLC0415

    with Reporter().step("Reading the manifests"):
        found = registry.find_all(where)
    if as_json:
        print(json.dumps([tables.version_json(version) for version in found]))
        return
    out = _console()
    for table in tables.models(found):
        out.print(table)


@app.command(epilog=f"Example: twofold model show {_VERSION}")
def show(
    where: Annotated[str, typer.Argument(help="A version, or a model: then its champion.")], as_json: Json = False
) -> None:
    """Show all that is known of one version: manifest, evaluation with intervals, and history."""
    from jobs.models import registry  # noqa: PLC0415
    from jobs.models.champion import Champions  # noqa: PLC0415
    from jobs.models.location import find  # noqa: PLC0415

    place = find(where)
    version = place.bundle()
    manifest = registry.read_manifest(place.store, place.name, version)
    evaluation = registry.read_evaluation(place.store, place.name, version)
    history = Champions(place.store, place.name).history()
    if as_json:
        told = {"manifest": manifest, "evaluation": evaluation, "history": history}
        print(TypeAdapter(dict[str, Any]).dump_json(told).decode())
        return
    out = _console()
    for table in (tables.manifest(manifest), tables.evaluation(evaluation, manifest.labels), tables.history(history)):
        out.print(table)


@app.command(epilog=f"Example: twofold model promote {_VERSION} --data pets/")
def promote(
    where: Annotated[str, typer.Argument(help="The version that is to become the champion.")],
    data: Data = None,
    margin: Annotated[
        float, typer.Option(help="Accuracy it may be worse than the champion, on the same test pictures.", min=0, max=1)
    ] = _MARGIN,
    force: Annotated[
        bool, typer.Option("--force", help="Promote it even if it is worse, or cannot be compared.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a version the champion, unless it is damaged, or worse than the one in use on the same test pictures."""
    from jobs.models import promotion  # noqa: PLC0415
    from jobs.models.gate import Gate, Refused  # noqa: PLC0415
    from jobs.models.location import find  # noqa: PLC0415

    place = find(where)
    if place.version is None:
        raise UserError(f"{where} is a model: name one of its versions. To see them: twofold model list {where}")
    try:
        gate = Gate(margin=margin, force=force, data=data, reporter=Reporter())
        change = promotion.promote(place.store, place.name, place.version, gate)
    except Refused as error:
        if as_json:
            print(json.dumps({"moved": False, "refused": str(error), "comparison": error.comparison}))
        elif error.comparison:
            _console().print(tables.comparison(error.comparison))
        raise
    _tell(change, as_json=as_json)


@app.command(epilog=f"Example: twofold model rollback {_MODEL}")
def rollback(
    where: Annotated[str, typer.Argument(help="The model whose champion is to be the one before again.")],
    as_json: Json = False,
) -> None:
    """Go back to the champion before; twice goes back two."""
    from jobs.models import promotion  # noqa: PLC0415
    from jobs.models.location import find  # noqa: PLC0415

    place = find(where)
    if place.version is not None:
        raise UserError(f"{where} is a version: name the model, {place.store.uri}/{place.name}, which goes back.")
    _tell(promotion.rollback(place.store, place.name, Reporter()), as_json=as_json)


@app.command(epilog=f"Example: twofold model verify {_VERSION} --data pets/")
def verify(
    where: Annotated[str, typer.Argument(help="A version, or a model: then its champion.")],
    data: Data = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Difference of a score that is no finding.",
            show_default="1e-6, and 0.1 where decoder or LiteRT are not those of the training",
            min=0,
            max=1,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Hold every file of a version against its digest, and score its test pictures again. Exit status 1: a finding."""
    from jobs.models.bundle import read_bundle  # noqa: PLC0415
    from jobs.models.location import find  # noqa: PLC0415
    from jobs.models.verification import verify as check  # noqa: PLC0415

    place = find(where)
    reporter = Reporter()
    bundle = read_bundle(place.store, place.name, place.bundle(), reporter)
    verification = check(bundle, data=data, tolerance=tolerance, reporter=reporter)
    if as_json:
        print(json.dumps(asdict(verification)))
    else:
        out = _console()
        if verification.findings:
            out.print(tables.findings(verification))
        out.print(tables.verdict(verification), soft_wrap=True)
    if verification.findings:
        raise typer.Exit(1)


def _tell(change: "Change", *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(change)))
        return
    out = _console()
    if change.comparison:
        out.print(tables.comparison(change.comparison))
    out.print(tables.changed(change), soft_wrap=True)


def _console() -> Console:
    return Console(highlight=False)
