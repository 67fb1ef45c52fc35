"""What all commands have in common: plain help, one form of placeholders, and examples that can be pasted.

``jobs.commands.app`` gives these classes to every command, so the modules of the commands need not name them. The help
is text without boxes, as that of gh, aws and uv is: it appears at once, since rich and its Markdown are not loaded, and
a line of it can be copied.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, get_args

import typer
from typer.core import TyperCommand, TyperGroup

from jobs import folder_settings
from jobs.wording import program
from worker.errors import Retry

#: What ``--help`` shows for the value of an option, by its type.
_PLACEHOLDERS: Final = {int: "INTEGER", float: "NUMBER", Path: "PATH"}
_EXAMPLE: Final = "Example: "


#: The error of click, which typer brings along and does not publish.
_UsageError: Any = typer.BadParameter.__mro__[1]


class WrongUsage(_UsageError):  # type: ignore[misc]
    """A mistake in what was typed: one line says what, another one where to look it up. Exit status 2."""

    def show(self, file: Any = None) -> None:  # noqa: ANN401
        """Prints both, as the errors of a command are printed."""
        path = self.ctx.command_path if self.ctx is not None else ""
        words = [program(), *path.split()[1:], "--help"]
        print(f"Error: {self.message}\nSee '{' '.join(words)}'.", file=file or sys.stderr)


class _Plain:
    """Help in the form that all commands share. For subclasses of typer's classes, whose types are not public."""

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401 - see above
        """Returns the parameters with placeholders in capitals."""
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            if parameter.param_type_name == "option" and not parameter.is_flag:
                parameter.metavar = _placeholder(parameter)
        return parameters

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ANN401
        """Returns ``[OPTIONS] SOURCE...`` for the first line of the help."""
        pieces = ["[OPTIONS]"]
        for parameter in self.get_params(ctx):
            if parameter.param_type_name == "argument":
                name = _argument(parameter)
                pieces.append(name if parameter.required else f"[{name}]")
        return [*pieces, "COMMAND [ARGS]..."] if isinstance(self, TyperGroup) else pieces

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        """Writes the arguments, and the options by their groups."""
        panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            is_argument = parameter.param_type_name == "argument"
            name = _argument(parameter) if is_argument else record[0]
            panel = "Arguments" if is_argument else parameter.rich_help_panel or "Options"
            panels.setdefault(panel, []).append((name, _reworded(record[1])))
        for title, records in panels.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
        if isinstance(self, TyperGroup):
            self.format_commands(ctx, formatter)

    def format_epilog(self, _: Any, formatter: Any) -> None:  # noqa: ANN401
        """Writes the examples, which no line break cuts in two, and then what else is to be said."""
        paragraphs = inspect.cleandoc(vars(self)["epilog"] or "").split("\n\n")
        examples = [text.removeprefix(_EXAMPLE) for text in paragraphs if text.startswith(_EXAMPLE)]
        if examples:
            formatter.write_paragraph()
            formatter.write("Examples:\n" if len(examples) > 1 else "Example:\n")
            for line in (line for example in examples for line in _lines(example, formatter.width - 2)):
                formatter.write(f"  {line}\n")
        for text in paragraphs:
            if text and not text.startswith(_EXAMPLE):
                formatter.write_paragraph()
                formatter.write_text(text)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """Parses the arguments. Raises WrongUsage for a mistake in them."""
        try:
            parsed: list[str] = super().parse_args(ctx, args)  # type: ignore[misc]
        except _UsageError as error:
            raise _mistake(error, ctx) from error
        return parsed

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        """Runs the command. Raises WrongUsage for a mistake that shows up there."""
        try:
            return super().invoke(ctx)  # type: ignore[misc]
        except _UsageError as error:
            raise _mistake(error, ctx) from error


class Command(_Plain, TyperCommand):
    """A command."""


class InFolder(Command):
    """A command that takes the settings of the folder that it is run in."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        """Reads the settings, then runs the command. Says so if the emulator of the settings is what ended it."""
        folder_settings.apply(Path.cwd())
        try:
            return super().invoke(ctx)
        except Retry:  # storage or the queue is away
            folder_settings.check_emulator()
            raise


class Group(_Plain, TyperGroup):
    """A group of commands."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        """Writes the commands with all of the first sentences of their help, where click would cut them off."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, inspect.cleandoc(command.help or "").partition("\n\n")[0])
                    for name, command in commands
                    if command
                ]
            )


def _placeholder(option: Any) -> str | None:  # noqa: ANN401
    descriptor = getattr(option, "type_descriptor", None)
    if option.metavar or descriptor is None:  # before 0.29, typer's own placeholders had this form
        return str(option.metavar) if option.metavar else None
    annotation = next(iter(get_args(descriptor.annotation)), descriptor.annotation)  # list[str] takes one at a time
    return _PLACEHOLDERS.get(annotation, "TEXT")


def _argument(parameter: Any) -> str:  # noqa: ANN401
    name = (parameter.metavar or parameter.name).strip("[]….").upper()
    return f"{name}..." if parameter.nargs != 1 else name


def _reworded(text: str) -> str:
    """Writes ``default: (the cache)`` without brackets, and ``0.1<=x<=120`` in words."""
    text = re.sub(r"default: \((.+?)\)(?=[;\]])", r"default: \1", text)
    return re.sub(r"([\d.]+)<=x<=([\d.]+)", r"\1 to \2", text)


def _lines(example: str, width: int) -> Iterator[str]:
    """Breaks a long command before its options, as a shell continues lines, and writes the program as it is typed."""
    line = ""
    for part in re.split(r" (?=--?[a-z])", re.sub(r"^twofold\b", program(), example)):
        if line and len(line) + len(part) + len(" \\") >= width:
            yield f"{line} \\"
            line = f"  {part}"
        else:
            line = f"{line} {part}".strip() if not line.startswith("  ") else f"{line} {part}"
    yield line


def _mistake(error: Any, ctx: Any) -> Any:  # noqa: ANN401 - click's classes are not public in typer
    """Returns the error in the words of all commands; as it is, if it has them or only shows the help."""
    if isinstance(error, WrongUsage) or type(error).__name__ == "NoArgsIsHelpError":
        return error
    option, parameter = getattr(error, "option_name", None), getattr(error, "param", None)
    name = getattr(error, "param_hint", None)
    if name is None and parameter is not None:
        name = parameter.opts[0] if parameter.param_type_name == "option" else _argument(parameter)
    if type(error).__name__ == "MissingParameter":
        text = f"{name} is missing."
    elif type(error).__name__ == "NoSuchOption":
        near = get_close_matches(option, error.possibilities or [], n=1)
        text = f"No such option '{option}'.{f' Did you mean {near[0]!r}?' if near else ''}"
    elif isinstance(error, typer.BadParameter):
        said = re.sub(r"^dir ('.*') does not exist\.$", r"there is no folder \1", _plainly(error))
        text = said if name is None else f"{name} {said}" if said.startswith("must") else f"{name}: {said}"
    else:
        text = error.format_message()
    return WrongUsage(text, ctx=error.ctx or ctx)


def _plainly(error: typer.BadParameter) -> str:
    """Returns what is wrong with a value. Where typer repeats pydantic's words, these are those of all messages."""
    from pydantic import ValidationError  # noqa: PLC0415 - see above: help does not need it

    from worker.contract import describe  # noqa: PLC0415

    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        return error.message
    said = "; ".join(describe(item) for item in cause.errors(include_url=False))
    return re.sub(r"not '([-+.\d]+)'", r"not \1", said)
