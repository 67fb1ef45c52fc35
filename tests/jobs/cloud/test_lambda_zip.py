"""The worker as a zip for Lambda, and the templates that refer to it."""

import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from jobs.cloud import lambda_zip
from jobs.cloud.stack import MAX_TEMPLATE_BYTES, as_settings, parameters_of
from jobs.user_error import UserError
from tests.conftest import REPOSITORY
from tests.infra.templates import load


@pytest.fixture(scope="module")
def packed() -> lambda_zip.WorkerZip:
    """The zip without libraries."""
    return lambda_zip.build(libraries=None)


def test_the_same_sources_make_the_same_zip(packed: lambda_zip.WorkerZip) -> None:
    """The digest can serve as its name, and a stack changes only when the code does."""
    assert lambda_zip.build(libraries=None).body == packed.body


def test_the_zip_holds_only_the_worker_with_its_bytecode(packed: lambda_zip.WorkerZip) -> None:
    """Lambda's folder is read-only: without bytecode, every cold start would compile everything."""
    names = zipfile.ZipFile(io.BytesIO(packed.body)).namelist()
    assert {name.partition("/")[0] for name in names} == {"worker"}
    sources = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "worker").glob("*.py")}
    assert sources <= set(names)
    tag = sys.implementation.cache_tag
    assert {f"worker/__pycache__/{Path(name).stem}.{tag}.pyc" for name in sources} <= set(names)


def test_a_zip_that_is_too_large_for_lambda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message gives the next step."""
    monkeypatch.setattr(lambda_zip, "MAX_BYTES", 1000)
    with pytest.raises(UserError, match=r"more than Lambda's 1,000\. Use the image"):
        lambda_zip.build(libraries=None)


def test_a_failed_download_of_the_libraries_is_an_error_with_the_output_of_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    """For example if the package index does not respond."""
    monkeypatch.setattr(lambda_zip, "_FIRST_PYTHON", (3, 11))
    monkeypatch.setenv("UV_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    with pytest.raises(UserError, match="uv could not fetch the worker's libraries"):
        lambda_zip.build(libraries="arm64")


def test_a_python_with_too_old_a_runtime_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is downloaded."""
    monkeypatch.setattr(lambda_zip, "_FIRST_PYTHON", (3, 99))
    with pytest.raises(UserError, match=r"uv run --python 3.13 twofold cloud deploy"):
        lambda_zip.build(libraries="arm64")


def test_a_template_fits_into_a_request() -> None:
    """CloudFormation accepts larger templates only from a bucket."""
    for path in (REPOSITORY / "infra").glob("*.yaml"):
        assert path.stat().st_size <= MAX_TEMPLATE_BYTES


def test_a_missing_file_of_infra_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """For example if the package was built without it."""
    fake: Any = type("Jobs", (), {"__file__": str(tmp_path / "jobs" / "__init__.py")})
    monkeypatch.setattr(lambda_zip, "jobs", fake)
    with pytest.raises(UserError, match=r"infra/worker\.yaml is missing"):
        lambda_zip.infra("worker.yaml")


def test_outputs_become_the_workers_environment() -> None:
    """Each name follows from the output's name."""
    assert as_settings({"QueueUrl": "q", "AllowedPrefixes": "s3://a/"}) == {
        "TWOFOLD_QUEUE_URL": "q",
        "TWOFOLD_ALLOWED_PREFIXES": "s3://a/",
    }


@pytest.mark.parametrize("name", ["worker.yaml", "training.yaml"])
def test_the_parameters_of_a_template_are_found_without_a_yaml_library(name: str) -> None:
    """The installed command does not have one."""
    assert parameters_of(REPOSITORY / "infra" / name) == set(load(name)["Parameters"])
