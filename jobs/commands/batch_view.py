"""The status of jobs, on the terminal: lines of text, which a terminal wraps between words and a pipe gets whole."""

import time
from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from jobs.batch.status import JobStatus, StatusReader
from jobs.batch.tally import in_words
from jobs.printable import printable
from jobs.wording import counted, model_in_words, wrapped

_WATCH_S: Final = 2.0
#: Refused requests that are shown, at most. When the model is missing, all of them are refused.
_SHOWN: Final = 10
#: The width of the names of lines, such as ``redrive of``.
_NAMES: Final = 12
_HEADER: Final = ("JOB", "STATE", "IMAGES", "FAILED", "SINCE (UTC)")


def watch(reader: StatusReader, console: Console) -> JobStatus:
    """Shows the status as it changes, until the job makes no further progress by itself. Returns the last one."""
    status = reader.read()
    with Live(_live(status, console), console=console, transient=True, auto_refresh=False) as live:
        while not status.settled:
            time.sleep(_WATCH_S)
            status = reader.read()
            live.update(_live(status, console), refresh=True)
    return status


def _live(status: JobStatus, console: Console) -> Text:
    return Text(text_of(status, width=console.width))  # not as markup: a message may look like it


def text_of(status: JobStatus, *, width: int | None) -> str:
    """Returns the status of one job, one fact a line, in lines of up to ``width`` columns; None: of any length."""
    lines = [f"{status.job_id}: {status.state}"]
    lines += [f"  {name:<{_NAMES}}{printable(text)}" for name, text in _facts(status)]
    if status.note:
        lines.append(status.note)
    text = "\n".join(lines)
    return text if width is None else wrapped(text, width)


def text_of_all(jobs: Iterable[JobStatus], *, width: int | None) -> str:
    """Returns all jobs as a table, one a line; where that is too wide, with the name of each job in a line of its own.

    A name is never cut or wrapped.
    """
    rows = [_HEADER, *map(_row, jobs)]
    lines = _aligned(rows)
    if width is None or max(map(len, lines)) <= width:
        return "\n".join(lines)
    facts = _aligned([row[1:] for row in rows])
    return "\n".join(f"{row[0]}\n  {line}" for row, line in zip(rows, facts, strict=True))


def _row(status: JobStatus) -> tuple[str, ...]:
    is_known = status.created_at is not None
    share = f", {status.done / status.images:.0%}" if status.state == "running" and status.images else ""
    return (
        status.job_id,
        f"{status.state}{share}",
        f"{status.images:,}" if is_known else "",
        f"{status.failed:,}" if is_known else "",
        f"{status.created_at:%Y-%m-%d %H:%M}" if status.created_at else "",
    )


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = {_HEADER.index("IMAGES") - len(_HEADER), _HEADER.index("FAILED") - len(_HEADER)}  #: counted from the end
    return [
        "  ".join(
            cell.rjust(width) if place - len(widths) in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _facts(status: JobStatus) -> list[tuple[str, str]]:
    share = status.done / status.images if status.images else 0.0
    by_code = ", ".join(f"{count:,} {code}" for code, count in sorted(status.errors.items()))
    left, unsure = status.parts - status.parts_done, status.unsure_rows
    facts = [
        ("done", f"{status.done:,} of {counted(status.images, 'image')}, {share:.0%}"),
        ("scored", f"{status.scored:,}" + ("" if unsure is None else f", of which {unsure:,} unsure")),
        ("failed", f"{status.failed:,}" + (f": {by_code}" if by_code else "")),
        (
            "dropped" if status.state == "cancelled" else "waiting",
            f"{status.waiting:,}" + (f", in {counted(left, 'part')}" if left else ""),
        ),
    ]
    if status.images_per_s is not None:
        time_left = "" if status.left_s is None or not status.waiting else f", about {status.left_s:,.0f} s left"
        facts.append(("rate", f"{status.images_per_s:,.0f} images a second{time_left}"))
    if status.model_uri:
        facts.append(("model", model_in_words(status.model_uri)))
    if status.sources:
        facts.append(("from", ", ".join(status.sources)))
    if status.closing is not None:
        facts.append(("completion", status.closing))
    for one in status.refused[:_SHOWN]:
        part = "the job" if one.shard is None else f"part {one.shard}"
        facts.append(("refused", f"{part}: {one.error_code}, {one.error_message}"))
    if len(status.refused) > _SHOWN:
        facts.append(("refused", f"and {len(status.refused) - _SHOWN:,} more; --json prints all of them"))
    facts += [("skipped", line) for line in in_words(status.skipped)]
    if status.parent:
        facts.append(("redrive of", status.parent))
    if status.redrives:
        facts.append(("redrives", ", ".join(status.redrives)))
    return facts
