"""SIGTERM, which announces the end of a machine, Ctrl-C and a closed terminal: save the work, and exit."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

from jobs.signals import handling

#: EX_TEMPFAIL of sysexits.h: try again later. The same command resumes the job. After the other signals, the status is
#: that of shells: 128 plus the number.
EXIT_STATUS: Final = 75

_MESSAGE: Final = "Interrupted. Finished work is saved: run the same command again to resume.\n"
#: A progress bar hides the cursor, and has no time to show it again.
_SHOW_CURSOR: Final = "\x1b[?25h"


class Interruption:
    """Ends the process when a signal arrives, or once the current step is saved if that must happen first.

    A second Ctrl-C does not wait for the step.

    The signal handler raises no exception. Python would raise it in whatever code runs at that moment: TensorFlow's
    C++ code turns it into a TypeError or SystemError, and a destructor drops it. Leaving at once loses nothing, since
    a file that a job saves is complete or not there.
    """

    def __init__(self) -> None:
        self._stderr = os.dup(2)  # its own descriptor: ``hushed`` redirects standard error
        self._requested: int | None = None  # the first signal
        self._deferred = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handles the signals within the block.

        The image starts with two of them blocked: the kernel drops a signal to process 1 of a container that has no
        handler for it. One that came since then has waited.
        """
        with handling(self._on_signal):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
            yield

    @contextmanager
    def deferred(self) -> Iterator[Callable[[], bool]]:
        """Runs the block to its end, and exits then if a signal came. Yields a function that says whether one did."""
        self._deferred = True
        try:
            yield lambda: self._requested is not None
        finally:
            self._deferred = False
        if self._requested is not None:
            self._announce()
            sys.exit(_status(self._requested))

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        again = number == signal.SIGINT and self._requested is not None
        self._requested = self._requested or number
        if again or not self._deferred:
            self._announce()
            os._exit(_status(self._requested))

    def _announce(self) -> None:
        # Not print: the signal may have interrupted one, and standard error is not reentrant.
        shown = _SHOW_CURSOR + "\n" + _MESSAGE if os.isatty(self._stderr) else _MESSAGE
        with suppress(OSError):  # the terminal is gone
            os.write(self._stderr, shown.encode())


def _status(number: int) -> int:
    return EXIT_STATUS if number == signal.SIGTERM else 128 + number
