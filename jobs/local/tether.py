"""A child process that ends with its parent, however the parent ends: by a signal, a crash or SIGKILL.

    the parent ── a pipe that is never written to ── python -m jobs.local.tether MODULE ARGUMENT…

When the pipe closes, the child asks itself to stop as SIGTERM would. It has a session of its own, so that Ctrl-C and
the end of a terminal reach the parent alone, which ends its children in order.

This file is both sides: ``start`` and ``end`` are the parent's, and ``follow`` runs in the child.
"""

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

_STDIN: Final = 0
#: The time for saving what must be saved after the parent has gone.
_LAST_WORDS_S: Final = 10


def start(
    module: str,
    *arguments: str,
    environment: dict[str, str],
    stdout: int | IO[bytes] | None = None,
    stderr: IO[bytes] | None = None,
    descriptors: tuple[int, ...] = (),
    folder: Path | None = None,
) -> "subprocess.Popen[bytes]":
    """Starts ``python -m MODULE ARGUMENT…`` with this ``environment``, in ``folder`` or else in that of this process.

    It also inherits the ``descriptors``.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.local.tether", module, *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        pass_fds=descriptors,
        cwd=folder,
        start_new_session=True,
    )


def end(process: "subprocess.Popen[bytes]", *, within_s: float) -> None:
    """Asks the child to stop, and kills it after ``within_s`` seconds."""
    process.terminate()
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(within_s)
    finally:
        process.kill()
        process.communicate()


def follow() -> None:
    """Makes this process end with its parent, whose pipe is standard input."""
    pipe = os.dup(_STDIN)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, _STDIN)
    os.close(empty)
    threading.Thread(target=_end_with_pipe, args=(pipe, threading.get_ident()), daemon=True).start()


def _end_with_pipe(pipe: int, main_thread: int) -> None:
    with suppress(OSError):
        os.read(pipe, 1)
    signal.pthread_kill(main_thread, signal.SIGTERM)  # there it also interrupts a call that waits
    time.sleep(_LAST_WORDS_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _run(module: str, *arguments: str) -> None:
    follow()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _run(*sys.argv[1:])
