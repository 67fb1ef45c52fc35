"""Started as SageMaker starts a training container, with its folders laid out elsewhere."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from jobs import container
from jobs.cli import main
from jobs.user_error import UserError
from tests.conftest import Trainer
from worker.contract import ModelManifest


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """What stands for /opt/ml."""
    (tmp_path / "input/config").mkdir(parents=True)
    (tmp_path / "input/data").mkdir()
    return tmp_path


def _lay_out(base: Path, hyperparameters: object, *channels: str) -> dict[str, str]:
    (base / "input/config/hyperparameters.json").write_text(json.dumps(hyperparameters))
    for channel in channels:
        (base / "input/data" / channel).mkdir()
    return {"SAGEMAKER_BASE_DIR": str(base)}


def _options(environment: dict[str, str]) -> dict[str, str]:
    return dict(option.removeprefix("--").split("=", 1) for option in container.options(environment))


def test_the_layout_becomes_options(base: Path) -> None:
    """One channel, whatever it is called, is the data; a name may be written with either dash."""
    environment = _lay_out(base, {"image-size": "96", "fine_tune": "30"}, "training")
    assert _options(environment) == {
        "output": str(base / "model"),
        "checkpoint": str(base / "checkpoints"),
        "image-size": "96",
        "fine-tune": "30",
        "data": str(base / "input/data/training"),
    }


def test_three_channels_are_the_three_splits(base: Path) -> None:
    """The folder that holds them is laid out as ``--data`` takes it."""
    environment = _lay_out(base, {}, "train", "validation", "test")
    assert _options(environment)["data"] == str(base / "input/data")


def test_variables_win_over_the_layout(base: Path) -> None:
    """``SM_HPS``, ``SM_CHANNEL_*``, ``SM_MODEL_DIR``; and a hyperparameter wins over these."""
    environment = _lay_out(base, {"image-size": "96"}, "training") | {
        "SM_HPS": '{"image-size": 64, "threshold": "max-f1", "sagemaker_program": "train.py"}',
        "SM_CHANNELS": '["pets"]',
        "SM_CHANNEL_PETS": "elsewhere/pets",
        "SM_MODEL_DIR": "elsewhere/model",
    }
    found = _options(environment)
    assert (found["image-size"], found["threshold"], found["data"], found["output"]) == (
        "64",
        "max-f1",
        "elsewhere/pets",
        "elsewhere/model",
    )
    environment["SM_HPS"] = '{"data": "s3://shelter/pets/", "output": "s3://shelter/models"}'
    found = _options(environment)
    assert (found["data"], found["output"]) == ("s3://shelter/pets/", "s3://shelter/models")


def test_values_packed_by_sagemakers_sdk_are_unpacked(base: Path) -> None:
    """Its estimators write each value as JSON within JSON."""
    environment = _lay_out(base, {"threshold": '"max-f1"', "image-size": "64"}, "training")
    assert _options(environment)["threshold"] == "max-f1"


@pytest.mark.parametrize(
    ("hyperparameters", "channels", "said"),
    [
        ({"learning_rate": "0.1"}, ("training",), "learning_rate"),
        ({"image-size": "large"}, ("training",), "image_size"),
        ({"threshold": {"max": "f1"}}, ("training",), "threshold"),
        ({"name": "--output=elsewhere"}, ("training",), "name"),
        ({"help": ""}, ("training",), "help"),
        (["image-size", 96], ("training",), "no JSON object"),
        (None, ("training",), "no JSON object"),
        ({}, (), "found: none"),
        ({}, ("cats", "dogs"), "found: cats, dogs"),
    ],
)
def test_what_cannot_be_is_explained_and_left_where_sagemaker_looks(
    base: Path, hyperparameters: object, channels: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error and in ``output/failure``; nothing is trained."""
    environment = _lay_out(base, hyperparameters, *channels)
    assert container.run(main, [], environment) == 2
    assert said in (base / "output/failure").read_text()
    assert said in capsys.readouterr().err
    assert not (base / "model").exists()


def test_hyperparameters_that_are_no_json_are_an_error_in_words(base: Path) -> None:
    """Which says what could not be read."""
    environment = _lay_out(base, {}, "training") | {"SM_HPS": "{image-size: 96}"}
    with pytest.raises(UserError, match="hyperparameters cannot be read"):
        container.options(environment)


def test_a_program_error_leaves_its_reason_too(base: Path) -> None:
    """And goes on up: the log has the traceback."""

    def broken(_: list[str], **__: Any) -> int:
        raise ZeroDivisionError("no such luck")

    with pytest.raises(ZeroDivisionError):
        container.run(broken, ["train"], _lay_out(base, {}, "training"))
    assert (base / "output/failure").read_text() == "ZeroDivisionError: no such luck"


def test_options_of_its_own_are_taken_as_they_are(base: Path) -> None:
    """Plain Docker, or AWS Batch: no layout is looked at."""
    seen = []

    def noted(given: list[str]) -> int:
        seen.append(given)
        return 0

    container.run(noted, ["--data=x", "--output=y"], _lay_out(base, {}))
    container.run(noted, [], {"SAGEMAKER_BASE_DIR": str(base / "nowhere")})
    assert seen == [["train", "run", "--data=x", "--output=y"], ["train", "run"]]


def test_a_job_in_a_container_leaves_a_bundle(trainer: Trainer, few_digits: Path, base: Path) -> None:
    """From hyperparameters and a channel to a bundle; unfinished work went to the checkpoints folder."""
    environment = _lay_out(base, {"image-size": "32", "version": "v1", "name": "pets"})
    shutil.copytree(few_digits, base / "input/data/training")
    run = trainer.start_container(**environment)
    assert run.wait() == 0, run.stderr
    manifest = ModelManifest.model_validate_json((base / "model/pets/v1/model.json").read_bytes())
    assert (manifest.version, manifest.image_size) == ("v1", 32)
    assert {path.name for path in (base / "checkpoints").iterdir()} == {"features"}
    assert not (base / "output").exists()


def test_a_job_that_fails_in_a_container_says_why(trainer: Trainer, base: Path) -> None:
    """What a person can mend is a status and a line, and SageMaker is told that line."""
    run = trainer.start_container("train", **_lay_out(base, {}, "training"))
    assert run.wait() == 1
    reason = (base / "output/failure").read_text()
    assert f"Error: {reason}" in run.stderr
    assert "Traceback" not in run.stderr
    assert len(reason) <= 1024
