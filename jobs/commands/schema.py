"""``twofold schema``: the formats of messages and files, for other programs."""

import json
from typing import Annotated, Final

import typer

SCHEMA_EXAMPLE: Final = "Example: twofold schema message"


def schema(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="message (a request), row (of the CSV), job, summary or model; without it, all."
        ),
    ] = None,
) -> None:
    """Print the JSON Schema of a message or a file, made from the code that reads it."""
    from jobs.json_schema import schemas  # noqa: PLC0415 - pydantic takes a moment to load

    found = schemas()
    if name is not None and name not in found:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(found)}.", param_hint="NAME")
    print(json.dumps(found if name is None else found[name], indent=2))
