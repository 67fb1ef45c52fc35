"""How a page shows numbers and names."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.report.html import compact, count, figure, percent, plain, points, short, visible


@given(st.text(st.characters(codec=None)))
def test_every_character_shown_can_be_seen_and_encoded(text: str) -> None:
    """No control character, no surrogate, and nothing that reorders the text around it."""
    seen = visible(text)
    seen.encode()
    assert not [c for c in seen if unicodedata.category(c) in {"Cc", "Cs"}]
    assert not [c for c in seen if unicodedata.bidirectional(c) in {"LRO", "RLO", "LRE", "RLE", "PDF", "LRI", "RLI"}]


@pytest.mark.parametrize(
    "text",
    [
        "cat.1.jpg",
        "חתולים",
        "كلاب",
        "می\u200cروم",
        "क्\u200dष",
        "👩\u200d🔬.jpg",
        "❤\ufe0f\u200d🔥",
        "naïve\u0301",
        "a b",
    ],
    ids=ascii,
)
def test_a_name_in_any_script_is_unchanged(text: str) -> None:
    """Its joiners and marks belong to it."""
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u202egpj.exe", r"a\u202egpj.exe"),
        ("cat\udcff\n", r"cat\udcff\n"),
        ("cat\u200b.jpg", r"cat\u200b.jpg"),
        ("cat\u200d.jpg", r"cat\u200d.jpg"),
        ("\u200ccat", r"\u200ccat"),
        ("c\xadat\ufeff", r"c\xadat\ufeff"),
        ("cat\U000e0063", r"cat\U000e0063"),
    ],
    ids=ascii,
)
def test_invisible_characters_are_written_out(text: str, shown: str) -> None:
    """A name that hides its real ending, bytes that are not UTF-8, and joiners with nothing to join."""
    assert visible(text) == shown


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
