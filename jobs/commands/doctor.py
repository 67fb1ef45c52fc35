"""``twofold doctor``: what works here, what does not, and what to do next."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.commands.options import Json
from jobs.printable import printable_lines
from jobs.wording import counted

if TYPE_CHECKING:  # boto3 takes half a second to load, and --help does not need it
    from jobs.checkup import Check

DOCTOR_EXAMPLE: Final = "Example: twofold doctor --json"
#: Wider than any line.
_UNLIMITED: Final = 100_000
_NOT_NEEDED: Final = "Training and models on this machine need none of this."
_STYLES: Final = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(*, as_json: Json = False) -> None:
    """Check versions, settings, credentials, the queue, the output and the model. Exit status 1: a check failed.

    No message is received. One empty object is written below the output prefix and removed again.
    """
    from jobs.checkup import examine, verdict  # noqa: PLC0415 - see above

    out = Console(highlight=False)
    if not out.is_terminal:  # a line of a file or a pipe is whole, whatever its length
        out.width = _UNLIMITED
    checks: list[Check] = []
    for check in examine():
        if not as_json:
            _show(check, out, advise=all(check.advice != other.advice for other in checks))
        checks.append(check)
    status = verdict(checks)
    if as_json:
        print(json.dumps({"status": status, "checks": [_document(check) for check in checks]}))
    else:
        out.print(_sum(checks))
    if status == "fail":
        raise typer.Exit(1)


def _document(check: "Check") -> dict[str, str | None]:
    return {name: value for name, value in asdict(check).items() if name != "is_unset"}


def _show(check: "Check", out: Console, *, advise: bool) -> None:
    """Prints one line, or a paragraph."""
    status = Text(check.status, style=_STYLES[check.status])
    out.print(_line(status, check.name, Text(printable_lines(check.found))))
    if check.advice is not None and advise:
        out.print(_line(Text(), "", Text(f"→ {printable_lines(check.advice)}", style="bold")))


def _line(status: Text, name: str, text: Text) -> Table:
    """Returns three columns that look the same for every check."""
    table = Table.grid(padding=(0, 2))
    table.add_column(width=4)
    table.add_column(width=14)
    table.add_column(overflow="fold")
    table.add_row(status, name, text)
    return table


def _sum(checks: "list[Check]") -> str:
    failed, warned = (sum(check.status == status for check in checks) for status in ("fail", "warn"))
    if not failed and not warned:
        return "Everything works."
    found = f"{counted(failed, 'check')} failed, {counted(warned, 'warning')}."
    return f"{found} {_NOT_NEEDED}" if all(check.status == "ok" or check.is_unset for check in checks) else found
