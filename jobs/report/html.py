"""One self-contained HTML page from a template: nothing is fetched, nothing runs, and every text is escaped.

Templates extend ``page.html.j2``, whose Content-Security-Policy allows inline style and ``data:`` pictures alone.
"""

import functools
import re
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

#: What would be invisible, no text at all, or turn the line around it: control characters, bytes that are no UTF-8
#: (surrogates, as Python reads file names), and the overrides of Unicode's bidirectional algorithm.
_UNSEEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028-\u202e\u2066-\u2069\ufffe\uffff]")
#: Narrow, and never broken into two lines.
_SPACE: Final = "\u202f"
_MINUS: Final = "\u2212"


def render(template: str, **context: object) -> str:
    """The page. A name that a template uses and does not get is an error."""
    return _environment().get_template(template).render(**context)


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("jobs"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if type(value) is str else value,  # not what a macro made
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": count,
        "compact": compact,
        "percent": percent,
        "points": points,
        "figure": figure,
        "short": short,
        "plain": plain,
    }
    return environment


def visible(text: str) -> str:
    r"""The text with what cannot be seen written out: a file called ``a\u202egpj.exe`` shows as just that."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def short(text: str, length: int = 12) -> str:
    """The text, or its beginning and ``…``: for charts, which cannot wrap, and for names without end."""
    seen = visible(text)
    return seen if len(seen) <= length else f"{seen[: length - 1]}…"


def count(number: int) -> str:
    """1,234."""
    return f"{number:,}"


def compact(number: int) -> str:
    """At most four characters: 999, 1.2k, 12k, 1.2M."""
    for unit, name in ((1_000_000, "M"), (1_000, "k")):
        if number >= unit:
            value = number / unit
            return f"{value:.1f}{name}" if value < 10 else f"{value:.0f}{name}"  # noqa: PLR2004
    return str(number)


def percent(share: float, digits: int = 1) -> str:
    """97.6 %. What is not quite all, or not quite nothing, is not rounded to it."""
    while digits < 6 and 0 < share < 1 and float(f"{100 * share:.{digits}f}") in (0.0, 100.0):  # noqa: PLR2004
        digits += 1
    text = f"{100 * share:.{digits}f}"
    return f"{'100' if share == 1 else '0' if share == 0 else text}{_SPACE}%"


def points(difference: float) -> str:
    """A difference of two shares, in percentage points: 0.4, with a minus sign where it fell."""
    return f"{100 * difference:.1f}".replace("-0.0", "0.0").replace("-", _MINUS)


def figure(value: float) -> str:
    """Four decimals: 0.9760; as many as three significant digits need where that would be 0.0000."""
    return f"{value:.4f}" if value == 0 or abs(value) >= 5e-4 else f"{value:.2e}"  # noqa: PLR2004


def plain(value: object) -> str:
    """Any recorded value: 1,599, 1.321, "text", none."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
