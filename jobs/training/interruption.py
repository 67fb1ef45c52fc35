"""SIGTERM, as a spot machine's end is announced: save, and leave with an exit status of its own."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

#: EX_TEMPFAIL of sysexits.h: try again later. The same command goes on where this one stopped.
EXIT_STATUS: Final = 75


class Interruption:
    """Ends the job where the signal finds it, since all it keeps is written whole; or a little later, where it is
    in the middle of a step that must be counted.
    """

    def __init__(self) -> None:
        self._asked = False
        self._deferred = False

    def install(self) -> None:
        """From now on SIGTERM is heard."""
        signal.signal(signal.SIGTERM, self._on_signal)

    @contextmanager
    def deferred(self) -> Iterator[Callable[[], bool]]:
        """Within the block nothing is cut short: ask what it yields whether to save and leave by ``leave``."""
        self._deferred = True
        try:
            yield lambda: self._asked
        finally:
            self._deferred = False
        if self._asked:
            self.leave()

    @staticmethod
    def leave() -> None:
        """Ends the process: Ctrl-C's way, but with a status of its own."""
        print("Interrupted. What is done so far is kept: the same command goes on from there.", file=sys.stderr)
        sys.exit(EXIT_STATUS)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True
        if not self._deferred:
            self.leave()
