"""Labelled lists for the tests."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from jobs.labelled_list import LabelledLine, labelled_list_csv

AT = datetime(2026, 11, 24, 10, 15, tzinfo=UTC)


def write_list(path: Path, labels: Mapping[str, str | None], *, reviewed: bool = False) -> Path:
    """Writes a list of these labels by name."""
    at = AT if reviewed else None
    path.write_bytes(labelled_list_csv(LabelledLine(ref, label, reviewed_at=at) for ref, label in labels.items()))
    return path
