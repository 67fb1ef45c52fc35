"""``twofold train run``: what a person reads when a training job is done."""

import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from jobs.commands.app import app
from jobs.commands.train_run import _check_classes, _check_early, _print_next, _print_summary
from jobs.config import TrainConfig
from jobs.data.cache import ArrayCache
from jobs.models.champion import Champions
from jobs.store import FolderStore
from jobs.training import weights
from jobs.user_error import UserError
from jobs.wording import program
from tests.conftest import Trainer
from tests.jobs.models.versions import add_version, state
from tests.jobs.report.strict_html import Page
from worker.contract import ModelManifest


def _with_doubtful_tests(few_digits: Path, folder: Path) -> Path:
    """A data set whose test images are half wrongly labelled, so that no rule holds there."""
    for label, other in (("eight", "three"), ("three", "eight")):
        shutil.copytree(few_digits / label, folder / "train" / label)
        images = sorted((folder / "train" / label).iterdir())
        for number, image in enumerate(images[:12]):
            target = folder / "test" / (label if number % 2 else other)
            target.mkdir(parents=True, exist_ok=True)
            image.rename(target / f"{label}-{image.name}")
    return folder


@pytest.fixture
def evaluation(bundle: Path) -> dict[str, Any]:
    """The evaluation of a real job, as if its images had been called three too often."""
    found: dict[str, Any] = json.loads((bundle / "evaluation.json").read_text())
    figures = found["binary_classification_metrics"]
    figures["precision"] = {"value": 0.984, "interval_95": [0.972, 0.994]}
    return found


@pytest.mark.parametrize("rule", ["precision>=0.99", "precision>=0.98", "max-f1", "0.5"])
def test_a_threshold_rule_that_the_test_set_does_not_bear_out_is_said_in_the_terminal(
    bundle: Path, evaluation: dict[str, Any], rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the figures, at 80 columns. A rule that holds, or promises nothing, is not worth a word."""
    manifest = ModelManifest.model_validate_json((bundle / "model.json").read_bytes())
    done: Any = SimpleNamespace(  # TrainedBundle; its file imports TensorFlow
        uri="models/pets/v1", manifest=manifest, evaluation=evaluation | {"threshold_rule": rule}, champion=False
    )
    _print_summary(done)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    said = (
        "asked for a precision of at least 0.99; on the test images 0.984, 95 % interval 0.972 to 0.994. "
        "That may be chance."
    )
    assert (said in " ".join(printed.split())) is (rule == "precision>=0.99")
    assert ("bear out" in printed) is (rule == "precision>=0.99")


def test_what_is_left_out_is_listed_in_a_file_with_a_path(
    bundle: Path, evaluation: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is in the bundle, and not in the folder where the command runs."""
    manifest = ModelManifest.model_validate_json((bundle / "model.json").read_bytes())
    evaluation["images"]["quarantined"] = 1
    done: Any = SimpleNamespace(uri="models/pets/v1", manifest=manifest, evaluation=evaluation, champion=True)
    _print_summary(done)
    assert "1 file was left out. models/pets/v1/quarantine.csv lists it and why.\n" in capsys.readouterr().out


@pytest.mark.parametrize("champion", [True, False])
def test_the_next_step_is_about_the_version_that_was_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, champion: bool
) -> None:
    """The folder of all models would serve the champion, which a second version is not."""
    Champions(FolderStore(tmp_path), "pets").set_champion("v1", expected=None, how="first")
    uri = f"{tmp_path}/pets/v{1 if champion else 2}"
    done: Any = SimpleNamespace(uri=uri, champion=champion)
    _print_next(done, TrainConfig(data="pets", output=str(tmp_path), name="pets"))
    promote = f"The champion is still v1. To put this version in its place: {program()} model promote {uri}\n"
    serve = f"To classify images with this version on this machine: {program()} local --model {uri}\n"
    assert capsys.readouterr().out == ("" if champion else promote) + serve


def test_classes_that_the_champion_does_not_have_are_refused_before_tensorflow_starts(
    bundle: Path, tmp_path: Path
) -> None:
    """Such a version could never be promoted. The message has both pairs of classes and both ways out."""
    store = FolderStore(tmp_path)
    add_version(store, bundle, "v1", graph=b"")
    config = TrainConfig(data="pets", output=str(tmp_path), name="digits")
    _check_classes(config, ("cats", "dogs"))  # no champion yet
    Champions(store, "digits").set_champion("v1", expected=None, how="first")
    _check_classes(config, ("eight", "three"))
    for labels in (("cats", "dogs"), ("three", "eight")):
        with pytest.raises(UserError) as caught:
            _check_classes(config, labels)
        said = str(caught.value)
        assert f"this data set are {labels[0]} (0) and {labels[1]} (1), those of digits v1, the champion" in said
        assert ", eight (0) and three (1). This version could not replace it.\n" in said
        assert f"Train it as another model: --name {labels[0]}-{labels[1]}\n" in said
        assert said.endswith(f"if that champion is a mistake, delete {tmp_path}/digits first.")
    _check_classes(config.model_copy(update={"output": str(tmp_path / "none")}), ("cats", "dogs"))
    store.write("digits/v1/model.json", b"damaged")
    _check_classes(config, ("cats", "dogs"))


def test_the_command_compares_the_classes_with_those_of_the_champion(
    trainer: Trainer, few_digits: Path, bundle: Path, tmp_path: Path
) -> None:
    """Before anything is trained, and nothing is written."""
    store = FolderStore(tmp_path / "models")
    add_version(store, bundle, "v1", graph=b"", labels=["cats", "dogs"], name="model")
    Champions(store, "model").set_champion("v1", expected=None, how="first")
    before = state(store)
    done = trainer.run("train", "run", f"--data={few_digits}", f"--output={tmp_path / 'models'}", "--image-size=32")
    assert done.returncode == 1
    assert "those of model v1, the champion, cats (0) and dogs (1). This version could not replace it." in done.stderr
    assert "Starting TensorFlow" not in done.stderr
    assert state(store) == before


def test_a_version_that_exists_is_refused_before_tensorflow_starts(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless an interrupted job has begun it: that one may resume, and only the job knows."""
    shutil.copytree(bundle, tmp_path / "models/digits/v1")
    config = TrainConfig(
        data="pets", output=str(tmp_path / "models"), name="digits", version="v1", cache=tmp_path / "cache"
    )
    with pytest.raises(UserError, match="digits/v1"):
        _check_early(config)
    _check_early(config.model_copy(update={"version": "v2"}))
    ArrayCache(FolderStore(tmp_path / "cache"), "jobs/0a1b").put_bytes("begun", b'["v1", "2026-11-24T14:05:09Z"]')
    _check_early(config)


@pytest.mark.parametrize(
    ("chosen", "said"), [("package", "not-installed is not installed. Install it with: pip"), ("none.h5", "No weights")]
)
def test_weights_that_are_missing_are_reported_before_tensorflow_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str, said: str
) -> None:
    """Not a minute later, when all images have been read."""
    monkeypatch.setattr(weights, "PACKAGE", "not-installed")
    monkeypatch.setitem(sys.modules, "jobs.data.prepare", None)  # reading the images would fail
    done = CliRunner().invoke(app, ["train", "run", "--data=pets", f"--output={tmp_path}", f"--weights={chosen}"])
    assert said in str(done.exception)


@pytest.mark.slow
def test_a_real_job_says_that_its_test_set_does_not_bear_out_the_rule(
    trainer: Trainer, few_digits: Path, tmp_path: Path
) -> None:
    """In a terminal of 80 columns, with the figures of its evaluation; and in its report."""
    data = _with_doubtful_tests(few_digits, tmp_path / "data")
    options = ("--image-size=32", "--version=v1", "--threshold=precision>=0.9", f"--output={tmp_path / 'models'}")
    done = trainer.run("train", "run", f"--data={data}", *options, COLUMNS="80")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if str(tmp_path) not in line]  # a path can be copied
    assert max(map(len, lines)) <= 80
    bundle = tmp_path / "models/model/v1"
    figure = json.loads((bundle / "evaluation.json").read_text())["binary_classification_metrics"]["precision"]
    assert figure["value"] < 0.9
    said = (
        f"asked for a precision of at least 0.9; on the test images {figure['value']:.3f}, 95 % interval "
        f"{figure['interval_95'][0]:.3f} to {figure['interval_95'][1]:.3f}"
    )
    printed = re.sub(r"\s+", " ", done.stdout)
    assert f"The test images do not bear out the threshold: {said}." in printed
    assert "ask for more (precision>=0.95), or keep more images for validation (--validation-split)." in printed
    assert f"The test images do not bear it out: {said}" in Page((bundle / "report.html").read_text()).text
