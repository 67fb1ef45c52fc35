"""How a page shows numbers and labels."""

import re

import pytest

from jobs.html import compact, count, figure, file_name, percent, plain, points, short
from jobs.wording import duration, money
from tests.conftest import REPOSITORY


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0.976, "97.6 %"),
        (1.0, "100 %"),
        (0.0, "0 %"),
        (0.9996, "99.96 %"),
        (0.0002, "0.02 %"),
        (0.99999999, "99.999999 %"),
    ],
)
def test_only_everything_is_100_percent(share: float, shown: str) -> None:
    """One mistake in ten thousand is a mistake."""
    assert percent(share) == shown.replace(" ", "\u202f")


def test_numbers_are_easy_to_read() -> None:
    """Thousands separators, a true minus sign, and no more digits than are meaningful."""
    assert (count(1234567), compact(999), compact(1234), compact(45_678), compact(1_200_000)) == (
        *("1,234,567", "999", "1.2k", "46k"),
        "1.2M",
    )
    assert (points(0.0123), points(-0.0123), points(-0.0001)) == ("1.2", "\u22121.2", "0.0")
    assert (figure(0.976), figure(0.0), figure(0.00002)) == ("0.9760", "0.0000", "2.00e-05")
    assert [plain(v) for v in (1599, 1.32126, True, None, "x", [1, 2], [])] == [
        *("1,599", "1.321", "yes", "none", "x"),
        *("1, 2", "none"),
    ]
    assert (short("dogs"), short("a" * 200)) == ("dogs", "a" * 11 + "…")


def test_money_and_time_are_in_words() -> None:
    """No 9e-05 USD, and no 5,400.0 s."""
    assert [money(usd) for usd in (0.0, 9e-05, 0.0099, 0.012, 0.58, 0.996, 12.3456)] == [
        *("under a US cent", "under a US cent", "under a US cent", "about 1 US cent", "about 58 US cents"),
        *("about 1.00 US dollars", "about 12.35 US dollars"),
    ]
    assert [duration(seconds) for seconds in (0.0, 0.4, 1.2, 59, 80, 200, 5400, 8000)] == [
        *("under a second", "under a second", "1 second", "59 seconds", "80 seconds", "3 minutes", "90 minutes"),
        "2 hours",
    ]


def test_a_file_is_called_by_the_last_part_of_its_address() -> None:
    """Of a path, an address or a name; a signature is not part of it."""
    names = (
        "s3://a/_uploads/9f/rex.jpg",
        "validation/dogs/rex.jpg",
        "rex.jpg",
        "https://host/rex.jpg?X-Amz-Signature=5e",
    )
    assert {file_name(name) for name in names} == {"rex.jpg"}


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_and_marks_have_the_contrast_that_wcag_asks_for(theme: int) -> None:
    """4.5 to 1 for text (WCAG 2.2, 1.4.3, AA), on both backgrounds, and 3 to 1 for the marks of charts (1.4.11)."""
    css = (REPOSITORY / "jobs/templates/colours.css").read_text()
    block = re.findall(r":root \{(.*?)\}", css, re.DOTALL)[theme]
    colours = {name: _luminance(shade) for name, shade in re.findall(r"--(\w+): #(\w+)", block)}
    assert set(colours) == {"paper", "panel", "ink", "muted", "line", "zero", "one", "wrong", "mark", "link"}
    for name in ("ink", "muted", "zero", "one", "wrong", "link"):
        for background in ("paper", "panel"):
            assert _contrast(colours[name], colours[background]) >= 4.5, (name, background)
    assert _contrast(colours["mark"], colours["paper"]) >= 3


def _luminance(shade: str) -> float:
    """The relative luminance of #abc or #aabbcc, as WCAG defines it."""
    digits = shade if len(shade) == 6 else "".join(digit * 2 for digit in shade)
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)
