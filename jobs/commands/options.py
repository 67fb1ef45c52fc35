"""Options that several commands share."""

from typing import Annotated

import typer

from jobs.unsure_band import Band, parse_band

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on standard output.")]
StackName = Annotated[
    str, typer.Option("--stack", help="Name of the worker's stack. The training stack has -training appended.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


def band_of(text: str | None, *, option: str = "--unsure") -> Band | None:
    """Returns the band that was typed, if one was. Raises BadParameter for anything else."""
    try:
        return None if text is None else parse_band(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
