"""Ctrl-C, SIGTERM and a closed terminal: a command ends, and one line says what stopped and what goes on."""

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Final

#: Ctrl-C, ``kill`` and the end of a terminal.
STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_DEFAULT: Final = "Stopped. Run the same command again to go on."


class Stopped(BaseException):
    """A signal has asked the command to end. It is no Exception, so that no handler takes it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.text: str | None = None  #: what stopped, what goes on, and what to type next
        self.status = 128 + number  #: the exit status, by default that of shells for a process that a signal ended

    def __str__(self) -> str:
        return self.text or _DEFAULT


@contextmanager
def handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Calls ``handler`` for these signals within the block.

    A signal that is ignored stays ignored: nohup does that to SIGHUP, and a script to SIGINT of what it starts with &.
    """
    before = {number: known for number in STOPPING if (known := signal.getsignal(number)) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, handler)
    stopped = False
    try:
        yield
    except Stopped:
        stopped = True  # the process is about to end, and a second signal may still come
        raise
    finally:
        for number, known in before.items():
            if not stopped:
                signal.signal(number, known)


def listening() -> AbstractContextManager[None]:
    """Raises Stopped in the block when the first of the signals arrives. A second one ends the process at once."""
    return handling(stop)


@contextmanager
def if_stopped(text: str) -> Iterator[None]:
    """Says with ``text`` what a signal means that arrives in the block. The innermost block has the word."""
    try:
        yield
    except Stopped as stopped:
        stopped.text = stopped.text or text
        raise


def stop(number: int, _frame: FrameType | None) -> None:
    """Raises Stopped: the handler of the first signal."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    # A terminal that closes can send it twice: the kernel does, and then the shell.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    raise Stopped(number)
