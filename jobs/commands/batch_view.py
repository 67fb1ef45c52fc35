"""The status of jobs, on the terminal."""

import time
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from jobs.batch.status import JobStatus, StatusReader
from jobs.batch.tally import in_words
from worker.contract import Job

_WATCH_S: Final = 2.0
#: Refused requests that are shown, at most. When the model is missing, all of them are refused.
_SHOWN: Final = 10


def watch(reader: StatusReader, console: Console) -> JobStatus:
    """Shows the status as it changes, until the job makes no further progress by itself. Returns the last one."""
    status = reader.read()
    with Live(table_of(status), console=console, transient=True, auto_refresh=False) as live:
        while not status.settled:
            time.sleep(_WATCH_S)
            status = reader.read()
            live.update(table_of(status), refresh=True)
    return status


def table_of(status: JobStatus) -> Table:
    """Returns the status of one job as a table."""
    title = Text(f"{status.job_id}: {status.state}")
    table = Table(title=title, box=None, show_header=False, title_justify="left")
    for name, text in _lines(status):
        table.add_row(name, Text(text))  # not as markup: a message may look like it
    return table


def table_of_all(jobs: list[tuple[Job, bool]]) -> Table:
    """Returns all jobs as a table, one a line."""
    table = Table("job", "images", "", "since", "from", box=None)
    for job, complete in jobs:
        state = "complete" if complete else ""
        sources = Text(", ".join(job.sources))
        table.add_row(job.job_id, f"{job.images:,}", state, f"{job.created_at:%Y-%m-%d %H:%M}", sources)
    return table


def _lines(status: JobStatus) -> list[tuple[str, str]]:
    share = status.done / status.images if status.images else 0.0
    by_code = ", ".join(f"{count:,} {code}" for code, count in sorted(status.errors.items()))
    lines = [
        ("done", f"{status.done:,} of {status.images:,} images, {share:.0%}"),
        ("scored", f"{status.scored:,}"),
        ("failed", f"{status.failed:,}" + (f": {by_code}" if by_code else "")),
        ("waiting", f"{status.waiting:,}, in {status.parts - status.parts_done:,} parts"),
    ]
    if status.images_per_s is not None:
        left = "" if status.left_s is None or not status.waiting else f", about {status.left_s:,.0f} s left"
        lines.append(("rate", f"{status.images_per_s:,.0f} images a second{left}"))
    if status.closing is not None:
        lines.append(("completion", status.closing))
    for one in status.refused[:_SHOWN]:
        part = "the job" if one.shard is None else f"part {one.shard}"
        lines.append(("refused", f"{part}: {one.error_code}, {one.error_message}"))
    if len(status.refused) > _SHOWN:
        lines.append(("refused", f"and {len(status.refused) - _SHOWN:,} more; --json prints all of them"))
    lines += [("skipped", line) for line in in_words(status.skipped)]
    if status.parent:
        lines.append(("redrive of", status.parent))
    if status.redrives:
        lines.append(("redrives", ", ".join(status.redrives)))
    return lines
