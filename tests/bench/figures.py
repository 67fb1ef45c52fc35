"""What was measured: runs to medians, to a table on the screen, to JSON."""

import json
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from worker.settings import available_cores


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Of one worker: of one run, or the medians of several."""

    images_per_s: float  #: from one part to the next, the emulator's work on the same cores included
    cpu_ms_per_image: float  #: user and system time of the worker alone
    first_score_s: float  #: from the start of the process to the CSV of a request with one image
    first_score_cpu_s: float  #: the worker's processor time until then, which other work on the machine hardly changes
    peak_mb: float  #: resident, 1 MB = 1,000,000 bytes


@dataclass(frozen=True)
class _Measure:
    """How a field of ``Figures`` is shown."""

    name: str
    title: str
    digits: int  #: after the decimal point
    more_is_better: bool = False


_MEASURES: Final = (
    _Measure("images_per_s", "images a second", 0, more_is_better=True),
    _Measure("cpu_ms_per_image", "processor time an image, ms", 2),
    _Measure("first_score_s", "start to first score, s", 2),
    _Measure("first_score_cpu_s", "processor time to first score, s", 2),
    _Measure("peak_mb", "peak resident memory, MB", 0),
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All runs of both workers, and what they were given."""

    data: str
    images: int  #: of a request
    ours: Sequence[Figures]
    peer: Sequence[Figures]
    agreement: float  #: share of the images that both sort into the same class

    def as_json(self) -> dict[str, Any]:
        """Medians, ratios (above 1: ours is better), every run, and where it was measured."""
        ours, peer = medians(self.ours), medians(self.peer)
        return {
            "machine": machine(),
            "data": self.data,
            "images": self.images,
            "medians": {"ours": asdict(ours), "peer": asdict(peer)},
            "ratios": {measure.name: _ratio(measure, ours, peer) for measure in _MEASURES},
            "agreement": self.agreement,
            "runs": {"ours": [asdict(run) for run in self.ours], "peer": [asdict(run) for run in self.peer]},
        }


def medians(runs: Sequence[Figures]) -> Figures:
    """Figure by figure: the middle one of the runs."""
    return Figures(
        **{measure.name: statistics.median(getattr(run, measure.name) for run in runs) for measure in _MEASURES}
    )


def machine() -> dict[str, Any]:
    """The machine and the moment, without which a figure says little."""
    return {
        "cores": available_cores(),
        "cpu": _cpu_model(),
        "python": platform.python_version(),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def show(comparison: Comparison, json_file: Path | None) -> None:
    """Prints the table, and writes the file if one is asked for."""
    if json_file is not None:
        json_file.write_text(json.dumps(comparison.as_json(), indent=2) + "\n", encoding="utf-8")
    ours, peer = medians(comparison.ours), medians(comparison.peer)
    table = Table("", title="One worker, one machine")
    for title in ("ours", "peer", "ratio"):
        table.add_column(title, justify="right")
    for measure in _MEASURES:
        values = [f"{getattr(figures, measure.name):,.{measure.digits}f}" for figures in (ours, peer)]
        table.add_row(measure.title, *values, f"{_ratio(measure, ours, peer):.1f}")
    out = Console(highlight=False)
    out.print(table)
    where = machine()
    out.print(
        f"Medians of {len(comparison.ours)} runs of {comparison.images:,} images from {comparison.data}. "
        f"A ratio above 1: ours is better. Both give {comparison.agreement:.1%} of the images the same class.\n"
        f"{where['cores']} cores, {where['cpu']}, Python {where['python']}, {where['date']}",
        soft_wrap=True,
    )


def _ratio(measure: _Measure, ours: Figures, peer: Figures) -> float:
    mine, theirs = float(getattr(ours, measure.name)), float(getattr(peer, measure.name))
    better, worse = (mine, theirs) if measure.more_is_better else (theirs, mine)
    return better / worse if worse else float("inf")


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
