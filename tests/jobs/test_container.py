"""The training container, started as SageMaker starts it, with another folder in place of /opt/ml."""

import json
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
    """The folder in place of /opt/ml."""
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
    """A single channel is the data, whatever its name. Hyperparameters may have hyphens or underscores."""
    environment = _lay_out(base, {"image-size": "96", "fine_tune": "30"}, "training")
    assert _options(environment) == {
        "output": str(base / "model"),
        "checkpoint": str(base / "checkpoints"),
        "image-size": "96",
        "fine-tune": "30",
        "data": str(base / "input/data/training"),
    }


def test_three_channels_are_the_three_splits(base: Path) -> None:
    """The folder that holds them is what ``--data`` takes."""
    environment = _lay_out(base, {}, "train", "validation", "test")
    assert _options(environment)["data"] == str(base / "input/data")


def test_environment_variables_override_the_layout(base: Path) -> None:
    """``SM_HPS``, ``SM_CHANNEL_*`` and ``SM_MODEL_DIR``. A hyperparameter overrides these in turn."""
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


def test_values_encoded_by_sagemakers_sdk_are_decoded(base: Path) -> None:
    """Its estimators write each value as JSON within JSON."""
    environment = _lay_out(base, {"threshold": '"max-f1"', "image-size": "64"}, "training")
    assert _options(environment)["threshold"] == "max-f1"


@pytest.mark.parametrize(
    ("hyperparameters", "channels", "message"),
    [
        ({"learning_rate": "0.1"}, ("training",), "learning-rate is not an option of training"),
        ({"image-size": "large"}, ("training",), "image-size must be a whole number, not 'large'"),
        ({"threshold": {"max": "f1"}}, ("training",), "threshold"),
        ({"name": "--output=elsewhere"}, ("training",), "name"),
        ({"help": ""}, ("training",), "help"),
        (["image-size", 96], ("training",), "not a JSON object"),
        (None, ("training",), "not a JSON object"),
        ({}, (), "Found: none"),
        ({}, ("cats", "dogs"), "Found: cats, dogs"),
    ],
)
def test_an_invalid_layout_is_explained_where_sagemaker_looks(
    base: Path, hyperparameters: object, channels: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In ``output/failure``, and on standard error. Nothing is trained."""
    environment = _lay_out(base, hyperparameters, *channels)
    assert container.run(main, [], environment) == 2
    assert message in (base / "output/failure").read_text()
    assert message in capsys.readouterr().err
    assert not (base / "model").exists()


def test_hyperparameters_that_are_not_json_are_reported(base: Path) -> None:
    """As an error of the user, and without a traceback."""
    environment = _lay_out(base, {}, "training") | {"SM_HPS": "{image-size: 96}"}
    with pytest.raises(UserError, match="hyperparameters cannot be read"):
        container.options(environment)


def test_an_unexpected_error_is_reported_too(base: Path) -> None:
    """And raised again, so that the log has the traceback."""

    def broken(_: list[str], **__: Any) -> int:
        raise ZeroDivisionError("no such luck")

    with pytest.raises(ZeroDivisionError):
        container.run(broken, ["train"], _lay_out(base, {}, "training"))
    assert (base / "output/failure").read_text() == "ZeroDivisionError: no such luck"


def test_given_options_are_passed_on_unchanged(base: Path) -> None:
    """With plain Docker or AWS Batch, the layout is not read."""
    calls = []

    def record(given: list[str]) -> int:
        calls.append(given)
        return 0

    container.run(record, ["--data=x", "--output=y"], _lay_out(base, {}))
    container.run(record, [], {"SAGEMAKER_BASE_DIR": str(base / "nowhere")})
    assert calls == [["train", "run", "--data=x", "--output=y"], ["train", "run"]]


def test_a_job_in_a_container_leaves_a_bundle(container_job: Path) -> None:
    """Made from hyperparameters and a channel. Features go to the checkpoints folder."""
    manifest = ModelManifest.model_validate_json((container_job / "model/pets/v1/model.json").read_bytes())
    assert (manifest.name, manifest.version, manifest.image_size) == ("pets", "v1", 32)
    assert {path.name for path in (container_job / "checkpoints").iterdir()} == {"features"}
    assert not (container_job / "output").exists()


def test_a_job_that_fails_in_a_container_says_why(trainer: Trainer, base: Path) -> None:
    """An error of the user is one line and a status, and SageMaker gets that line."""
    run = trainer.start_container("train", **_lay_out(base, {}, "training"))
    assert run.wait() == 1
    reason = (base / "output/failure").read_text()
    assert f"Error: {reason}" in run.stderr
    assert "Traceback" not in run.stderr
    assert len(reason) <= 1024
