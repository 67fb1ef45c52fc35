"""Progress on the terminal: a bar or a spinner while a step runs, one line when it is done."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

Advance = Callable[[int], None]


class Reporter:
    """Announces the steps of a job. Goes to standard error, so that output can be piped."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)

    @contextmanager
    def step(self, title: str, *, total: int | None = None) -> Iterator[Advance]:
        """Shows ``title`` while the block runs; call what it yields with the number of items done since."""
        started = time.monotonic()
        columns = [SpinnerColumn(), TextColumn("{task.description}")]
        if total is not None:
            columns += [BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(title, total=total)
            yield lambda count: bar.advance(task, count)
        self.console.print(f"[green]✓[/] {title} [dim]{time.monotonic() - started:.1f} s[/]")

    def say(self, text: str) -> None:
        """One line."""
        self.console.print(text, soft_wrap=True)
