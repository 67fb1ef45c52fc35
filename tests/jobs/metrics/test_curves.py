"""The charts agree with the evaluation, and every mark is inside its chart."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from jobs.metrics import curves
from jobs.metrics.classification import _FIGURES, _Sample
from jobs.metrics.wilson import wilson
from jobs.report import charts

PAIRS = st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), max_size=40)


def _arrays(pairs: list[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([0, 1] + [p[0] for p in pairs]), np.array([0.3, 0.6] + [p[1] for p in pairs])


@given(PAIRS)
def test_the_area_under_the_roc_curve_is_the_auc(pairs: list[tuple[int, float]]) -> None:
    """As drawn, including ties."""
    truth, scores = _arrays(pairs)
    x, y = np.array(curves.roc(truth, scores)).T
    assert np.trapezoid(y, x) == pytest.approx(roc_auc_score(truth, scores), abs=5e-3)
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)


@given(PAIRS)
def test_the_area_under_the_precision_recall_steps_is_the_average_precision(pairs: list[tuple[int, float]]) -> None:
    """Between two points the precision is that of the second."""
    truth, scores = _arrays(pairs)
    x, y = np.array(curves.precision_recall(truth, scores)).T
    assert (np.diff(x) * y[1:]).sum() == pytest.approx(average_precision_score(truth, scores), abs=5e-3)


def test_a_million_images_make_no_larger_page() -> None:
    """And the curve is the same to half a pixel."""
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, 200_000)
    scores = random.random(200_000) * 0.8 + truth * 0.2
    roc, pr = curves.roc(truth, scores), curves.precision_recall(truth, scores)
    assert len(roc) < 1_300
    assert len(pr) < 1_300
    x, y = np.array(roc).T
    assert np.trapezoid(y, x) == pytest.approx(roc_auc_score(truth, scores), abs=1e-3)


@given(PAIRS)
def test_the_reliability_diagram_agrees_with_the_calibration_error(pairs: list[tuple[int, float]]) -> None:
    """The distances in the diagram, weighted by images, add up to the calibration error; no image is left out."""
    truth, scores = _arrays(pairs)
    bins = curves.reliability(truth, scores)
    error = sum(b.images * abs(b.mean_score - b.share) for b in bins) / len(truth)
    figure = _FIGURES["expected_calibration_error"](_Sample.of(truth, scores, 0.5), np.ones(len(truth)))
    assert error == pytest.approx(figure)
    assert sum(b.images for b in bins) == len(truth)
    assert all(b.low <= b.mean_score <= b.high + 1e-9 for b in bins)
    assert all(b.interval_95[0] <= b.share <= b.interval_95[1] for b in bins)


@given(PAIRS)
def test_the_histogram_counts_every_image_once(pairs: list[tuple[int, float]]) -> None:
    """With its class, and even with a score of exactly 1."""
    truth, scores = _arrays(pairs)
    zeros, ones = curves.histogram(truth, scores).counts
    assert (sum(zeros), sum(ones)) == ((truth == 0).sum(), (truth == 1).sum())


@pytest.mark.parametrize(
    ("share", "count", "interval"),
    [(0.5, 10, (0.2366, 0.7634)), (0.0, 10, (0.0, 0.2775)), (1.0, 72, (0.9493, 1.0)), (0.3, 0, (0.0, 1.0))],
)
def test_wilsons_interval_matches_published_values(share: float, count: int, interval: tuple[float, float]) -> None:
    """Brown, Cai and DasGupta 2001; without images it is [0, 1]."""
    assert wilson(share, count) == pytest.approx(interval, abs=1e-4)


AXES = st.sampled_from(
    [
        charts.percentages("%"),
        charts.counts(450, "n").y,
        charts.mirrored([3, 200], [0, 9], "n").y,
        charts.mirrored([0], [0], "n").y,
        charts.score_shares(0.43, "n").y,
        charts.score_shares(0.07, "n").y,
        charts.growth([14, 28, 1_000_000], 0.3).x,
        charts.growth([2, 4], 0.0).y,
        charts.growth([2, 4], 0.999).y,
    ]
)


@given(AXES, st.floats(0, 1), st.floats(0, 1))
def test_an_axis_keeps_the_order_and_its_bounds(axis: charts.Axis, a: float, b: float) -> None:
    """On every scale."""
    low, high = (axis.low + (axis.high - axis.low) * share for share in sorted((a, b)))
    assert 0 <= axis.share(low) <= axis.share(high) <= 1
    assert axis.share(axis.low) == 0
    assert axis.share(axis.high) == 1
    assert axis.share(axis.high + 1) == 1  # a value beyond the end is drawn at the end, not outside the chart
    assert all(axis.low - 1e-9 <= value <= axis.high + 1e-9 for value, _ in axis.ticks)
    assert len({text for _, text in axis.ticks if not text.startswith("0")}) >= len(axis.ticks) // 2


@pytest.mark.parametrize("most", [1, 2, 7, 450, 12_345, 9_999_999])
def test_the_numbers_beside_an_axis_of_counts_do_not_overlap(most: int) -> None:
    """There are at least two of them, none beyond the highest count."""
    for plot in (charts.counts(most, "n"), charts.mirrored([most], [most // 2], "n")):
        ticks = [value for value, _ in plot.y.ticks]
        assert len(ticks) >= 2
        assert 0.0 in ticks
        assert all(-most <= value <= most for value in ticks)
        heights = sorted(plot.py(value) for value in ticks)
        assert all(lower - upper >= 20 for upper, lower in pairwise(heights))


@pytest.mark.parametrize("highest", [0.0, 0.0004, 0.02, 0.43, 0.5, 0.97, 1.0])
def test_the_axis_of_shares_ends_at_a_number_that_no_bar_exceeds(highest: float) -> None:
    """So the highest bar can be read, too."""
    axis = charts.score_shares(highest, "score").y
    assert [axis.ticks[0][0], axis.ticks[-1][0]] == [0.0, axis.high]
    assert highest <= axis.high <= max(2.5 * highest, 0.001)
