"""SIGTERM, which announces the end of a Spot instance: save the work, and exit with a distinct status."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

#: EX_TEMPFAIL of sysexits.h: try again later. The same command resumes the job.
EXIT_STATUS: Final = 75

_MESSAGE: Final = "Interrupted. Finished work is saved: run the same command again to resume.\n"
#: A progress bar hides the cursor, and has no time to show it again.
_SHOW_CURSOR: Final = "\x1b[?25h"


class Interruption:
    """Ends the process when SIGTERM arrives, or once the current step is saved if that must happen first.

    The signal handler raises no exception. Python would raise it in whatever code runs at that moment: TensorFlow's
    C++ code turns it into a TypeError or SystemError, and a destructor drops it. Leaving at once loses nothing, since
    a file that a job saves is complete or not there.
    """

    def __init__(self) -> None:
        self._stderr = os.dup(2)  # its own descriptor: ``hushed`` redirects standard error
        self._requested = False
        self._deferred = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handles SIGTERM within the block."""
        before = signal.signal(signal.SIGTERM, self._on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    @contextmanager
    def deferred(self) -> Iterator[Callable[[], bool]]:
        """Runs the block to its end, and exits then if SIGTERM arrived. Yields a function that says whether it has."""
        self._deferred = True
        try:
            yield lambda: self._requested
        finally:
            self._deferred = False
        if self._requested:
            self._announce()
            sys.exit(EXIT_STATUS)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._requested = True
        if not self._deferred:
            self._announce()
            os._exit(EXIT_STATUS)

    def _announce(self) -> None:
        # Not print: the signal may have interrupted one, and standard error is not reentrant.
        shown = _SHOW_CURSOR + _MESSAGE if os.isatty(self._stderr) else _MESSAGE
        os.write(self._stderr, shown.encode())
