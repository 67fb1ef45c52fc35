"""Progress on a real terminal and in a pipe, and what libraries write while it is shown."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

#: A title that rich would read as the end of a style that nobody began.
TITLE = "Listing pets[/b]/[red]cats"


def _on_a_terminal(code: str) -> str:
    """What a program shows on a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": "80", "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            more = os.read(ours, 65536)
        except OSError:  # Linux reports the end of the other side as an error
            break
        if not more:
            break
        shown += more
    os.close(ours)
    assert process.wait(60) == 0, shown
    return shown.decode()


def test_a_title_is_shown_as_it_is() -> None:
    """A folder may have a name like pets[/b]."""
    code = (
        f"from jobs.progress import Reporter\nr = Reporter()\nwith r.step({TITLE!r}, total=2) as advance: advance(2)\n"
    )
    shown = _on_a_terminal(f"{code}r.say({TITLE!r})")
    assert shown.count(TITLE) >= 3  # next to the bar, when it is done, and as a line of its own


def test_a_title_is_shown_as_it_is_in_a_pipe(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Where there is no bar."""
    from jobs.progress import Reporter  # noqa: PLC0415 - opens standard error while it is captured

    with Reporter().step(TITLE):
        pass
    assert TITLE in capfd.readouterr().err
