"""Bundles: a file that is not the one that was trained is refused, and named. And the folder that caches models."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Bench
from worker.errors import ErrorCode, Reject
from worker.scoring.models import MODEL_FILE, ModelCache, Models
from worker.scoring.sandbox import Sandbox


@pytest.fixture
def open_model(
    ministack_bench: Bench, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path | str], Any]:
    opened = Models(storage=ministack_bench.storage(monkeypatch), sandbox=sandbox)
    return lambda uri: opened.get(str(uri))


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    """A bundle to damage."""
    return Path(shutil.copytree(bundle, tmp_path / "digits" / "v1"))


def _edit(copy: Path, **changes: Any) -> None:
    path = copy / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _refusal(open_model: Callable[[Path], Any], uri: Path) -> Reject:
    with pytest.raises(Reject) as caught:
        open_model(uri)
    return caught.value


@pytest.mark.parametrize("name", ["", "model.json"])
def test_a_bundle_opens_by_its_folder_and_by_its_manifest(open_model: Any, bundle: Path, name: str) -> None:
    """From a local path here; the tests of worker.batch open one in a bucket."""
    assert open_model(bundle / name).manifest.labels == ("eight", "three")


def test_the_champion_is_read_every_time(open_model: Any, copy: Path, models: Path) -> None:
    """A new champion is used without a restart."""
    pointer = copy.parent / "champion.json"
    shutil.copy(models / "digits" / "champion.json", pointer)
    assert open_model(pointer).manifest.version == "v1"
    shutil.copytree(copy, copy.parent / "v2")
    _edit(copy.parent / "v2", version="v2")
    pointer.write_text(pointer.read_text().replace('"v1"', '"v2"'))
    assert open_model(pointer).manifest.version == "v2"


def test_a_graph_with_one_bit_flipped_is_refused(open_model: Any, copy: Path) -> None:
    """Before it is parsed."""
    graph = bytearray((copy / "model.tflite").read_bytes())
    graph[len(graph) // 2] ^= 1
    (copy / "model.tflite").write_bytes(graph)
    refusal = _refusal(open_model, copy)
    assert refusal.code is ErrorCode.BAD_MODEL
    assert "model.tflite" in refusal.message


@pytest.mark.parametrize("name", ["model.json", "model.tflite"])
def test_a_bundle_with_a_file_missing_is_refused(open_model: Any, copy: Path, name: str) -> None:
    """The message names the file."""
    (copy / name).unlink()
    refusal = _refusal(open_model, copy)
    assert refusal.code is ErrorCode.NOT_FOUND
    assert name in refusal.message


@pytest.mark.parametrize(
    "changes",
    [{"schema_version": 2}, {"labels": ["cat"]}, {"labels": ["a", "b", "c"]}, {"files": {}}, {"more": 1}],
    ids=str,
)
def test_a_manifest_with_another_schema_is_refused(open_model: Any, copy: Path, changes: dict[str, Any]) -> None:
    """Also a newer one, whose meaning could only be guessed."""
    _edit(copy, **changes)
    assert _refusal(open_model, copy).code is ErrorCode.BAD_MODEL


@pytest.mark.parametrize("file", ["model.json", "champion.json"])
@pytest.mark.parametrize("change", ["twice", "NaN", "deep", "BOM"])
def test_a_file_that_two_readers_may_read_differently_is_refused(
    open_model: Any, copy: Path, models: Path, file: str, change: str
) -> None:
    """The bundle and the pointer are read as strictly as a message."""
    shutil.copy(models / "digits" / "champion.json", copy.parent)
    path = copy / file if file == "model.json" else copy.parent / file
    more = {"twice": '"version": "v1"', "NaN": '"metrics": NaN', "deep": '"metrics": ' + "[" * 100_000, "BOM": ""}
    text = path.read_text()
    path.write_text("\ufeff" + text if change == "BOM" else text.replace("{", f"{{{more[change]}, ", 1))
    refusal = _refusal(open_model, copy.parent / "champion.json")
    assert refusal.code is ErrorCode.BAD_MODEL
    assert str(path if file == "champion.json" else copy) in refusal.message
    assert {"twice": "occurs twice", "NaN": "NaN", "deep": "deep", "BOM": "BOM"}[change] in refusal.message


def test_a_graph_of_another_input_size_is_refused(open_model: Any, copy: Path) -> None:
    """Ready means that the graph takes the input that the manifest describes."""
    _edit(copy, image_size=128)
    assert _refusal(open_model, copy).code is ErrorCode.BAD_MODEL


def test_a_keras_file_in_place_of_the_graph_is_refused(open_model: Any, copy: Path) -> None:
    """Even if its digest matches: only LiteRT graphs are loaded."""
    shutil.copy(copy / "model.keras", copy / "model.tflite")
    files = json.loads((copy / "model.json").read_text())["files"]
    _edit(copy, files=files | {"model.tflite": files["model.keras"]})
    assert _refusal(open_model, copy).code is ErrorCode.BAD_MODEL


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def test_a_cached_file_is_found_by_its_digest(tmp_path: Path) -> None:
    """Also by the next process, which opens the folder again."""
    ModelCache(tmp_path / "new").put(_digest(b"graph"), b"graph")
    assert ModelCache(tmp_path / "new").get(_digest(b"graph")) == b"graph"
    assert ModelCache(tmp_path / "new").get(_digest(b"other")) is None


def test_an_altered_cached_file_is_not_used(tmp_path: Path) -> None:
    """Its digest is computed, whatever its name says."""
    cache = ModelCache(tmp_path)
    cache.put(_digest(b"graph"), b"graph")
    (tmp_path / _digest(b"graph")).write_bytes(b"evil!")
    assert cache.get(_digest(b"graph")) is None


def test_a_cache_that_cannot_be_written_is_not_an_error(tmp_path: Path) -> None:
    """As on a read-only file system."""
    (tmp_path / "file").write_bytes(b"")
    cache = ModelCache(tmp_path / "file" / "below")
    cache.put(_digest(b"graph"), b"graph")
    assert cache.get(_digest(b"graph")) is None


def test_the_oldest_cached_files_are_deleted_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When there are too many bytes: Lambda's /tmp is small."""
    monkeypatch.setattr("worker.scoring.models._MAX_CACHE_BYTES", 10)
    cache = ModelCache(tmp_path)
    for age, body in ((30, b"first"), (20, b"second")):
        cache.put(_digest(body), body)
        os.utime(tmp_path / _digest(body), (time.time() - age, time.time() - age))
    cache.put(_digest(b"new"), b"new")
    assert cache.get(_digest(b"first")) is None
    assert cache.get(_digest(b"second")) == b"second"
    assert cache.get(_digest(b"new")) == b"new"


def test_a_model_is_downloaded_once_and_then_read_from_the_cache(
    ministack_bench: Bench, sandbox: Sandbox, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its manifest is still read each time, and the graph is checked against it."""
    bench, cache = ministack_bench, ModelCache(tmp_path)
    storage = bench.storage(monkeypatch)
    for name in ("model.json", MODEL_FILE):
        bench.put(f"m/{name}", (bundle / name).read_bytes())
    uri = f"s3://{bench.bucket}/m"
    first = Models(storage=storage, sandbox=sandbox, cache=cache).get(uri)
    bench.s3.delete_object(Bucket=bench.bucket, Key=f"m/{MODEL_FILE}")
    again = Models(storage=storage, sandbox=sandbox, cache=cache).get(uri)
    assert again.manifest == first.manifest
