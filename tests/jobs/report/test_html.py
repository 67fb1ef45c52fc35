"""How a page shows numbers and labels."""

import pytest

from jobs.report.html import compact, count, figure, percent, plain, points, short


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
