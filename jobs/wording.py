"""How commands word things: their own name, counts, and questions about a typo."""

import shutil
from functools import cache
from pathlib import Path


@cache
def program() -> str:
    """Returns how the command is typed here: ``uv run twofold`` in a checkout, ``twofold`` where it is installed."""
    in_checkout = (Path(__file__).parent.parent / "pyproject.toml").is_file()
    return "uv run twofold" if in_checkout and shutil.which("uv") else "twofold"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Returns ``1 image`` or ``1,200 images``."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
