"""The ``twofold`` command line: every group and command, put together.

A group or command is imported when it is run, or when its own help is shown. ``twofold --help`` needs none of them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module, metadata
from typing import Annotated, Any, Final, cast

import typer
from typer.core import TyperCommand
from typer.main import get_command

from jobs.commands.conventions import Command, Group, InFolder
from jobs.wording import program


@dataclass(frozen=True)
class _Entry:
    """A group or a command of the command line."""

    module: str
    attribute: str  #: a Typer instance, or a function
    help: str
    examples: tuple[str, ...]
    in_folder: bool = False  #: whether twofold.toml of the folder applies


_ENTRIES: Final = {
    "label": _Entry(
        "jobs.commands.label",
        "label",
        "Label images in the browser, one by one: the list that training reads.",
        (),
        in_folder=True,
    ),
    "train": _Entry(
        "jobs.commands.train_remote",
        "app",
        "Train a classifier, on this machine or in the cloud.",
        (
            "twofold train run --data pets/ --output out/models --name pets",
            "twofold train submit --data s3://shelter/datasets/pets/ --name pets",
            "twofold train list",
        ),
    ),
    "model": _Entry(
        "jobs.commands.model",
        "app",
        "List, compare, promote and check trained models.",
        ("twofold model list out/models", "twofold model promote out/models/pets/20261124T140509Z --data pets/"),
        in_folder=True,
    ),
    "batch": _Entry(
        "jobs.commands.batch_commands",
        "app",
        "Classify a list, a prefix or a folder of images into one table.",
        (
            "twofold batch submit photos/ --job-id june",
            "twofold batch status june --watch",
            "twofold batch results june",
        ),
        in_folder=True,
    ),
    "local": _Entry("jobs.commands.local", "local", "Run a bucket, queues, a model and a worker on this machine.", ()),
    "demo": _Entry("jobs.commands.local", "demo", "Run everything once on this machine, from images to a CSV.", ()),
    "cloud": _Entry(
        "jobs.commands.cloud",
        "app",
        "Deploy Twofold to an AWS account, look at it there, and remove it.",
        ("twofold cloud deploy", "twofold cloud status", "twofold cloud destroy"),
    ),
    "doctor": _Entry(
        "jobs.commands.doctor",
        "doctor",
        "Check settings, credentials, queue, output and model, and say what to do next.",
        (),
        in_folder=True,
    ),
    "schema": _Entry("jobs.commands.schema", "schema", "Print the JSON Schema of a message or a file.", ()),
}


#: Of every command, and not only inherited: a command keeps the help options of its first context.
_HELP: Final = {"help_option_names": ["--help", "-h"]}


@cache
def _load(name: str) -> Any:  # noqa: ANN401 - click's classes are not public in typer
    """Imports a group or command, and returns it in the form that all of them share."""
    entry = _ENTRIES[name]
    module = import_module(entry.module)
    found = getattr(module, entry.attribute)
    holder = typer.Typer(rich_markup_mode=None, add_completion=False)
    if not isinstance(found, typer.Typer):
        epilog = getattr(module, f"{name.upper()}_EXAMPLE")
        kind = InFolder if entry.in_folder else Command
        holder.command(name, cls=kind, epilog=epilog, context_settings=_HELP)(found)
        return get_command(holder)
    for command in found.registered_commands:
        command.context_settings = {**(command.context_settings or {}), **_HELP}
        if command.cls in (None, TyperCommand):
            command.cls = InFolder if entry.in_folder else Command
    examples = "\n\n".join(f"Example: {example}" for example in entry.examples)
    holder.add_typer(
        found, name=name, cls=Group, help=entry.help, epilog=examples, no_args_is_help=True, context_settings=_HELP
    )
    return cast("Any", get_command(holder)).commands[name]


class _Deferred(Command):
    """A group or command in the list of all. It is imported when arguments are parsed for it."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:  # noqa: ANN401
        return _load(str(self.name)).make_context(info_name, args, parent=parent, **extra)


class _Loaded(Mapping[str, Any]):
    """All groups and commands by name, each imported when it is looked up."""

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401
        return _load(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_ENTRIES)

    def __len__(self) -> int:
        return len(_ENTRIES)


class _Twofold(Group):
    def __init__(self, **attributes: Any) -> None:  # noqa: ANN401
        super().__init__(**attributes)
        self.commands = cast("Any", _Loaded())

    def list_commands(self, _: Any) -> list[str]:  # noqa: ANN401
        return list(_ENTRIES)

    def get_command(self, _: Any, cmd_name: str) -> Command | None:  # noqa: ANN401
        return _Deferred(cmd_name, help=_ENTRIES[cmd_name].help) if cmd_name in _ENTRIES else None


def _print_version(asked: bool) -> None:  # noqa: FBT001 - typer's callback
    if asked:
        print(f"twofold {metadata.version('twofold')}")
        raise typer.Exit


app = typer.Typer(
    name="twofold",
    cls=_Twofold,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=_HELP,
    epilog="Example: twofold demo\n\n"
    "Example: twofold train run --data pets/ --output out/models --name pets\n\n"
    "Example: twofold batch submit photos/ --wait\n\n"
    f"'{program()} COMMAND --help' explains a command.",
)


@app.callback()
def twofold(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Train a two-class image classifier, and classify images in batches from a queue."""
