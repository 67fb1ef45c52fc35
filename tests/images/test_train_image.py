"""The training image, with the libraries without CUDA: built by pip, and run as SageMaker and AWS Batch run it."""

import json
import shutil
from pathlib import Path

import pytest

from jobs.cloud.training_request import PLACEHOLDERS, TrainingJob, build_request
from tests.conftest import Bench
from tests.images.engine import Image, run_in_build
from tests.infra.test_training_template import containers

pytestmark = pytest.mark.image

#: Weights that are in the image, and a size at which a few images are quick to train on.
QUICK = {"version": "v1", "image-size": "32", "weights": "package"}


@pytest.fixture(scope="session")
def few(digit_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen images of each class."""
    folder = tmp_path_factory.mktemp("few")
    for label in digit_images.iterdir():
        (folder / label.name).mkdir()
        for image in sorted(label.glob("*.png"))[:12]:
            shutil.copy(image, folder / label.name)
    return folder


def test_the_image_trains_as_sagemaker_starts_it(
    train_image: Image, few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From /opt/ml/input to /opt/ml/model, with the argument ``train``."""
    (tmp_path / "ml/input/config").mkdir(parents=True)
    (tmp_path / "ml/input/config/hyperparameters.json").write_text(json.dumps(QUICK))
    shutil.copytree(few, tmp_path / "ml/input/data/training")
    for name in ("model", "checkpoints", "output"):
        (tmp_path / "ml" / name).mkdir()
    for path in (tmp_path / "ml").rglob("*"):  # they belong to root, and only root can write to them
        path.chmod(0o755 if path.is_dir() else 0o644)
    status, log = train_image.start("train", folder=(tmp_path / "ml", "/opt/ml")).end(600)
    assert status == 0, log
    assert json.loads((tmp_path / "ml/model/model/v1/model.json").read_text())["labels"] == ["eight", "three"]
    with capsys.disabled():
        print(f"\ntraining image without CUDA: {train_image.size_bytes / 1e6:,.0f} MB")


def test_the_image_trains_as_batch_starts_it(train_image: Image, few: Path, ministack_bench: Bench) -> None:
    """With the command of ``twofold train submit``, from S3 to a bundle in S3."""
    bench = ministack_bench
    for path in few.rglob("*.png"):
        bench.put(f"datasets/few/{path.relative_to(few).as_posix()}", path.read_bytes())
    places = {"data": f"s3://{bench.bucket}/datasets/few/", "output": f"s3://{bench.bucket}/models"}
    job = TrainingJob(target="batch", name="twofold-few", options=QUICK | places, stack=PLACEHOLDERS)
    command = build_request(job)["containerOverrides"]["command"]
    (user,) = {container["User"] for container in containers()}
    status, log = train_image.start(*command, environment=bench.environment, user=int(user)).end(600)
    assert status == 0, log
    assert {"models/model/champion.json", "models/model/v1/model.json"} <= set(bench.keys("models/"))


def test_the_health_check_of_the_image_passes(train_image: Image) -> None:
    """Its command, as the image's user."""
    kind, *check = train_image.config["Healthcheck"]["Test"]
    assert kind == "CMD"
    assert train_image.start(*check[1:], entry=check[:1]).end()[0] == 0


@pytest.mark.slow
def test_pip_resolves_the_libraries_with_cuda_and_checks_every_hash(base: str, tmp_path: Path) -> None:
    """On the Python of the image: pip downloads all of it, some 3 GB, and would refuse a single other byte."""
    log = run_in_build(base, tmp_path, "train-gpu", "--dry-run --ignore-installed --no-deps --only-binary :all:")
    assert "Would install" in log
    assert "nvidia-cudnn-cu12" in log
