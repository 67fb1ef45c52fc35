"""The shell of every page: a self-contained HTML page from a template.

Templates extend ``page.html.j2``. Its Content-Security-Policy allows inline styles and ``data:`` images, and nothing
else: a page loads nothing and runs nothing. The page for labelling replaces it by one that names its script and its
style by their digests. All text is escaped.
"""

import base64
import functools
import hashlib
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from jobs.printable import printable
from jobs.wording import duration, money

#: Narrow, and no line breaks there.
_SPACE: Final = "\u202f"
_MINUS: Final = "\u2212"
_TEMPLATES: Final = PackageLoader("jobs")


def render(template: str, **context: object) -> str:
    """Renders a page. A name that the template uses and ``context`` lacks is an error."""
    return _environment().get_template(template).render(footnotes=Footnotes(), **context)


def source(name: str) -> Markup:
    """Returns a style or a script of the templates' folder as it is."""
    return Markup(_TEMPLATES.get_source(_environment(), name)[0])  # noqa: S704 - a file of this package


def digest(text: str) -> str:
    """Returns how a Content-Security-Policy names the text of a script or of a style: ``'sha256-…'``."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


class Footnotes:
    """The footnotes of one page, numbered in the order in which it refers to them."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def refer(self, name: str) -> int:
        """Returns the number of a footnote, and remembers that the page refers to it."""
        if name not in self.names:
            self.names.append(name)
        return self.names.index(name) + 1


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=_TEMPLATES,
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "printable": printable,
        "digest": digest,
        "count": count,
        "compact": compact,
        "percent": percent,
        "points": points,
        "figure": figure,
        "short": short,
        "plain": plain,
        "file_name": file_name,
        "breakable": breakable,
        "money": money,
        "duration": duration,
    }
    return environment


def _finalize(value: object) -> object:
    """Is called for the value of every ``{{ … }}``. The output of a macro is markup, and its texts have passed here."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def short(text: str, length: int = 12) -> str:
    """Cuts a text to ``length`` characters, the last one ``…``: the labels of a chart cannot wrap."""
    seen = printable(text)
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
    """97.6 %. Only 1 is shown as 100 %, and only 0 as 0 %: digits are added until no other share rounds to these."""
    while digits < 6 and 0 < share < 1 and float(f"{100 * share:.{digits}f}") in (0.0, 100.0):  # noqa: PLR2004
        digits += 1
    text = f"{100 * share:.{digits}f}"
    return f"{'100' if share == 1 else '0' if share == 0 else text}{_SPACE}%"


def points(difference: float) -> str:
    """A difference of two shares in percentage points: 0.4, with a true minus sign below 0."""
    return f"{100 * difference:.1f}".replace("-0.0", "0.0").replace("-", _MINUS)


def figure(value: float) -> str:
    """Four decimals: 0.9760. Three significant digits where that would be 0.0000."""
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


def breakable(name: str) -> Markup:
    """A file's name that breaks before its ending, and not within it: ``IMG_2235.jpg``."""
    stem, dot, ending = printable(name).rpartition(".")
    return Markup('{}<span class="ending">{}</span>').format(stem or ending, f"{dot}{ending}" if stem else "")


def file_name(ref: str) -> str:
    """The last part of a path or an address: ``s3://shelter/_uploads/9f86…/rex.jpg`` is rex.jpg."""
    seen = printable(ref)
    return seen.rstrip("/").rpartition("/")[2] or seen
