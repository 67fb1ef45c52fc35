"""Progress on the terminal: a bar or a spinner while a step runs, and one line when it is done."""

import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from jobs.wording import wrapped

Advance = Callable[[int], None]


class _StandardError(io.TextIOWrapper):
    """Standard error. Once its terminal is closed it takes everything, so that a command can still end in order."""

    def __init__(self) -> None:
        super().__init__(os.fdopen(os.dup(2), "wb"))

    def write(self, text: str) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


class Reporter:
    """Shows the steps of a job on standard error, so that standard output can be piped."""

    def __init__(self, *, quiet: bool = False) -> None:
        # Its own descriptor, so that it keeps writing while ``hushed`` redirects standard error.
        self.console = Console(file=_StandardError(), quiet=quiet, highlight=False)
        self.seconds: dict[str, float] = {}  #: of each step so far, by its title

    @contextmanager
    def step(self, title: str, *, total: int | None = None, in_bytes: bool = False) -> Iterator[Advance]:
        """Shows ``title`` while the block runs. Yields a function to call with the number of items just completed.

        The title is shown as it is: a path in it may look like rich's markup.
        """
        started = time.monotonic()
        columns = [SpinnerColumn(), TextColumn("{task.description}", markup=False)]
        if in_bytes:
            columns += [BarColumn(), DownloadColumn(), TimeRemainingColumn()]
        elif total is not None:
            columns += [BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bar:
            task = bar.add_task(title, total=total)
            yield lambda count: bar.advance(task, count)
        seconds = time.monotonic() - started
        self.seconds[title] = self.seconds.get(title, 0.0) + seconds
        took = f"{seconds:.1f} s"
        done = Text(self._fitted(f"✓ {title} {took}"))
        done.stylize("green", 0, 1)
        done.stylize("dim", len(done) - len(took))
        self.console.print(done, soft_wrap=True)

    def say(self, text: str) -> None:
        """Prints a text as it is; a terminal gets lines that are broken between words."""
        self.console.print(Text(self._fitted(text)), soft_wrap=True)

    def _fitted(self, text: str) -> str:
        return wrapped(text, self.console.width) if self.console.is_terminal else text


@contextmanager
def hushed() -> Iterator[None]:
    """Hides what C++ libraries write to standard error within the block, unless it raises an exception.

    TensorFlow writes eight lines while it loads, before any setting of its own can prevent that.
    """
    kept = os.dup(2)
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            yield
        except BaseException:
            hidden.seek(0)
            os.write(kept, hidden.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
