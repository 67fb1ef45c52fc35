"""A store of each kind, for every test that makes a promise about stored files."""

import shutil
from pathlib import Path

import pytest

from jobs.store import BucketStore, FolderStore, Store
from tests.conftest import Bench


@pytest.fixture(params=["folder", "ministack", "moto"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "folder":
        return FolderStore(tmp_path / "store")
    bench: Bench = request.getfixturevalue("bench_on")(request.getfixturevalue(request.param))
    return BucketStore(f"s3://{bench.bucket}/store/", bench.storage(monkeypatch))


@pytest.fixture(scope="session")
def few_digits(digit_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty of each: enough for a job from start to end."""
    folder = tmp_path_factory.mktemp("few")
    for label in ("eight", "three"):
        (folder / label).mkdir()
        for path in sorted((digit_images / label).iterdir())[:40]:
            shutil.copy(path, folder / label)
    return folder
