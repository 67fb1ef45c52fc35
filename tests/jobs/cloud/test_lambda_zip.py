"""The worker as a zip, and what a template and a stack make of it."""

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


def test_the_same_sources_make_the_same_zip() -> None:
    """So its digest is its name, and a stack changes only when the code does."""
    first, second = lambda_zip.build(libraries=None), lambda_zip.build(libraries=None)
    assert first.body == second.body


def test_the_zip_holds_the_worker_and_its_bytecode_and_nothing_of_ours_besides() -> None:
    """Lambda's folder cannot be written to: without bytecode each cold start would compile everything."""
    packed = lambda_zip.build(libraries=None)
    names = zipfile.ZipFile(io.BytesIO(packed.body)).namelist()
    assert {name.partition("/")[0] for name in names} == {"worker"}
    sources = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "worker").glob("*.py")}
    assert sources <= set(names)
    tag = sys.implementation.cache_tag
    assert {f"worker/__pycache__/{Path(name).stem}.{tag}.pyc" for name in sources} <= set(names)


def test_a_zip_that_lambda_would_refuse_is_refused_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the next step."""
    monkeypatch.setattr(lambda_zip, "MAX_BYTES", 1000)
    with pytest.raises(UserError, match=r"over Lambda's 1,000: use the image"):
        lambda_zip.build(libraries=None)


def test_libraries_that_cannot_be_had_are_an_error_with_uvs_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that does not answer, say."""
    monkeypatch.setattr(lambda_zip, "_FIRST_PYTHON", (3, 11))
    monkeypatch.setenv("UV_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    with pytest.raises(UserError, match="uv could not fetch the worker's libraries"):
        lambda_zip.build(libraries="arm64")


def test_a_python_whose_runtime_has_too_old_a_system_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is fetched."""
    monkeypatch.setattr(lambda_zip, "_FIRST_PYTHON", (3, 99))
    with pytest.raises(UserError, match=r"uv run --python 3.13 twofold cloud deploy"):
        lambda_zip.build(libraries="arm64")


def test_a_template_fits_into_a_call() -> None:
    """CloudFormation takes larger ones from a bucket alone."""
    for path in (REPOSITORY / "infra").glob("*.yaml"):
        assert path.stat().st_size <= MAX_TEMPLATE_BYTES


def test_a_file_of_infra_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a package that was built without it."""
    fake: Any = type("Jobs", (), {"__file__": str(tmp_path / "jobs" / "__init__.py")})
    monkeypatch.setattr(lambda_zip, "jobs", fake)
    with pytest.raises(UserError, match=r"infra/worker.yaml is not there"):
        lambda_zip.infra("worker.yaml")


def test_outputs_become_the_workers_environment() -> None:
    """By their names alone."""
    assert as_settings({"QueueUrl": "q", "AllowedPrefixes": "s3://a/"}) == {
        "TWOFOLD_QUEUE_URL": "q",
        "TWOFOLD_ALLOWED_PREFIXES": "s3://a/",
    }


@pytest.mark.parametrize("name", ["worker.yaml", "training.yaml"])
def test_the_parameters_of_a_template_are_found_without_a_yaml_library(name: str) -> None:
    """The installed command has none."""
    assert parameters_of(REPOSITORY / "infra" / name) == set(load(name)["Parameters"])
