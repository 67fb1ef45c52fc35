"""The promises of the recipe: training and serving agree, and a bundle holds what it says."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.cli import main
from jobs.data.dataset import LabelledImage
from jobs.data.loader import ImageLoader
from jobs.metrics.scored_images import from_csv
from tests.conftest import Trainer
from tests.jobs.conftest import ResumedJob
from worker.contract import ModelManifest
from worker.scoring.decoder import decode, fingerprint
from worker.scoring.litert import Scorer


@pytest.fixture(scope="session")
def manifest(bundle: Path) -> ModelManifest:
    return ModelManifest.model_validate_json((bundle / "model.json").read_bytes())


def test_the_bundle_holds_what_its_manifest_says(bundle: Path, manifest: ModelManifest) -> None:
    """Every file except model.json, with its size and digest."""
    files = {path.name: path.read_bytes() for path in bundle.iterdir() if path.name != "model.json"}
    assert set(manifest.files) == set(files)
    for name, body in files.items():
        assert manifest.files[name].sha256 == hashlib.sha256(body).hexdigest()
        assert manifest.files[name].size_bytes == len(body)
    assert manifest.labels == ("eight", "three")
    assert manifest.decoder_fingerprint == fingerprint()


def test_the_test_predictions_have_the_true_class_and_the_digest_of_each_image(
    bundle: Path, digit_images: Path
) -> None:
    """The class is that of the folder, and the digest that of the file."""
    for image in from_csv((bundle / "test_predictions.csv").read_bytes()):
        assert image.true_label == image.source_ref.split("/")[0]
        assert image.sha256 == hashlib.sha256((digit_images / image.source_ref).read_bytes()).hexdigest()


def test_the_figures_add_up(bundle: Path) -> None:
    """N is the sum of the confusion matrix and the number of test predictions. Accuracy follows from both."""
    evaluation = json.loads((bundle / "evaluation.json").read_text())
    figures = evaluation["binary_classification_metrics"]
    matrix = figures["confusion_matrix"]
    rows = from_csv((bundle / "test_predictions.csv").read_bytes())
    assert evaluation["n"] == len(rows) == sum(matrix[true][given] for true in "01" for given in "01") == 72
    right = sum(row.label == row.true_label for row in rows)
    assert figures["accuracy"]["value"] == right / 72 == (matrix["0"]["0"] + matrix["1"]["1"]) / 72
    assert {"accuracy", "precision", "recall", "f1", "auc", "log_loss"} < set(figures)


def _keras_scores(bundle: Path, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    import keras  # noqa: PLC0415 - takes seconds, which other tests need not wait for

    # Called, not predict(): tracing the model would take longer than running it.
    scores: NDArray[np.float64] = np.asarray(keras.models.load_model(bundle / "model.keras")(pixels))[:, 0]
    return scores


def test_training_and_serving_see_the_same_pixels_and_give_the_same_score(
    bundle: Path, digit_images: Path, request: pytest.FixtureRequest
) -> None:
    """Equal pixels, and scores of model.keras and model.tflite within 1e-3, on digits, noise and photographs."""
    paths = sorted(digit_images.rglob("*.png"))[::16]
    if os.environ.get("TWOFOLD_SHARED"):
        photographs = request.getfixturevalue("shared") / "data/cats_and_dogs_filtered/validation"
        paths += sorted(photographs.rglob("*.jpg"))[::25]
    images = [LabelledImage(path, path.name, 0) for path in paths]
    loaded = ImageLoader(96).load(images).pixels
    served = np.stack([decode(path.read_bytes(), size_px=96) for path in paths])
    assert np.array_equal(loaded, served)
    noise = np.random.default_rng(7).integers(0, 256, (16, 96, 96, 3), dtype=np.uint8)
    everything = np.concatenate([served, noise])
    scores = Scorer((bundle / "model.tflite").read_bytes()).score_all(everything, threads=2)
    assert np.abs(scores - _keras_scores(bundle, everything)).max() < 1e-3


def test_the_scores_of_one_image_are_the_same_on_every_thread(bundle: Path) -> None:
    """Each thread has its own interpreter of the same graph."""
    image = np.random.default_rng(7).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    scores = Scorer((bundle / "model.tflite").read_bytes()).score_all(np.stack([image] * 64), threads=2)
    assert len(set(scores.tolist())) == 1


def test_a_bundle_is_never_overwritten(trainer: Trainer, models: Path, digit_images: Path) -> None:
    """The same version is refused before anything is trained, and the files stay as they are."""
    before = {path: path.read_bytes() for path in models.rglob("*") if path.is_file()}
    options = ("--name", "digits", "--version", "v1", "--image-size", "96")
    done = trainer.run("train", "run", "--data", str(digit_images), "--output", str(models), *options)
    assert done.returncode == 1
    assert "choose another --version" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Training" not in done.stderr
    assert {path: path.read_bytes() for path in models.rglob("*") if path.is_file()} == before


def test_all_files_of_a_class_are_counted_before_a_job_stops(
    trainer: Trainer, few_digits: Path, tmp_path: Path
) -> None:
    """Test images, too, which are otherwise read last: with the share that the message names, the job goes on."""
    data = Path(shutil.copytree(few_digits, tmp_path / "digits"))
    for path in sorted((data / "eight").iterdir())[::5]:
        path.write_text("no image")
    done = trainer.run("train", "run", f"--data={data}", f"--output={tmp_path / 'out'}", "--image-size=32")
    assert done.returncode == 1
    assert "Error: 8 of the 40 files of class eight cannot be used, more than 5 %:" in done.stderr
    assert done.stderr.endswith("--max-quarantined 0.2\n")


def test_a_bundle_can_be_written_to_a_bucket(resumed_job: ResumedJob) -> None:
    """``--output s3://…``: the first version becomes the champion, and ``--json`` prints the figures."""
    bundle, result = resumed_job.bundle, resumed_job.result
    manifest = ModelManifest.model_validate_json((bundle / "model.json").read_bytes())
    assert {path.name for path in bundle.iterdir()} == set(manifest.files) | {"model.json"}
    assert result["uri"].endswith(f"/models/model/{manifest.version}")
    assert result["evaluation"] == json.loads((bundle / "evaluation.json").read_bytes())
    assert result["champion"] is True
    assert json.loads((bundle.parent / "champion.json").read_bytes())["version"] == manifest.version


def test_the_evaluation_describes_fine_tuning(resumed_job: ResumedJob) -> None:
    """Fine-tuning is kept only if the validation loss improves."""
    tuning = resumed_job.result["evaluation"]["fine_tuning"]
    assert (tuning["layers"], tuning["epochs"]) == (5, 1)
    assert tuning["kept"] == (tuning["loss_best"] < tuning["loss_before"])


def test_a_training_job_prints_nothing_but_its_own_lines(resumed_job: ResumedJob) -> None:
    """LiteRT, its converter and CUDA would write between them, and split the progress bar."""
    lines = resumed_job.facts["stderr"].splitlines()
    assert "✓ Exporting" in " ".join(lines)
    assert [line for line in lines if not line.startswith(("✓ ", "  "))] == []


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--data", "no-such-folder"), 1, "no-such-folder does not exist in "),
        (("--data", ".", "--image-size", "100"), 2, "--image-size must be a multiple of 32, from 32 to 512, not 100"),
        (("--data", ".", "--threshold", "2"), 2, "is not a threshold rule"),
        (("--data", ".", "--name", "a/b"), 2, "--name must be 1 to 64 letters, digits"),
    ],
)
def test_an_invalid_option_is_explained_at_once(
    options: tuple[str, ...], status: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a traceback, and before TensorFlow is loaded."""
    assert main(["train", "run", "--output", str(tmp_path), *options]) == status
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
