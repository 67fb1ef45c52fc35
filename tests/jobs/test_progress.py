"""Progress on a real terminal and in a pipe."""

import sys

import pytest

from jobs.progress import Reporter
from tests.console import on_terminal

#: A title that rich would read as the end of a style that nobody began.
TITLE = "Listing pets[/b]/[red]cats"


def test_a_title_is_shown_as_it_is() -> None:
    """A folder may have a name like pets[/b]."""
    code = f"""
from jobs.progress import Reporter
reporter = Reporter()
with reporter.step({TITLE!r}, total=2) as advance:
    advance(2)
reporter.say({TITLE!r})
"""
    status, shown = on_terminal(sys.executable, "-c", code)
    assert status == 0, shown
    assert shown.count(TITLE) >= 3  # next to the bar, when it is done, and as a line of its own


def test_a_title_is_shown_as_it_is_in_a_pipe(capfd: pytest.CaptureFixture[str]) -> None:
    """Where there is no bar."""
    with Reporter().step(TITLE):
        pass
    assert TITLE in capfd.readouterr().err
