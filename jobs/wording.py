"""How commands and pages word things: their own name, counts, money, time, and lines that fit a terminal."""

import os
import re
import shutil
import textwrap
from functools import cache
from pathlib import Path
from typing import Final, TextIO

#: What stands in quotes, but not between the apostrophes of "doesn't" and "isn't".
_QUOTED: Final = re.compile(r"(?<!\w)'[^'\n]+'(?!\w)")
#: The indentation of a line; where it begins with a name of its own, as in a table, up to the text.
_START: Final = re.compile(r"\s+(?:\S(?:[^\n]{0,38}?\S)?\s{2,}(?=\S))?")
_COMMANDS: Final = ("uv run ", "twofold ", "export ", "cd ", "curl ")
#: Of a terminal that does not say how wide it is.
_COLUMNS: Final = 80


@cache
def program() -> str:
    """Returns how the command is typed here: ``uv run twofold`` in a checkout, ``twofold`` where it is installed."""
    in_checkout = (Path(__file__).parent.parent / "pyproject.toml").is_file()
    return "uv run twofold" if in_checkout and shutil.which("uv") else "twofold"


def with_command(sentence: str, command: str) -> str:
    """Returns a sentence that says what for, and a line of its own with what to type after the program's name."""
    return f"{sentence}\n  {program()} {command}"


def fitted(text: str, stream: TextIO) -> str:
    """Returns a text with line breaks between words for a terminal, and as it is for a pipe or a file."""
    width = width_of(stream)
    return text if width is None else wrapped(text, width)


def width_of(stream: TextIO) -> int | None:
    """Returns the columns of a terminal, or None for a pipe or a file."""
    if not stream.isatty():
        return None
    try:
        own = os.get_terminal_size(stream.fileno()).columns
    except OSError:
        own = 0
    return shutil.get_terminal_size((own or _COLUMNS, 0)).columns


def wrapped(text: str, width: int) -> str:
    """Breaks lines between words. A command to type is not broken: one in quotes, or one in a line of its own.

    What continues an indented line is indented as far, or as far as the text next to the line's name.
    """
    return "\n".join(_wrapped_line(line, width) for line in text.split("\n"))


def _wrapped_line(line: str, width: int) -> str:
    start = _START.match(line)
    indent = start[0] if start else ""
    if len(line) <= width or (indent and line.strip().startswith(_COMMANDS)):
        return line

    def whole(found: re.Match[str]) -> str:
        return found[0].replace(" ", "\0") if len(found[0]) <= width - len(indent) else found[0]

    lines = textwrap.wrap(
        _QUOTED.sub(whole, line.removeprefix(indent)),
        width,
        initial_indent=indent,
        subsequent_indent=" " * len(indent),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines).replace("\0", " ")


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Returns ``1 image`` or ``1,200 images``."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def model_in_words(uri: str) -> str:
    """Returns ``pets, version v2`` for ``s3://shelter/models/pets/v2``."""
    name, _, version = uri.rstrip("/").rpartition("/")
    return f"{name.rpartition('/')[2]}, version {version}"


def money(usd: float) -> str:
    """Under a US cent, about 12 US cents, about 3.40 US dollars."""
    cents = round(100 * usd)
    if usd < 0.01:  # noqa: PLR2004
        return "under a US cent"
    if cents < 100:  # noqa: PLR2004
        return f"about {cents} US cent{'s' if cents > 1 else ''}"
    return f"about {usd:,.2f} US dollars"


def duration(seconds: float) -> str:
    """Under a second, 12 seconds, 3 minutes, 5 hours."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    whole = round(seconds)
    return "under a second" if whole == 0 else "1 second" if whole == 1 else f"{whole} seconds"
