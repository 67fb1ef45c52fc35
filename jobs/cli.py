"""The ``twofold`` command: its groups, and what every failure looks like to a person."""

import signal
import sys
from collections.abc import Callable

import typer
from pydantic import ValidationError

from jobs.commands import batch, cloud, local, model, train_remote, train_run
from jobs.user_error import UserError
from worker.contract import explain
from worker.errors import TwofoldError

app = typer.Typer(
    name="twofold",
    help="Sort pictures into two piles: train a classifier, and let it work off a queue.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
train_remote.register(train_run.app)
app.add_typer(train_run.app, name="train")
app.add_typer(model.app, name="model")
app.add_typer(batch.app, name="batch")
app.add_typer(cloud.app, name="cloud")
app.command("demo", epilog=local.DEMO_EXAMPLE)(local.demo)
app.command("local", epilog=local.LOCAL_EXAMPLE)(local.local)


def main(arguments: list[str] | None = None, *, on_error: Callable[[str], object] = lambda _: None) -> int:
    """Runs the command. Exit status: 0 done, 1 failed, 2 a wrong option; never a traceback for a person's mistake.

    ``on_error`` is told the reason of a failure, which goes to standard error anyway.
    """
    # As Ctrl-C: child processes are ended on the way out, none goes on for nobody.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        app(args=arguments)
    except ValidationError as error:
        status, reason = 2, explain(error)
    except (UserError, TwofoldError, ValueError, OSError) as error:
        status, reason = 1, str(error)
    else:
        return 0
    print(f"Error: {reason}", file=sys.stderr)
    on_error(reason)
    return status


if __name__ == "__main__":
    sys.exit(main())
