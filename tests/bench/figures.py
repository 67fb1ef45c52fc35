"""The measurements: medians of runs, printed as a table and written as JSON."""

import json
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from worker.settings import available_cores

#: The values of one run, or the medians of several, by measure.
Figures = Mapping[str, float]


@dataclass(frozen=True)
class Measure:
    """One figure: its name in the JSON and its title in the table."""

    name: str
    title: str
    digits: int  #: after the decimal point
    more_is_better: bool = False


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All runs of both contenders, with their input."""

    title: str
    measures: Sequence[Measure]
    ours: Sequence[Figures]
    peer: Sequence[Figures]
    facts: Mapping[str, Any]  #: the input and the agreement, for the JSON
    summary: str  #: the same, for the table

    def as_json(self) -> dict[str, Any]:
        """Returns medians, ratios (above 1: ours is better), every run, and the machine."""
        ours, peer = self.medians()
        return {
            "machine": machine(),
            **self.facts,
            "medians": {"ours": ours, "peer": peer},
            "ratios": {measure.name: _ratio(measure, ours, peer) for measure in self.measures},
            "runs": {"ours": self.ours, "peer": self.peer},
        }

    def medians(self) -> tuple[Figures, Figures]:
        """Returns the median of each figure, for ours and for the peer."""
        ours, peer = (
            {measure.name: statistics.median(run[measure.name] for run in runs) for measure in self.measures}
            for runs in (self.ours, self.peer)
        )
        return ours, peer


def machine() -> dict[str, Any]:
    """Returns the machine and the time, which every figure depends on."""
    return {
        "cores": available_cores(),
        "cpu": _cpu_model(),
        "python": platform.python_version(),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def show(comparison: Comparison, json_file: Path | None) -> None:
    """Prints the table, and writes the file if one is given."""
    if json_file is not None:
        json_file.write_text(json.dumps(comparison.as_json(), indent=2) + "\n", encoding="utf-8")
    ours, peer = comparison.medians()
    table = Table("", title=comparison.title)
    for title in ("ours", "peer", "ratio"):
        table.add_column(title, justify="right")
    for measure in comparison.measures:
        values = [f"{figures[measure.name]:,.{measure.digits}f}" for figures in (ours, peer)]
        table.add_row(measure.title, *values, f"{_ratio(measure, ours, peer):.1f}")
    out = Console(highlight=False)
    out.print(table)
    where = machine()
    out.print(
        f"Medians of {len(comparison.ours)} runs. A ratio above 1: ours is better. {comparison.summary}\n"
        f"{where['cores']} cores, {where['cpu']}, Python {where['python']}, {where['date']}",
        soft_wrap=True,
    )


def _ratio(measure: Measure, ours: Figures, peer: Figures) -> float:
    mine, theirs = ours[measure.name], peer[measure.name]
    better, worse = (mine, theirs) if measure.more_is_better else (theirs, mine)
    return better / worse if worse else float("inf")


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # this is not Linux
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
