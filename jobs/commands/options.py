"""Options that several commands take, worded once."""

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on standard output.")]
Stack = Annotated[str, typer.Option("--stack", help="Name of the worker's stack; that of training ends in -training.")]
