"""The demo: train, put a manifest on a queue, classify, read the CSV."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from jobs.cli import main
from jobs.data.digits import write_digits
from jobs.local import demo
from jobs.models.champion import Champions
from jobs.store import open_store
from tests.conftest import REPOSITORY
from tests.jobs.models.versions import add_version
from worker.predictions import from_csv


def _demo(keep: Path, *options: str) -> dict[str, Any]:
    """Runs the command as typed, and returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "demo", "--keep", str(keep), "--json", *options],
        env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def _check_digits(printed: dict[str, Any]) -> None:
    """One row per test image, at least 97 in 100 right, and the accuracy of the report."""
    rows = from_csv(Path(printed["files"]["csv"]).read_bytes())
    assert [row.row for row in rows] == list(range(72))
    assert len({row.source_ref for row in rows}) == 72
    assert printed["accuracy"] >= 0.97
    assert printed["accuracy"] == printed["evaluation"]["binary_classification_metrics"]["accuracy"]["value"]
    assert (Path(printed["files"]["model"]) / "model.tflite").exists()


def test_the_demo_classifies_every_test_image(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything but the training is real: the bundle is one that was trained on the same digits."""

    def copy_bundle(_: Path, output: str, *options: str, name: str, environment: dict[str, str], **named: Any) -> None:
        assert options[-2:] == ("--weights", "weights.h5")
        assert list(named["folder"].iterdir()) == []  # without settings of the user's own
        with patch.dict(os.environ, environment):
            store = open_store(output)
            add_version(store, bundle, "v1", name=name)
            assert Champions(store, name).set_champion("v1", expected=None, how="first")

    monkeypatch.setattr(demo, "train_sample", copy_bundle)
    monkeypatch.setenv("AWS_PROFILE", "mine")  # your own settings neither matter to it nor change
    monkeypatch.setenv("TWOFOLD_MODEL_URI", "s3://mine/models/pets/champion.json")
    before = dict(os.environ)
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["demo", "--keep", str(tmp_path), "--weights", "weights.h5", "--json"])
    assert dict(os.environ) == before
    _check_digits(json.loads(capsys.readouterr().out))


@pytest.mark.slow
def test_the_demo_trains_and_classifies_digits(tmp_path: Path) -> None:
    """The first command of the README, as typed."""
    _check_digits(_demo(tmp_path))


@pytest.mark.slow
def test_the_demo_accepts_your_own_folder(tmp_path: Path) -> None:
    """A damaged file in it becomes a row with a reason, and all others are classified."""
    data = tmp_path / "mine"
    write_digits(tmp_path / "all")
    for number, path in enumerate(sorted((tmp_path / "all").rglob("*.png"))):
        target = data / ("train", "test")[number % 2] / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    (data / "test" / "three" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n, and then nothing")
    printed = _demo(tmp_path / "out", "--data", str(data))
    assert (printed["rows"], printed["failed"]) == (179, 1)


@pytest.mark.slow
def test_cats_and_dogs_are_classified_correctly_97_times_in_100(shared: Path, tmp_path: Path) -> None:
    """All 1,000 test photographs at 160 pixels. The original recipe reaches 0.681."""
    printed = _demo(tmp_path, "--data", str(shared / "data/cats_and_dogs_filtered"))
    assert (printed["rows"], printed["failed"]) == (1000, 0)
    assert printed["accuracy"] >= 0.970
