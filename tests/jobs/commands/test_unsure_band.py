"""``--unsure`` from the training or the submit of a job to its table, its status and its report."""

import csv
import io
import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from jobs.batch.results import Results
from jobs.metrics import scored_images
from tests.conftest import Bench, Trainer
from tests.desk import Desk
from tests.jobs.commands.conftest import Twofold, Work
from tests.jobs.report.strict_html import Page
from worker.contract import ModelManifest
from worker.predictions import COLUMNS


@pytest.fixture
def endpoint(ministack: str) -> str:
    """One emulator: nothing here is about what storage guarantees."""
    return ministack


@pytest.fixture
def photos(digit_images: Path, tmp_path: Path) -> Path:
    """Images of both classes, and a damaged one."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in sorted(digit_images.rglob("*.png"))[::15]:
        shutil.copy(path, folder / f"{path.parent.name}-{path.name}")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n, and then nothing")
    return folder


def _table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))


def _decisions(rows: list[dict[str, str]], low: float, high: float) -> list[str]:
    """What the rows must say, from their scores."""
    return [
        "" if row["error_code"] else "unsure" if low <= float(row["score"]) < high else row["label"] for row in rows
    ]


def test_a_band_at_submit_is_in_the_table_the_status_and_the_report(
    desk: Desk, twofold: Twofold, work: Work, photos: Path, tmp_path: Path
) -> None:
    """A column after those of every table; a redrive keeps the band; without a band there is no word about it."""
    status, output = twofold("submit", str(photos), "--job-id", "june", "--unsure", "0.02:0.9")
    assert status == 0, output
    work()
    out = tmp_path / "june.csv"
    assert twofold("results", "june", "-o", str(out))[0] == 0
    rows = _table(out)
    assert list(rows[0]) == [*COLUMNS, "decision", "file"]
    assert [row["decision"] for row in rows] == _decisions(rows, 0.02, 0.9)
    unsure = sum(row["decision"] == "unsure" for row in rows)
    found = json.loads(twofold("status", "june", "--json")[1])
    assert (found["unsure_rows"], found["scored"]) == (unsure, len(rows) - 1)
    assert re.search(rf"scored +{found['scored']}, of which {unsure} unsure\n", twofold("status", "june")[1])

    shutil.copy(next(photos.glob("three*")), photos / "broken.png")
    twofold("redrive", "june")
    work()
    assert desk.sent == []
    twofold("results", "june", "-o", str(tmp_path / "again.parquet"))
    table = pd.read_parquet(tmp_path / "again.parquet")
    assert table["decision"].isna().sum() == table["error_code"].notna().sum() == 0
    again = (table["decision"] == "unsure").sum()
    assert json.loads(twofold("status", "june", "--json")[1])["unsure_rows"] == again
    twofold("report", "june", "-o", str(tmp_path / "june.html"))
    shown = Page((tmp_path / "june.html").read_text()).text.replace("\u202f", " ")
    assert re.search(rf"{again} images? (is|are) unsure, [\d.]+ % of the scored ones\.", shown)
    assert re.search(
        r"Of the model.s 72 test images, [\d.]+ % are unsure by this rule \([\d.]+ % to [\d.]+ % \d+ ?\)", shown
    )


def test_a_job_without_a_band_has_the_table_that_it_always_had(
    bench: Bench, twofold: Twofold, work: Work, photos: Path, tmp_path: Path
) -> None:
    """No column, no count, no word in the report; and --unsure makes it another job, with another name."""
    names = [json.loads(twofold("submit", str(photos), "--json")[1])["job_id"]]
    names.append(json.loads(twofold("submit", str(photos), "--unsure", "0.02:0.9", "--json", "--dry-run")[1])["job_id"])
    assert len(set(names)) == 2
    work()
    twofold("results", names[0], "-o", str(tmp_path / "out.csv"))
    assert list(_table(tmp_path / "out.csv")[0]) == [*COLUMNS, "file"]
    assert json.loads(twofold("status", names[0], "--json")[1])["unsure_rows"] is None
    twofold("report", names[0], "-o", str(tmp_path / "out.html"))
    written = [(tmp_path / "out.html").read_bytes(), *(bench.get(f"s3://{bench.bucket}/{key}") for key in _keys(bench))]
    assert [body for body in written if b"unsure" in body] == []


def _keys(bench: Bench) -> list[str]:
    return [key for key in bench.keys("predictions/") if "/_uploads/" not in key]


def test_rows_of_a_redrive_with_another_model_have_a_decision_where_theirs_has_a_band(
    desk: Desk, twofold: Twofold, work: Work, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table has the column then, blank for the other rows. Each worker uses its own model if the job names none."""
    monkeypatch.delenv("TWOFOLD_MODEL_URI")
    twofold("submit", str(photos), "--job-id", "june")
    work()
    uri = f"s3://{desk.bench.bucket}/models/digits/v1/model.json"
    manifest = ModelManifest.parse(desk.bench.get(uri))
    banded = manifest.model_copy(update={"version": "v2", "unsure": (0.0, 1.0)})
    for name in ("model.tflite", "model.json", "test_predictions.csv"):
        body = desk.bench.get(f"s3://{desk.bench.bucket}/models/digits/v1/{name}")
        desk.bench.put(f"models/digits/v2/{name}", banded.model_dump_json().encode() if name == "model.json" else body)
    pointer = {"schema_version": 1, "name": "digits", "version": "v2", "promoted_at": "2026-11-24T00:00:00Z"}
    desk.bench.put("models/digits/champion.json", json.dumps(pointer).encode())
    shutil.copy(next(photos.glob("three*")), photos / "broken.png")
    twofold("redrive", "june")
    work()
    twofold("results", "june", "-o", str(tmp_path / "out.csv"))
    rows = _table(tmp_path / "out.csv")
    assert list(rows[0]) == [*COLUMNS, "decision", "file"]
    assert {row["file"]: row["decision"] for row in rows if row["decision"]} == {"broken.png": "unsure"}
    assert {row["model_version"] for row in rows} == {"v1", "v2"}
    assert json.loads(twofold("status", "june", "--json")[1])["unsure_rows"] == 1
    assert Results(desk.record("june")).has_decisions()


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--unsure", "0.7:0.3"], 2, "must be two scores from 0 to 1, the lower one first, such as 0.3:0.7"),
        (["--unsure", "some"], 2, "must be two scores from 0 to 1"),
        (["--unsure", "0.3:0.7", "--threshold", "0.8"], 2, "must hold the threshold: 0.8 is not from 0.3 to 0.7"),
        (["--unsure", "0.6:0.7"], 1, "must hold the threshold: 0.5 is not from 0.6 to 0.7. Choose another --unsure"),
    ],
)
def test_a_band_that_cannot_be_is_refused_before_anything_is_uploaded(
    bench: Bench, twofold: Twofold, photos: Path, options: list[str], status: int, said: str
) -> None:
    """Also one that does not hold the threshold of the model."""
    found, output = twofold("submit", str(photos), *options)
    assert (found, said in " ".join(re.sub("[│╭╰─╮╯]", " ", output).split())) == (status, True), output
    assert bench.keys("predictions/") == []


def test_a_band_needs_another_name_for_the_job(twofold: Twofold, photos: Path) -> None:
    """As another threshold does."""
    assert twofold("submit", str(photos), "--job-id", "june")[0] == 0
    status, output = twofold("submit", str(photos), "--job-id", "june", "--unsure", "0.3:0.7")
    assert (status, "There is a job named june with another band of unsure scores." in output) == (1, True), output


@pytest.mark.slow
def test_a_model_that_is_trained_with_a_band_has_it_in_its_bundle(
    trainer: Trainer, few_digits: Path, tmp_path: Path
) -> None:
    """In model.json, its test predictions, figures, report and card, and in what the commands say."""
    options = ["--image-size=32", "--version=v1", f"--output={tmp_path / 'models'}", f"--data={few_digits}"]
    done = trainer.run("train", "run", *options, "--unsure=precision>=0.9 for both", COLUMNS="80")
    assert done.returncode == 0, done.stderr
    bundle = tmp_path / "models/model/v1"
    manifest = ModelManifest.parse((bundle / "model.json").read_bytes())
    assert manifest.unsure is not None
    low, high = manifest.unsure
    rows = scored_images.from_csv((bundle / "test_predictions.csv").read_bytes())
    assert [row.decision for row in rows] == [
        "unsure" if row.score is not None and low <= row.score < high else row.label for row in rows
    ]
    found = json.loads((bundle / "evaluation.json").read_text())["unsure"]
    assert found["share"]["images"] == sum(row.decision == "unsure" for row in rows)
    assert (found["rule"], found["band"]) == ("precision>=0.9 for both", [low, high])
    assert manifest.training_config["unsure"] == "precision>=0.9 for both"
    assert "mean unsure" in Page((bundle / "report.html").read_text()).text
    assert "means unsure, by the rule" in (bundle / "README.md").read_text()
    assert "right where not unsure" in done.stdout
    assert trainer.run("model", "verify", str(bundle), "--data", str(few_digits)).returncode == 0
