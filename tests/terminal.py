"""A terminal of 80 columns, in which tests run commands as people do, press Ctrl-C, and close the window."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import threading
import time
from types import TracebackType
from typing import Any, Final, Self

COLUMNS: Final = 80
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

#: Runs before the command, in its process. The tests themselves may run with nohup, or with &.
_OWN_THE_TERMINAL: Final = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """A command in a terminal of its own, as a context manager that kills it in the end."""

    def __init__(self, command: list[str], **options: Any) -> None:
        """Starts it; ``options`` are those of Popen, such as a standard output that is not the terminal."""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
        standard = {"stdin": theirs, "stdout": theirs, "stderr": theirs}

        start = [sys.executable, "-I", "-S", "-c", _OWN_THE_TERMINAL, *command]
        self.process = subprocess.Popen(start, start_new_session=True, **(standard | options))
        os.close(theirs)
        self._printed = b""
        self._closing = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        self.close()

    @property
    def text(self) -> str:
        """What was printed, without colours and what else moves the cursor."""
        return _ESCAPES.sub("", self._printed.decode(errors="replace")).replace("\r\n", "\n")

    def wait_for(self, text: str) -> None:
        """Waits up to two minutes for a text, or for the end of the command."""
        deadline = time.monotonic() + 120
        while text not in self.text and self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert text in self.text, self.text

    def type(self, text: str) -> None:
        """Types a text."""
        os.write(self._ours, text.encode())

    def press_ctrl_c(self) -> None:
        """Types what makes the terminal send SIGINT to everything in the foreground."""
        self.type("\x03")

    def close(self) -> None:
        """Closes the window: the kernel sends SIGHUP, and whatever is still printed is an error."""
        if not self._closing:
            self._closing = True
            self._reader.join()
            os.close(self._ours)

    def _read(self) -> None:
        while not self._closing:
            if select.select([self._ours], [], [], 0.05)[0]:
                try:
                    self._printed += os.read(self._ours, 65536)
                except OSError:  # every process in it has ended
                    return
