"""The figures of the benchmarks, which are run by hand."""

import json
from pathlib import Path

import pytest

from tests.bench.figures import Comparison, Measure, show
from tests.bench.process import run_to_end


def test_a_ratio_above_one_means_that_ours_is_better(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whether more or less is better. The ratio is that of the medians, not of the best runs."""
    comparison = Comparison(
        title="",
        measures=(Measure("s", "seconds", 1), Measure("rate", "a second", 0, more_is_better=True)),
        ours=[{"s": 1.0, "rate": 30.0}, {"s": 2.0, "rate": 40.0}, {"s": 9.0, "rate": 90.0}],
        peer=[{"s": 8.0, "rate": 10.0}],
        facts={"data": "pets"},
        summary="",
    )
    show(comparison, tmp_path / "figures.json")
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["ratios"] == {"s": 4.0, "rate": 4.0}
    assert (written["data"], written["medians"]["ours"]) == ("pets", {"s": 2.0, "rate": 40.0})
    assert capsys.readouterr().out.count("4.0") == 2


def test_a_process_is_measured_from_start_to_end() -> None:
    """Its output, wall-clock time, processor time and memory."""
    ended = run_to_end("timeit", ["-n", "1", "-r", "1", "print('done')"], {})
    assert ended.stdout.startswith("done")
    assert ended.wall_s > 0
    assert ended.cpu_s > 0
    assert 1 < ended.peak_mb < 10_000
