"""A command that is run to its end on a terminal of 80 columns, and what is typed there."""

import os
import pty
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.conftest import REPOSITORY


def on_terminal(
    *command: str, typed: str = "", folder: Path = REPOSITORY, environment: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Runs a command whose input, output and errors are a terminal. Returns its exit status, and what it shows."""
    ours, theirs = pty.openpty()
    settings = os.environ | {"COLUMNS": "80", "TERM": "xterm", "PYTHONPATH": str(REPOSITORY)} | dict(environment or {})
    process = subprocess.Popen(command, cwd=folder, env=settings, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, typed.encode())
    shown = b""
    while more := _read(ours):
        shown += more
    os.close(ours)
    return process.wait(60), shown.decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux reports that the other side is closed
        return b""
