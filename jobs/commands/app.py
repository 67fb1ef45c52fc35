"""The ``twofold`` command line: every group and command, put together."""

import typer

from jobs.commands import batch, cloud, local, model, train_remote, train_run

app = typer.Typer(
    name="twofold",
    help="Train a two-class image classifier, and classify images in batches from a queue.",
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
