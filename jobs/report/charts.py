"""The geometry of a chart: scales, ticks and SVG coordinates. The templates draw."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import log2, sqrt
from typing import Final

_HEADROOM: Final = 1.1
#: The least distance of two numbers beside an axis, in units of the drawing. They are 12 units high.
_APART: Final = 20
_MOST_STEPS: Final = 6
#: Where an axis may have a number: 1, 2, 5, 10, 20, 50 and so on.
_ROUND: Final = tuple(digit * 10**power for power in range(10) for digit in (1, 2, 5))
_SCORES: Final = tuple((i / 4, f"{i / 4:g}") for i in range(5))


def linear(value: float) -> float:
    """Equal steps have equal lengths."""
    return value


def logarithmic(value: float) -> float:
    """Each doubling has the same length."""
    return log2(value)


def rooted(value: float) -> float:
    """The square root, negative below 0: small counts remain visible next to large ones, and 0 has no height."""
    return sqrt(value) if value >= 0 else -sqrt(-value)


@dataclass(frozen=True)
class Axis:
    """An axis from ``low`` to ``high``, with ticks as (value, text)."""

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    scale: Callable[[float], float] = linear

    def share(self, value: float) -> float:
        """Returns how far along the axis a value is, 0 to 1. Values beyond an end are drawn at that end."""
        low, high = self.scale(self.low), self.scale(self.high)
        return min(1.0, max(0.0, (self.scale(value) - low) / (high - low)))


@dataclass(frozen=True)
class Plot:
    """A rectangle with one axis below and one on the left. Lengths are in units of the drawing."""

    x: Axis
    y: Axis
    height: int = 290
    width: int = 360  #: the width of a phone, so that text of 12 units is about 12 pixels high
    left: int = 46
    top: int = 38  #: below the name of the y axis and the number of the threshold

    @property
    def right(self) -> int:
        """The end of the x axis."""
        return self.width - 14

    @property
    def bottom(self) -> int:
        """The beginning of the y axis."""
        return self.height - 44

    def px(self, value: float) -> float:
        """Returns the position of a value on the x axis, in units from the left."""
        return round(self.left + self.x.share(value) * (self.right - self.left), 1)

    def py(self, value: float) -> float:
        """Returns the position of a value on the y axis, in units from the top."""
        return round(self.bottom - self.y.share(value) * (self.bottom - self.top), 1)

    def line(self, points: Iterable[tuple[float, float]]) -> str:
        """Returns the ``points`` attribute of a polyline."""
        return " ".join(f"{self.px(x)},{self.py(y)}" for x, y in points)

    def steps(self, points: Sequence[tuple[float, float]]) -> str:
        """Returns the same as steps: between two points the line has the height of the second."""
        corners = [(x, y) for (x, _), (_, y) in pairwise(points)]
        return self.line(pair for two in zip(points, [*corners, points[-1]], strict=True) for pair in two)


def percentages(label: str) -> Axis:
    """Returns the axis of a share, from 0 to 100 %."""
    return Axis(label, 0.0, 1.0, [(i / 4, f"{25 * i}") for i in range(5)])


def shares(x: str, y: str) -> Plot:
    """Returns the plot of one share against another."""
    return Plot(percentages(x), percentages(y), height=330)


def scored(label: str, y: Axis, *, height: int) -> Plot:
    """Returns a plot by score, from 0 to 1."""
    return Plot(Axis(label, 0.0, 1.0, _SCORES), y, height)


def score_shares(highest: float, label: str) -> Plot:
    """Returns the plot of a histogram of scores whose highest bar is the share ``highest`` of all images.

    It ends at a round number, so that the highest bar can be read, too.
    """
    permille = [0, *(value for value in _ROUND if value <= 1000)]  # noqa: PLR2004 - all of them
    end = next(value for value in permille[1:] if value >= 1000 * highest - 1e-9)
    plot = scored(label, Axis("share of images, %", 0.0, end / 1000, [], rooted), height=290)
    ticks = [(value / 1000, f"{value / 10:g}") for value in permille if value <= end]
    return replace(plot, y=replace(plot.y, ticks=_readable(ticks, plot)))


def mirrored(below: Sequence[int], above: Sequence[int], label: str) -> Plot:
    """Returns the plot of two sets of counts by score, one drawn upwards from 0 and one downwards."""
    low, high = max(below, default=0) or 1, max(above, default=0) or 1
    plot = scored(label, Axis("images", -low * _HEADROOM, high * _HEADROOM, [], rooted), height=450)
    upper = _readable(_counts(high), plot)
    lower = _readable([(-value, text) for value, text in _counts(low)], plot)
    return replace(plot, y=replace(plot.y, ticks=[*lower[:0:-1], *upper]))


def counts(most: int, label: str) -> Plot:
    """Returns the plot of counts by score, with room for a number above each bar."""
    plot = replace(scored(label, Axis("images", 0.0, 1.6 * most, [], rooted), height=155), top=18)
    return replace(plot, y=replace(plot.y, ticks=_readable(_counts(most), plot)))


def _counts(most: int) -> list[tuple[float, str]]:
    return [(float(value), f"{value:,}") for value in (0, *_ROUND) if value <= most]


def _readable(ticks: Sequence[tuple[float, str]], plot: Plot) -> list[tuple[float, str]]:
    """Returns those of the ticks that have room, beginning with 0, the first, and with the last."""
    chosen = [ticks[0]]
    for tick in ticks[:0:-1]:
        if all(abs(plot.py(tick[0]) - plot.py(other)) >= _APART for other, _ in chosen):
            chosen.insert(1, tick)
    return chosen


def growth(images: Sequence[int], least: float) -> Plot:
    """Returns the plot of accuracy, from just below ``least`` up to 100 %, against a number of images that doubles."""
    floor = max(0.0, int(50 * least - 0.5) / 50)
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2) if (1 - floor) / step <= _MOST_STEPS)
    ticks = [(1 - i * step, f"{100 * (1 - i * step):.0f}") for i in range(int((1 - floor) / step + 1e-9) + 1)]
    x = Axis("training images", images[0] / 1.3, images[-1] * 1.3, [(n, f"{n:,}") for n in images], logarithmic)
    return Plot(x, Axis("accuracy on validation images, %", floor, 1.0, ticks))
