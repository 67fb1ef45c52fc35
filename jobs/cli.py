"""The ``twofold`` command: its groups, and what every failure looks like to a person."""

import signal
import sys

import typer
from pydantic import ValidationError

from jobs.commands import batch, cloud, demo, local, model, remote, train
from jobs.errors import UserError
from worker.contract import explain
from worker.errors import TwofoldError

app = typer.Typer(
    name="twofold",
    help="Sort pictures into two piles: train a classifier, and let it work off a queue.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
remote.register(train.app)
app.add_typer(train.app, name="train")
app.add_typer(model.app, name="model")
app.add_typer(batch.app, name="batch")
app.add_typer(cloud.app, name="cloud")
app.command("demo", epilog=demo.EXAMPLE)(demo.demo)
app.command("local", epilog=local.EXAMPLE)(local.local)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command. Exit status: 0 done, 1 failed, 2 a wrong option; never a traceback for a person's mistake."""
    # As Ctrl-C: child processes are ended on the way out, none goes on for nobody.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        app(args=arguments)
    except ValidationError as error:
        print(f"Error: {explain(error)}", file=sys.stderr)
        return 2
    except (UserError, TwofoldError, ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
