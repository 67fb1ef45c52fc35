"""The entry point of ``twofold``: its exit status, and how failures are reported.

Only the standard library is imported before ``main`` runs, so that it can report a missing extra.
"""

import sys
from collections.abc import Callable
from contextlib import suppress

from jobs.extras import explain_missing
from jobs.signals import Stopped, listening
from jobs.user_error import UserError
from jobs.wording import fitted


def main(arguments: list[str] | None = None, *, on_error: Callable[[str], object] = lambda _: None) -> int:
    """Runs a command. Returns 0 if it is done, 1 if it failed and 2 for a wrong option, and never shows a traceback.

    The reason for a failure is printed to standard error and passed to ``on_error``. After Ctrl-C, SIGTERM or SIGHUP,
    one line says what stopped and what goes on; the status is 128 plus the number of the signal.
    """
    try:
        with listening():
            status, reason = _run(arguments)
    except Stopped as stopped:
        with suppress(OSError):  # the terminal is gone
            print(f"{_below_echo()}{fitted(str(stopped), sys.stderr)}", file=sys.stderr, flush=True)
        return stopped.status
    if reason is not None:
        print(fitted(f"Error: {reason}", sys.stderr), file=sys.stderr)
        on_error(reason)
    return status


def _below_echo() -> str:
    """Returns a line break on a terminal, which shows Ctrl-C as ^C."""
    return "\n" if sys.stderr.isatty() else ""


def _run(arguments: list[str] | None) -> tuple[int, str | None]:
    """Returns the exit status and, after a failure, the reason."""
    try:
        return _run_installed(arguments)
    except ModuleNotFoundError as error:
        reason = explain_missing(error)
        if reason is None:
            raise
        return 1, reason


def _run_installed(arguments: list[str] | None) -> tuple[int, str | None]:
    from jobs.commands.app import app  # noqa: PLC0415 - see above
    from worker.errors import Broken, TwofoldError  # noqa: PLC0415

    try:
        app(args=arguments, prog_name="twofold")
    except (UserError, TwofoldError, Broken, ValueError, OSError) as error:
        return _explain(error)
    return 0, None


def _explain(error: Exception) -> tuple[int, str]:
    """Returns the exit status for a failure, and the reason in plain words."""
    from pydantic import ValidationError  # noqa: PLC0415 - loaded only for a failure, as the modules of the commands are

    from jobs.config import TrainConfig, explain_options  # noqa: PLC0415
    from jobs.printable import printable_lines  # noqa: PLC0415
    from worker.contract import explain  # noqa: PLC0415
    from worker.errors import TwofoldError  # noqa: PLC0415
    from worker.settings import explain_settings  # noqa: PLC0415

    if isinstance(error, TwofoldError):  # the sentence first; the code is what one searches the pages for
        return 1, printable_lines(f"{error.message} ({error.code.value})")
    if isinstance(error, OSError) and error.strerror:  # without its number, which says the same
        return 1, printable_lines(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    if not isinstance(error, ValidationError):
        return 1, printable_lines(str(error))
    words = {TrainConfig.__name__: explain_options, "BatchSettings": explain_settings}.get(error.title, explain)
    return 2, printable_lines(words(error))


if __name__ == "__main__":
    sys.exit(main())
