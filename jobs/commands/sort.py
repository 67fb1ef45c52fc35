"""``twofold batch sort``: the pictures of a job into piles, and back."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from jobs import question
from jobs.commands.batch import Output, app, job_name, open_client
from jobs.commands.options import Json, Yes, band_of
from jobs.printable import printable
from jobs.progress import Reporter
from jobs.signals import if_stopped
from jobs.user_error import UserError
from jobs.wording import counted, fitted, program, with_command

if TYPE_CHECKING:  # boto3 takes half a second to load, and --help does not need it
    from jobs.batch.client import BatchClient
    from jobs.batch.pile_list import Method, PileList
    from jobs.batch.piles import Piles
    from jobs.batch.placing import Placer
    from jobs.batch.results import Results
    from jobs.batch.sorting import SortedPiles, Unplaced
    from jobs.batch.unsorting import Unsorted
    from jobs.unsure_band import Band

_FAILED: Final = 1
_AUDIT: Final = "audit"
_BY_LABEL: Final = "none"
_METHODS: Final = ("copy", "link", "move", "tag")
#: Pictures that are named, at most.
_NAMED: Final = 10


@app.command(
    "sort",
    epilog="Example: twofold batch sort june --to piles/\n\n"
    "Example: twofold batch sort june --to piles/ --how move --unsure 0.3:0.7\n\n"
    "Example: twofold batch sort --undo piles/piles.csv",
)
def sort(
    job_id: Annotated[
        str | None, typer.Argument(metavar="[JOB]", help="Name of the job, or of its file in inbox/.")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="FOLDER", help="A folder, or an s3:// prefix, for the piles.")
    ] = None,
    how: Annotated[
        str,
        typer.Option(
            metavar="METHOD",
            help="copy; link (hard links) or move, for files of this machine; or tag, for objects in S3.",
        ),
    ] = "copy",
    unsure: Annotated[
        str | None,
        typer.Option(
            metavar="LOW:HIGH",
            help="Scores of the pile unsure; audit: those that its audit proposes; none: no such pile.",
            show_default="the job's decisions",
        ),
    ] = None,
    undo: Annotated[
        Path | None, typer.Option("--undo", help="The piles.csv of a move or of tags: put everything back.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count pictures and bytes, and do nothing.")] = False,
    yes: Yes = False,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Put the pictures of a job into a folder for each class, unsure/ and failed/. Run it again to go on, or to update.

    Nothing is overwritten. Exit 1 if a picture is in no pile.
    """
    if undo is not None:
        _undo(undo, output, as_json=as_json)
        return
    job = _Sort.of(job_id, to, how, unsure)
    client = open_client(output)
    job.check_target(client.settings.needed_output())
    name = job_name(client, job.job_id)
    found = job.run(client, name, dry_run=dry_run, yes=yes)
    if dry_run:
        print(found.model_dump_json() if as_json else fitted(f"{_piles(found)}\nNothing was done.", sys.stdout))
        return
    print(found.model_dump_json() if as_json else fitted(_report(found), sys.stdout))
    _name(found.unplaced, "in no pile")
    if found.unplaced:
        raise typer.Exit(_FAILED)


@dataclass(frozen=True)
class _Sort:
    """What was asked for."""

    job_id: str
    to: str
    how: "Method"
    unsure: str | None
    band: "Band | None"

    @classmethod
    def of(cls, job_id: str | None, to: str | None, how: str, unsure: str | None) -> "_Sort":
        """Raises BadParameter for options that are missing or do not fit together."""
        from jobs.batch.pile_list import Method  # noqa: PLC0415

        if job_id is None:
            raise typer.BadParameter("name the job, or an older list with --undo", param_hint="JOB")
        if how not in _METHODS:
            raise typer.BadParameter(
                f"must be {', '.join(_METHODS[:-1])} or {_METHODS[-1]}, not {how!r}", param_hint="--how"
            )
        if to is None:
            what = "for its list" if how == "tag" else "for the piles"
            raise typer.BadParameter(f"name a folder {what}, such as --to {job_id}-piles", param_hint="--to")
        if to.startswith("s3://") and how != "copy":
            where = (
                "needs a folder of this machine, for its list"
                if how == "tag"
                else "puts files into a folder of this machine"
            )
            raise typer.BadParameter(f"--how {how} {where}, and not an s3:// prefix", param_hint="--to")
        if "://" in to and not to.startswith("s3://"):
            raise typer.BadParameter("must be a folder or an s3:// prefix", param_hint="--to")
        named = None if unsure in {None, _AUDIT, _BY_LABEL} else band_of(unsure)
        return cls(job_id, to.rstrip("/") or "/", Method(how), unsure, named)

    def check_target(self, output_uri: str) -> None:
        """Raises UserError for piles among what jobs write."""
        from worker.uris import is_bucket, overlap  # noqa: PLC0415

        if not self.to.startswith("s3://"):
            return
        if not is_bucket(self.to.removeprefix("s3://").partition("/")[0]):
            raise typer.BadParameter("must be s3://BUCKET or s3://BUCKET/PREFIX", param_hint="--to")
        if overlap(self.to, output_uri):
            raise UserError(f"{self.to} and the results in {output_uri} must be apart. Choose another --to.")

    def run(self, client: "BatchClient", name: str, *, dry_run: bool, yes: bool) -> "SortedPiles":
        """Reads the rows, asks where originals will change, and sorts."""
        from jobs.batch.results import Results  # noqa: PLC0415
        from jobs.batch.sorting import SortedPiles, audited_band, read_piles  # noqa: PLC0415

        reporter = Reporter()
        results = Results(client.record(name))
        band = audited_band(results.record) if self.unsure == _AUDIT else self.band
        with reporter.step("Reading the rows", total=results.job.images) as advance:
            piles = read_piles(results, band=band, by_label=self.unsure == _BY_LABEL, advance=advance)
        found = SortedPiles(job_id=name, how=self.how, to=self.to, images=piles.rows, listed_twice=piles.listed_twice)
        if dry_run:
            return self._estimate(client, piles, found, reporter)
        self._confirm(piles, results, yes=yes)
        with if_stopped("Stopped. Every picture is where it was, or in its pile. Run the same command again to go on."):
            self._sort(client, results, piles, found, reporter)
        return found

    def _sort(
        self, client: "BatchClient", results: "Results", piles: "Piles", found: "SortedPiles", reporter: Reporter
    ) -> None:
        from jobs.batch.sorting import sort_pictures  # noqa: PLC0415

        with self._target(client, results, piles) as (placer, known):
            pictures = piles.pictures
            if self._is_among(results.job.sources):
                again = "submitting it again would take these copies, too"
                reporter.say(f"  {printable(self.to)} is inside a folder that was submitted: {again}.")
            with reporter.step(f"Sorting into {printable(self.to)}", total=len(pictures)) as advance:
                sort_pictures(pictures, placer, known, found, advance)
        order = {pile: number for number, pile in enumerate(piles.folders)}
        found.piles = dict(sorted(found.piles.items(), key=lambda item: order.get(item[0], len(order))))

    def _is_among(self, sources: "Sequence[str]") -> bool:
        from jobs.batch.file_names import base_of  # noqa: PLC0415

        base = base_of(sources)
        here = None if self.to.startswith("s3://") or self.how == "move" else Path(self.to).resolve()
        return base is not None and here is not None and here.is_relative_to(base.resolve())

    @contextmanager
    def _target(self, client: "BatchClient", results: "Results", piles: "Piles") -> "Iterator[tuple[Placer, PileList]]":
        """Opens the target and its list, and gives the pictures their names."""
        from jobs.batch.folder_placer import FolderPlacer  # noqa: PLC0415
        from jobs.batch.pile_folder import PileFolder  # noqa: PLC0415
        from jobs.batch.pile_list import Method, PileList  # noqa: PLC0415
        from jobs.batch.s3_placers import CopyPlacer, TagPlacer  # noqa: PLC0415
        from jobs.store import BucketStore, FolderStore  # noqa: PLC0415

        if self.to.startswith("s3://"):
            known = PileList(BucketStore(self.to, client.storage))
            piles.name_all(known)
            yield CopyPlacer(client.objects(), client.storage, prefix=self.to), known
            return
        with PileFolder(Path(self.to)) as folder:
            known = PileList(FolderStore(Path(self.to)))
            piles.name_all(known)
            if self.how is Method.TAG:
                yield TagPlacer(client.objects()), known
                return
            sources = results.job.sources
            yield FolderPlacer(folder, client.storage, how=self.how, sources=sources), known

    def _estimate(
        self, client: "BatchClient", piles: "Piles", found: "SortedPiles", reporter: Reporter
    ) -> "SortedPiles":
        """Counts by pile."""
        from jobs.batch.sorting import estimate  # noqa: PLC0415

        with reporter.step("Asking for sizes"):
            return estimate(piles, client.objects(), found)

    def _confirm(self, piles: "Piles", results: "Results", *, yes: bool) -> None:
        """Asks before originals are changed. Raises UserError if the answer is no, or if nobody can be asked."""
        from jobs.batch.pile_list import Method  # noqa: PLC0415

        here = sum(picture.original is not None for picture in piles.pictures)
        there = len(piles.pictures) - here
        if self.how is Method.MOVE and not here:
            raise UserError(
                f"The images of {results.job.job_id} are in S3, and cannot be moved. Use --how copy or tag."
            )
        if self.how is Method.TAG and not there:
            raise UserError(f"The images of {results.job.job_id} are files of this machine, which have no tags.")
        if yes or self.how not in {Method.MOVE, Method.TAG}:
            return
        what = (
            f"move up to {counted(here, 'file')} of this machine to {printable(self.to)}"
            if self.how is Method.MOVE
            else f"add a tag to up to {counted(there, 'object')} in S3"
        )
        again = _undoing(self.to)
        if not sys.stdin.isatty():
            unasked = f"Nothing was done: this would {what}, and nobody can be asked here."
            raise UserError(with_command(f"{unasked} Add --yes to do it without a question. To undo it then:", again))
        if not question.confirm(f"This will {what}; '{program()} {again}' undoes it. Go on?"):
            raise UserError("Nothing was done.")


def _undo(path: Path, output: str | None, *, as_json: bool) -> None:
    from jobs.batch.unsorting import folder_of, undo  # noqa: PLC0415

    with if_stopped("Stopped. Run the same command again to undo the rest."):
        found = undo(folder_of(path), lambda: open_client(output).objects(), Reporter())
    print(found.model_dump_json() if as_json else fitted(_report_undone(found), sys.stdout))
    _name(found.unplaced, "not restored")
    if found.unplaced:
        raise typer.Exit(_FAILED)


def _piles(found: "SortedPiles") -> str:
    """Returns a line for each pile, and the sum."""
    rows = [*found.piles.items()]
    rows += [("listed twice", found.listed_twice)] if found.listed_twice else []
    rows += [("in no pile", len(found.unplaced))] if found.unplaced else []
    width = max((len(printable(name)) for name, _ in rows), default=0)
    lines = [f"  {printable(name):<{width}}  {number:>9,}" for name, number in rows]
    size = ""
    if found.size_bytes is not None:
        size = f", {'about ' if found.is_estimate else ''}{_in_bytes(found.size_bytes)}"
    return "\n".join([f"{found.job_id}: {counted(found.images, 'image')}{size}", *lines])


def _in_bytes(size: int) -> str:
    """Returns ``16 kB``, ``1.5 MB`` or ``12.0 GB``."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size / 1e3:,.0f} kB"


def _report(found: "SortedPiles") -> str:
    """Returns the piles, and what was done for them."""
    counts = {
        "new": found.new,
        "there before": found.already_there,
        "moved over from another pile": found.moved_over,
        "left in the pile where you put them": found.put_by_hand,
        "copied, because there is no file to link or move": found.copied_instead,
        "older versions set aside in replaced/": found.set_aside,
    }
    done = ", ".join(f"{number:,} {what}" for what, number in counts.items() if number) or "nothing to do"
    lines = [_piles(found), f"{done}. {found.to}/piles.csv lists them."]
    if found.how in {"move", "tag"}:
        lines.append(with_command("To put everything back:", _undoing(found.to)))
    return "\n".join(lines)


def _undoing(to: str) -> str:
    """Returns what to type after the program's name to undo a sort into that folder."""
    return f"batch sort --undo {shlex.quote(f'{to}/piles.csv')}"


def _report_undone(found: "Unsorted") -> str:
    there = f", {found.already_there:,} were there already" if found.already_there else ""
    kept = f" {counted(found.kept, 'copy', 'copies')} and links stay: remove the folder." if found.kept else ""
    return f"{counted(found.restored, 'picture')} restored{there}.{kept}"


def _name(unplaced: "Sequence[Unplaced]", what: str) -> None:
    """Names the first pictures that something is wrong with, on standard error."""
    for one in unplaced[:_NAMED]:
        print(f"{what}: {printable(one.picture)}: {printable(one.reason)}", file=sys.stderr)
    if len(unplaced) > _NAMED:
        print(f"and {len(unplaced) - _NAMED:,} more; --json lists all of them", file=sys.stderr)
