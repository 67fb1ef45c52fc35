"""How commands and pages word things: their own name, counts, money and time."""

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
