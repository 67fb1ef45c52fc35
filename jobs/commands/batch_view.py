"""How jobs stand, on the terminal."""

import time
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from jobs.batch.status import Standing, Watcher
from worker.contract import Job

_WATCH_S: Final = 2.0
#: Refused requests that are shown; a model that is gone refuses them all.
_SHOWN: Final = 10


def watch(watcher: Watcher, console: Console) -> Standing:
    """Shows the standing as it changes, until nothing more will happen by itself."""
    standing = watcher.look()
    with Live(table_of(standing), console=console, transient=True, auto_refresh=False) as live:
        while not standing.settled:
            time.sleep(_WATCH_S)
            standing = watcher.look()
            live.update(table_of(standing), refresh=True)
    return standing


def table_of(standing: Standing) -> Table:
    """One job."""
    title = Text(f"{standing.job_id}: {standing.state}")
    table = Table(title=title, box=None, show_header=False, title_justify="left")
    for name, text in _lines(standing):
        table.add_row(name, Text(text))  # as it is: a message may look like markup
    return table


def table_of_all(jobs: list[tuple[Job, bool]]) -> Table:
    """Every job, one a line."""
    table = Table("job", "images", "", "since", "from", box=None)
    for job, complete in jobs:
        state = "complete" if complete else ""
        sources = Text(", ".join(job.sources))
        table.add_row(job.job_id, f"{job.images:,}", state, f"{job.created_at:%Y-%m-%d %H:%M}", sources)
    return table


def _lines(standing: Standing) -> list[tuple[str, str]]:
    share = standing.done / standing.images if standing.images else 0.0
    by_code = ", ".join(f"{count:,} {code}" for code, count in sorted(standing.errors.items()))
    lines = [
        ("done", f"{standing.done:,} of {standing.images:,} images, {share:.0%}"),
        ("scored", f"{standing.scored:,}"),
        ("failed", f"{standing.failed:,}" + (f": {by_code}" if by_code else "")),
        ("waiting", f"{standing.waiting:,}, in {standing.parts - standing.parts_done:,} parts"),
    ]
    if standing.images_per_s is not None:
        left = "" if standing.left_s is None or not standing.waiting else f", about {standing.left_s:,.0f} s left"
        lines.append(("rate", f"{standing.images_per_s:,.0f} images a second{left}"))
    for one in standing.refused[:_SHOWN]:
        part = "the job" if one.shard is None else f"part {one.shard}"
        lines.append(("refused", f"{part}: {one.error_code}, {one.error_message}"))
    if len(standing.refused) > _SHOWN:
        lines.append(("refused", f"and {len(standing.refused) - _SHOWN:,} more; --json tells all"))
    if standing.parent:
        lines.append(("of", standing.parent))
    if standing.redrives:
        lines.append(("redrives", ", ".join(standing.redrives)))
    return lines
