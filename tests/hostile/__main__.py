"""The command line of the catalogue. Exit status 0: every promise is kept, 1: one is not, 2: a wrong option."""

import json
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from jobs.local.emulator import EmbeddedCloud, create_queues
from jobs.local.sample import render_digits, train_sample
from jobs.progress import Reporter
from jobs.user_error import UserError
from tests.conftest import Bench
from tests.hostile.bundles import MODEL_JSON
from tests.hostile.catalogue import BOMB, CATALOGUE, DATASET, ELSEWHERE, MODEL, QUICK, Entry, Kind
from tests.hostile.direct import of_dataset, of_model
from tests.hostile.trial import MEMORY_MB, Became, Room, Trial

app = typer.Typer(name="python -m tests.hostile", add_completion=False, pretty_exceptions_enable=False)

#: Columns of a table that is written to a file.
_WIDTH: Final = 180


@app.command(epilog="Example: python -m tests.hostile --run image bomb")
def catalogue(
    words: Annotated[list[str] | None, typer.Argument(help="Kinds of entries, or parts of their names.")] = None,
    *,
    run: Annotated[bool, typer.Option("--run", help="Send each entry to a worker. The bombs take minutes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    models: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Folder with one model.", show_default="a sample is trained"),
    ] = None,
) -> None:
    """Print every hostile input, how it is made and what it becomes."""
    entries = [entry for entry in CATALOGUE if not words or any(_is_meant(entry, word) for word in words)]
    if not entries:
        raise typer.BadParameter("no entry is called like this", param_hint="WORDS")
    found = _run(entries, models, Reporter(quiet=as_json)) if run else {}
    if as_json:
        print(json.dumps([_described(entry, found.get(entry)) for entry in entries], indent=2))
    else:
        _show(entries, found)
    if not all(_is_kept(entry, became) for entry, became in found.items()):
        raise typer.Exit(1)


def _is_meant(entry: Entry, word: str) -> bool:
    return entry.kind == word if word in {kind.value for kind in Kind} else word in entry.name


def _run(entries: Sequence[Entry], models: Path | None, reporter: Reporter) -> dict[Entry, Became]:
    wanted = [entry for entry in entries if entry.kind is not ELSEWHERE]
    with tempfile.TemporaryDirectory(prefix="twofold-hostile-") as folder, EmbeddedCloud() as cloud:
        if models is None:
            models = Path(folder) / "models"
            render_digits(Path(folder) / "digits", reporter)
            train_sample(Path(folder) / "digits", str(models), name="digits", environment={}, reporter=reporter)
        bench = Bench(cloud.s3(), cloud.sqs(), "", create_queues(cloud.sqs(), "unused"), cloud.environment)
        bundle = next(models.rglob(MODEL_JSON)).parent
        found = {}
        with reporter.step("Trying the catalogue", total=len(wanted)) as advance:
            for entry, became in _one_by_one(wanted, Room.of(bench, models), bundle):
                found[entry] = became
                advance(1)
        return found


def _one_by_one(entries: Sequence[Entry], room: Room, bundle: Path) -> Iterator[tuple[Entry, Became]]:
    """Tries each entry alone, so that its time and its memory are its own."""
    quick = deque(entry for entry in entries if entry.kind in QUICK)
    while quick:
        with Trial(room) as trial:
            while quick:
                entry = quick.popleft()
                (became,) = trial.of([entry])
                yield entry, became
                if not entry.holds(became.steps):
                    break  # that worker may not be able to answer another one
    for entry in (entry for entry in entries if entry.kind is BOMB):
        with Trial(room) as trial:
            (became,) = trial.of([entry])
        yield entry, became
    for entry in (entry for entry in entries if entry.kind in {MODEL, DATASET}):
        with tempfile.TemporaryDirectory(prefix="twofold-hostile-") as folder:
            empty = Path(folder)
            yield entry, of_model(entry, bundle, empty) if entry.kind is MODEL else of_dataset(entry, empty)


def _is_kept(entry: Entry, became: Became) -> bool:
    return entry.holds(became.steps) and became.peak_mb < MEMORY_MB


def _described(entry: Entry, became: Became | None) -> dict[str, Any]:
    """Returns an entry for JSON."""
    line: dict[str, Any] = {"name": entry.name, "kind": entry.kind, "note": entry.note, "becomes": entry.becomes}
    if became is not None:
        measured = {"seconds": round(became.seconds, 3), "peak_mb": round(became.peak_mb)}
        line |= {"became": became.steps, **measured, "kept": _is_kept(entry, became)}
    return line


def _show(entries: Sequence[Entry], found: Mapping[Entry, Became]) -> None:
    table = Table("kind", "entry", "how it is made, or why it hurts", "becomes")
    if found:
        table.add_column("became")
        table.add_column("s", justify="right")
        table.add_column("MB", justify="right")
    for kind, group in groupby(entries, key=lambda entry: entry.kind):
        table.add_section()
        for number, entry in enumerate(group):
            cells = ["" if number else kind.value, entry.name, entry.note, entry.becomes]
            table.add_row(*cells, *(_measured(entry, found[entry]) if entry in found else ()))
    out = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else _WIDTH)
    out.print(table)
    out.print(f"{len(entries)} entries.", end=" ")
    if found:
        kept = sum(_is_kept(entry, became) for entry, became in found.items())
        out.print(f"{kept} of the {len(found)} that were tried became what they should, below {MEMORY_MB} MB.")


def _measured(entry: Entry, became: Became) -> tuple[str, str, str]:
    runs = [(step, len(list(same))) for step, same in groupby(became.steps)]
    steps = ", ".join(step if count == 1 else f"{count} × {step}" for step, count in runs)  # noqa: RUF001 - times
    mark = "" if _is_kept(entry, became) else "✗ "
    return f"{mark}{steps}", f"{became.seconds:.1f}", f"{became.peak_mb:.0f}" if became.peak_mb else ""


def main() -> int:
    """Runs the command. What the user can fix is reported without a traceback."""
    try:
        app()
    except (UserError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
