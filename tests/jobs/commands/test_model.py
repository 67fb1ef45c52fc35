"""``twofold model``: what a script reads, what a user sees, and what a mistake looks like."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from jobs.cli import main
from jobs.commands.app import app
from jobs.metrics.unsure_rule import BandFigures
from jobs.models.champion import Champions
from jobs.store import FolderStore
from jobs.wording import program
from tests.jobs.models.versions import add_version, images_of, with_mistakes


@pytest.fixture
def models_folder(tmp_path: Path, bundle: Path) -> Path:
    """A folder with two versions of ``digits``: ``v1``, the champion, and ``v2``, which is worse."""
    store = FolderStore(tmp_path / "models")
    add_version(store, bundle, "v1")
    add_version(store, bundle, "v2", images=with_mistakes(images_of(bundle), range(9)))
    Champions(store, "digits").set_champion("v1", expected=None, how="first")
    return tmp_path / "models"


def _run(*arguments: object, status: int = 0) -> str:
    done = CliRunner().invoke(app, ["model", *map(str, arguments)])
    assert (done.exit_code == 0) is (status == 0), (done.output, done.exception)
    return done.stdout


def _json(*arguments: object, status: int = 0) -> Any:
    return json.loads(_run(*arguments, "--json", status=status))


def test_every_command_prints_json(models_folder: Path) -> None:
    """And nothing else on standard output."""
    listed = _json("list", models_folder)
    assert [(line["name"], line["version"], line["champion"], line["problem"]) for line in listed] == [
        ("digits", "v1", True, None),
        ("digits", "v2", False, None),
    ]
    shown = _json("show", models_folder / "digits")
    assert shown["manifest"]["version"] == "v1"
    assert shown["manifest"]["training_config"]["seed"] == 123
    assert shown["evaluation"]["binary_classification_metrics"]["accuracy"]["interval_95"]
    assert [record["how"] for record in shown["history"]] == ["first"]
    refused = _json("promote", models_folder / "digits/v2", status=1)
    assert refused["moved"] is False
    assert refused["comparison"]["challenger_accuracy"] == 63 / 72
    assert "at most 0.005 may be lost" in refused["refused"]
    promoted = _json("promote", models_folder / "digits/v2", "--force")
    assert (promoted["moved"], promoted["how"], promoted["replaced"]) == (True, "forced", "v1")
    assert _json("rollback", models_folder / "digits")["version"] == "v1"
    assert _json("verify", models_folder / "digits")["findings"] == []


def test_every_command_prints_tables(models_folder: Path) -> None:
    """The figures of both versions, what was found, and what could not be checked."""
    assert "★" in _run("list", models_folder)
    assert "McNemar" in _run("promote", models_folder / "digits/v2", status=1)
    assert "It was forced." in _run("promote", models_folder / "digits/v2", "--force")
    shown = _run("show", models_folder / "digits", "--digests")
    for expected in (
        "decoder fingerprint",
        "--seed 123",
        "--fine-tune-rate 1e-5",
        "Brier score",
        "AUC",
        "model.keras",
        "95 % interval",
        "forced",
        "first",
    ):
        assert expected in shown
    (models_folder / "digits/v2/quarantine.csv").unlink()
    printed = _run("verify", models_folder / "digits/v2", status=1)
    assert "quarantine.csv" in printed
    assert "missing" in printed
    assert "1 finding, 5 of its files are as recorded. Only the digests were checked" in printed
    assert "None" not in shown


def test_show_begins_with_the_accuracy_and_hides_digests(models_folder: Path) -> None:
    """They are for a script that compares files, and shown with ``--digests``."""
    shown = _run("show", models_folder / "digits/v2")
    first, _, _ = " ".join(shown.split()).partition(" ┏")
    interval = r"95 % interval \d+\.\d to \d+\.\d %"
    assert re.fullmatch(rf"digits v2: \d+\.\d % of 72 test images are classified correctly \({interval}\)\.", first)
    assert re.search("[0-9a-f]{20}|SHA-256|digest", shown) is None
    assert re.search(r"model\.tflite: [\d,]+ bytes +│", shown)
    with_digests = _run("show", models_folder / "digits/v2", "--digests")
    for name in ("decoder fingerprint", "dataset digest", "SHA-256"):
        assert name in with_digests


def test_show_says_that_the_test_images_do_not_bear_out_the_threshold(models_folder: Path) -> None:
    """Right below the accuracy."""
    path = models_folder / "digits/v1/evaluation.json"
    evaluation = json.loads(path.read_text()) | {"threshold_rule": "recall>=0.99"}
    evaluation["binary_classification_metrics"]["recall"] = {"value": 0.95, "interval_95": [0.9, 0.98]}
    path.write_text(json.dumps(evaluation))
    second = " ".join(_run("show", models_folder / "digits/v1").split()).partition(" ┏")[0].partition("%). ")[2]
    assert second == (
        "The test images do not bear out the threshold: asked for a recall of at least 0.99; on the test images 0.950, "
        "95 % interval 0.900 to 0.980."
    )


def test_show_states_the_band_and_whether_the_test_images_bear_it_out(models_folder: Path) -> None:
    """With the share that is unsure, and how many of the others are right."""
    folder = models_folder / "digits/v1"
    assert "unsure" not in _run("show", folder)
    evaluation = json.loads((folder / "evaluation.json").read_text())
    truth, scores = np.array([0, 1, 1, 0] * 5), np.array([0.1, 0.9, 0.5, 0.8] * 5)
    rule = "precision>=0.9 for both"
    figures = BandFigures.of(truth, scores, threshold=0.5, band=(0.4, 0.6), rule=rule)
    evaluation |= {"unsure": figures.as_json(("eight", "three"))}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    manifest = json.loads((folder / "model.json").read_text()) | {"unsure": [0.4, 0.6]}
    (folder / "model.json").write_text(json.dumps(manifest))
    shown = " ".join(_run("show", folder).split())
    assert "The test images do not bear out the band of unsure scores: asked for precision>=0.9 for both; " in shown
    assert "on the test images 0.500 (95 % interval 0.237 to 0.763) for three." in shown
    assert "│ unsure │ scores from 0.4 to below 0.6 │" in shown
    assert re.search(r"│ unsure │ 0\.2500 │ 0\.\d+ to 0\.\d+ │ │ right where not unsure │ 0\.6667 │", shown)


def test_a_copy_leaves_the_champion_unless_it_is_the_first_version(models_folder: Path, tmp_path: Path) -> None:
    """As training does. The last line names the command that changes it."""
    first = _json("copy", models_folder / "digits/v1", tmp_path / "copy")
    assert (first["name"], first["version"], first["files"], first["new_files"]) == ("digits", "v1", 6, 6)
    assert first["champion"] == "v1"
    copy = tmp_path / "copy/digits/v2"
    printed = _run("copy", models_folder / "digits/v2", tmp_path / "copy")
    assert printed.startswith(f"{copy}: 6 files, ")
    assert printed.endswith(f"The champion is still v1. Run '{program()} model promote {copy}' to change that.\n")
    again = _run("copy", models_folder, tmp_path / "copy/digits")
    assert again.endswith("every digest checked. 6 of them were already there. It is the champion.\n")


def test_a_copy_becomes_the_champion_if_it_passes_the_gate(models_folder: Path, tmp_path: Path) -> None:
    """With --champion, the copy is promoted, and a worse one is refused as ever."""
    target = tmp_path / "copy"
    assert _json("copy", models_folder / "digits/v2", target)["champion"] == "v2"
    assert _json("copy", models_folder / "digits/v1", target, "--champion")["champion"] == "v1"
    done = CliRunner().invoke(app, ["model", "copy", str(models_folder / "digits/v2"), str(target), "--champion"])
    assert str(done.exception).startswith("The copy is complete, but not the champion. v2 does not replace v1: ")
    assert str(done.exception).endswith(
        f"--margin allows more to be lost: {program()} model promote {target}/digits/v2 --force"
    )


def test_a_folder_with_one_model_is_enough(models_folder: Path) -> None:
    """To show and verify its champion, and to go back to the previous one. To promote a version, name it."""
    assert _json("show", models_folder)["manifest"]["version"] == "v1"
    assert _json("verify", models_folder)["findings"] == []
    _json("promote", models_folder / "digits/v2", "--force")
    assert _json("rollback", models_folder)["version"] == "v1"
    done = CliRunner().invoke(app, ["model", "promote", str(models_folder)])
    assert f"model list {models_folder}' to list" in str(done.exception)


def test_verify_says_why_no_image_was_scored(models_folder: Path, tmp_path: Path) -> None:
    """Not that --data is missing where it was given, and not that it would help where the model cannot be opened."""
    (tmp_path / "empty").mkdir()
    printed = " ".join(_run("verify", models_folder / "digits/v2", "--data", tmp_path / "empty", status=1).split())
    assert "none of its 72 images is in" in printed
    assert "No test image was scored: --data takes the folder that the model was trained from." in printed
    (models_folder / "digits/v2/model.tflite").write_bytes(b"no graph")
    printed = " ".join(_run("verify", models_folder / "digits/v2", status=1).split())
    assert printed.endswith("No image was scored, because the model cannot be opened.")
    assert "--data" not in printed


def test_names_from_a_bundle_are_not_interpreted(models_folder: Path, bundle: Path) -> None:
    """Neither as markup nor as control characters of the terminal."""
    labels = ["[red]eight[/red]", "\x1b[2Jthree"]
    add_version(FolderStore(models_folder), bundle, "v3", images=[], labels=labels)
    printed = _run("show", models_folder / "digits/v3")
    assert "[red]eight[/red]" in printed
    assert "�[2Jthree" in printed
    assert "\x1b" not in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("promote", "{models}/digits"), "Name one of its versions"),
        (("rollback", "{models}/digits/v1"), "Name the model"),
        (("show", "{models}/digits/v9"), "twofold model list"),
        (("verify", "{models}/../none"), "twofold model list"),
    ],
)
def test_a_mistake_is_reported_with_the_next_step(
    models_folder: Path, arguments: tuple[str, str], message: str
) -> None:
    """The command prints an error, not a traceback."""
    command, where = arguments
    done = CliRunner().invoke(app, ["model", command, where.format(models=models_folder)])
    assert message in str(done.exception)


def test_a_refusal_exits_with_1_and_a_wrong_option_with_2(
    models_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The message is one sentence without a traceback."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit, match=r"^2$"):
            main(["model", "promote", str(models_folder / "digits/v2"), "--margin", "2"])
        assert main(["model", "promote", str(models_folder / "digits/v2")]) == 1
    finally:
        signal.signal(signal.SIGTERM, handler)  # the command replaces it
    printed = capfd.readouterr().err
    assert "Error: v2 does not replace v1: on the same 72 test images" in printed
    assert "Traceback" not in printed
