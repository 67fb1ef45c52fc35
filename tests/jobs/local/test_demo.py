"""The command of the README's first screen, as typed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.data.digits import write_digits
from tests.conftest import REPOSITORY
from worker.predictions import from_csv


def _demo(keep: Path, *options: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "demo", "--keep", str(keep), "--json", *options],
        env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_the_demo_on_digits_answers_every_image_and_is_right_in_97_of_100(tmp_path: Path) -> None:
    """Train, drop a manifest, worker, CSV: one row for each image, as many right as the report says."""
    said = _demo(tmp_path)
    rows = from_csv(Path(said["files"]["csv"]).read_bytes())
    assert [row.row for row in rows] == list(range(72))
    assert len({row.source_ref for row in rows}) == 72
    assert said["accuracy"] >= 0.97
    assert said["accuracy"] == said["evaluation"]["binary_classification_metrics"]["accuracy"]["value"]
    assert (Path(said["files"]["model"]) / "model.tflite").exists()


@pytest.mark.slow
def test_the_demo_takes_a_folder_of_ones_own(tmp_path: Path) -> None:
    """With a damaged file in it: a row that says why, and the others are answered."""
    data = tmp_path / "mine"
    write_digits(tmp_path / "all")
    for number, path in enumerate(sorted((tmp_path / "all").rglob("*.png"))):
        place = data / ("train", "test")[number % 2] / path.parent.name / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place)
    (data / "test" / "three" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n, and then nothing")
    said = _demo(tmp_path / "out", "--data", str(data))
    assert (said["rows"], said["failed"]) == (179, 1)


def test_help_comes_without_tensorflow() -> None:
    """At once, with an example."""
    for arguments in (["--help"], ["train", "run", "--help"], ["demo", "--help"], ["model", "promote", "--help"]):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "jobs.cli", *arguments],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        )
        assert not any(name in done.stderr for name in ("tensorflow", "sklearn", "scipy"))
        assert len(arguments) == 1 or "Example" in done.stdout


@pytest.mark.slow
def test_the_photographs_of_cats_and_dogs_are_told_apart_97_times_in_100(shared: Path, tmp_path: Path) -> None:
    """The 1,000 test photographs, at 160 pixels, through the whole loop; the seed to the letter gives 0.681."""
    said = _demo(tmp_path, "--data", str(shared / "data/cats_and_dogs_filtered"))
    assert (said["rows"], said["failed"]) == (1000, 0)
    assert said["accuracy"] >= 0.970
