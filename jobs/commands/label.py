"""``twofold label``: a page on which a person labels images, and the list that their labels go to."""

import json
import shlex
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from jobs.commands.options import Json
from jobs.printable import printable
from jobs.progress import Reporter
from jobs.signals import Stopped, if_stopped
from jobs.user_error import UserError
from jobs.wording import counted, program

if TYPE_CHECKING:  # Pillow and boto3 take a moment to load, and --help does not need them
    from jobs.labelling.images import ImageSource, SourceImage
    from jobs.labelling.label_file import LabelFile
    from jobs.labelling.page import PageImage
    from jobs.labelling.session import LabellingSession
    from worker.errors import TwofoldError

    LeftOut = list[tuple[SourceImage, TwofoldError]]

LABEL_EXAMPLE: Final = (
    "Example: twofold label photos/ --classes cat,dog -n 200 -o labels.csv\n\n"
    "Example: twofold label s3://shelter/in/ --classes cat,dog -n 200 --serve\n\n"
    "The page needs no server: its Save downloads the list. With --serve, the list is written as you label. Run the "
    "command again to go on: every line that the list has is kept."
)
#: What a page of this command has: it can be made again, and replaced.
_OURS: Final = b'<meta name="generator" content="twofold label">'
_HEAD_BYTES: Final = 4096
#: Images named that cannot be shown.
_NAMED: Final = 10


def label(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="A folder, an s3://…/prefix/, or a list (CSV, JSON, one path a line)."),
    ],
    classes: Annotated[str, typer.Option(help="The two classes, as in cat,dog.")],
    number: Annotated[
        int | None, typer.Option("-n", "--number", min=1, max=5000, help="Draw so many at random.", show_default="all")
    ] = None,
    file: Annotated[Path, typer.Option("-o", "--file", help="The labelled list, a .csv file.")] = Path("labels.csv"),
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the page on 127.0.0.1 until Ctrl-C, and write the list.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port for --serve.", show_default="any that is free")] = 0,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in your browser.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an HTML file that is not such a page.")] = False,
    as_json: Json = False,
) -> None:
    """Label images in the browser, one by one. The list of labels is what training reads."""
    from jobs.labelling.label_file import LabelFile  # noqa: PLC0415 - see above

    both = _classes(classes)
    _check_files(file, force=force or serve)
    labels = LabelFile(file)
    _check_labels(labels, both)
    session, left_out = _prepare(source, number, labels, both, served=serve)
    if serve:
        _serve(session, left_out, port=port, open_page=open_page, as_json=as_json)
    else:
        _write(session, left_out, open_page=open_page, as_json=as_json)


def _prepare(
    source: str, number: int | None, labels: "LabelFile", classes: tuple[str, str], *, served: bool
) -> tuple["LabellingSession", "LeftOut"]:
    """Finds the images and makes their thumbnails. Raises UserError if not one of them can be shown."""
    from jobs.labelling.images import ImageSource, as_listed, choose  # noqa: PLC0415 - see above
    from jobs.labelling.session import LabellingSession  # noqa: PLC0415

    reporter, images = Reporter(), ImageSource(labels.path.parent)
    with if_stopped("Stopped. Nothing was written. Run the same command again."):
        with reporter.step(f"Listing {printable(source)}"):
            found = images.find(source)
        listed = (line.source_ref for line in labels.lines)
        chosen = as_listed(choose(found, number, source), listed, images.beside)
        shown, left_out = _read(chosen, images, reporter)
        _say_left_out(left_out, images, reporter)
    if not shown:
        raise UserError(f"Not one image of {printable(source)} can be shown.")
    intro = _intro(len(found), len(chosen), labels.path, served=served)
    return LabellingSession(_title(source), intro, classes, shown, labels), left_out


def _classes(text: str) -> tuple[str, str]:
    """Returns the two classes in alphabetical order, as in training. Raises BadParameter for anything else."""
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415 - see above

    from worker.contract import Label, describe  # noqa: PLC0415

    names = sorted({name.strip() for name in text.split(",")})
    if len(names) != 2 or text.count(",") != 1:  # noqa: PLR2004 - two classes
        raise typer.BadParameter(f"takes two names with a comma between them, as in cat,dog, not {text!r:.100}")
    for name in names:
        try:
            TypeAdapter(Label).validate_python(name)
        except ValidationError as error:
            raise typer.BadParameter(describe(error.errors(include_url=False)[0])) from None
    return names[0], names[1]


def _check_files(file: Path, *, force: bool) -> None:
    """Raises UserError if the list or the page could not be written."""
    from jobs.output_file import check_free  # noqa: PLC0415 - see above

    if file.suffix.lower() != ".csv" and not file.is_dir():
        raise UserError(f"{file}: the name of a labelled list must end in .csv, as in -o {file.with_suffix('.csv')}")
    check_free(file, force=True, example="labels.csv")
    page = file.with_suffix(".html")
    if not force and page.is_file():
        with page.open("rb") as start:
            force = _OURS in start.read(_HEAD_BYTES)
    check_free(page, force=force, example="labels.html")


def _check_labels(labels: "LabelFile", classes: tuple[str, str]) -> None:
    """Raises UserError if the list has labels of other classes, which the page could not show."""
    foreign = sorted({line.label for line in labels.lines if line.label} - {*classes})
    if foreign:
        raise UserError(
            f"{labels.path} has labels other than {' and '.join(classes)}: {', '.join(map(printable, foreign[:5]))}. "
            "Correct --classes, or choose another file with -o."
        )


def _read(
    chosen: "Sequence[SourceImage]", images: "ImageSource", reporter: Reporter
) -> tuple[list["PageImage"], "LeftOut"]:
    """Returns the images that can be shown, and the others with the reasons."""
    from jobs.labelling.page import PageImage  # noqa: PLC0415 - see above
    from jobs.labelling.thumbnails import make_thumbnails  # noqa: PLC0415

    with reporter.step("Making thumbnails", total=len(chosen)) as advance:
        made = make_thumbnails(chosen, images.read, advance=advance)
    pairs = list(zip(chosen, made, strict=True))
    shown = [PageImage(image.source_ref, image.name, found) for image, found in pairs if isinstance(found, bytes)]
    return shown, [(image, found) for image, found in pairs if not isinstance(found, bytes)]


def _say_left_out(left_out: "LeftOut", images: "ImageSource", reporter: Reporter) -> None:
    from jobs.batch.tally import in_words  # noqa: PLC0415 - see above

    for line in in_words(images.skipped.groups()):
        reporter.say(f"Skipped: {line}")
    if left_out:
        reporter.say(f"{counted(len(left_out), 'image')} cannot be shown:")
    for image, error in left_out[:_NAMED]:
        reporter.say(f"  {printable(image.place)}: {error.code.value}, {printable(error.message)}")
    if len(left_out) > _NAMED:
        reporter.say(f"  and {len(left_out) - _NAMED:,} more")


def _title(source: str) -> str:
    return source if source.startswith("s3://") else Path(source).resolve().name


def _intro(found: int, chosen: int, file: Path, *, served: bool) -> str:
    """Returns what the page says about the images, and about where the labels go."""
    which = (
        f"{chosen:,} of {counted(found, 'image')}, drawn at random."
        if chosen < found
        else counted(found, "image") + "."
    )
    if served:
        return f"{which} {file.name} is written as you label."
    return f"{which} Save downloads {file.name}: move it to {file.resolve()}."


def _write(session: "LabellingSession", left_out: "LeftOut", *, open_page: bool, as_json: bool) -> None:
    """Writes the page, and says what to do with it."""
    from jobs.output_file import writing  # noqa: PLC0415 - see above

    list_path = session.labels.path
    page_path = list_path.with_suffix(".html")
    with writing(page_path, force=True) as file:
        file.write(session.page())
    address = page_path.resolve().as_uri()
    if open_page:
        webbrowser.open(address)
    if as_json:
        print(json.dumps({"page": str(page_path)} | _facts(session, left_out)))
        return
    print(
        f"{page_path} has {_counts(session)}. Open it, label, and press s to save:\n  {address}\n"
        f"Move the {list_path.name} that your browser saves to {list_path.resolve()}, and train on it:\n"
        f"  {_training(list_path)}"
    )


def _serve(session: "LabellingSession", left_out: "LeftOut", *, port: int, open_page: bool, as_json: bool) -> None:
    """Serves the page until a signal arrives, which is how it is meant to end."""
    path = session.labels.path
    try:
        with session.server(port) as server:
            if as_json:
                print(json.dumps({"url": server.url} | _facts(session, left_out)), flush=True)
            else:
                print(
                    f"Open {server.url}\nin a browser on this machine: {_counts(session)}. The address works once.\n"
                    f"{path} is written as you label. Press Ctrl-C when you are done.",
                    flush=True,
                )
            if open_page:
                webbrowser.open(server.url)
            server.serve_forever()
    except Stopped as stopped:
        stopped.status = 0
        done = session.answered
        left = len(session.images) - done
        goes_on = "Run the same command again to go on." if left else f"Train on it: {_training(path)}"
        stopped.text = f"Stopped. {path} has {counted(done, 'image')} of this page, and {left:,} are left. {goes_on}"
        raise


def _counts(session: "LabellingSession") -> str:
    done = session.answered
    return f"{counted(len(session.images), 'image')}{f', {done:,} of them with a label already' if done else ''}"


def _training(path: Path) -> str:
    return f"{program()} train run --data {shlex.quote(str(path))} --output models"


def _facts(session: "LabellingSession", left_out: "LeftOut") -> dict[str, object]:
    return {
        "file": str(session.labels.path),
        "images": len(session.images),
        "labelled": session.answered,
        "left_out": [
            {"source_ref": image.source_ref, "error_code": error.code.value, "error_message": error.message}
            for image, error in left_out
        ],
    }
