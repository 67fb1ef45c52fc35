"""Opening a bundle: what is not the model that was trained is refused, naming the file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Bench
from worker.errors import ErrorCode, Reject
from worker.scoring.models import Models


@pytest.fixture
def open_model(ministack_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path | str], Any]:
    opened = Models(storage=ministack_bench.storage(monkeypatch))
    return lambda uri: opened.get(str(uri))


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    """A bundle to spoil."""
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
    """From a path here; from a bucket in the tests of the batch."""
    assert open_model(bundle / name).manifest.labels == ("eight", "three")


def test_the_champion_is_read_anew_each_time(open_model: Any, copy: Path, models: Path) -> None:
    """A pointer that moves is followed without a restart."""
    pointer = copy.parent / "champion.json"
    shutil.copy(models / "digits" / "champion.json", pointer)
    assert open_model(pointer).manifest.version == "v1"
    shutil.copytree(copy, copy.parent / "v2")
    _edit(copy.parent / "v2", version="v2")
    pointer.write_text(pointer.read_text().replace('"v1"', '"v2"'))
    assert open_model(pointer).manifest.version == "v2"


def test_a_graph_with_one_bit_flipped_is_refused(open_model: Any, copy: Path) -> None:
    """Before anything parses it."""
    graph = bytearray((copy / "model.tflite").read_bytes())
    graph[len(graph) // 2] ^= 1
    (copy / "model.tflite").write_bytes(graph)
    refusal = _refusal(open_model, copy)
    assert refusal.code is ErrorCode.BAD_MODEL
    assert "model.tflite" in refusal.message


@pytest.mark.parametrize("name", ["model.json", "model.tflite"])
def test_a_bundle_with_a_file_missing_is_refused(open_model: Any, copy: Path, name: str) -> None:
    """Naming the file."""
    (copy / name).unlink()
    refusal = _refusal(open_model, copy)
    assert refusal.code is ErrorCode.NOT_FOUND
    assert name in refusal.message


@pytest.mark.parametrize(
    "changes",
    [{"schema_version": 2}, {"labels": ["cat"]}, {"labels": ["a", "b", "c"]}, {"files": {}}, {"more": 1}],
    ids=str,
)
def test_a_manifest_that_is_not_ours_is_refused(open_model: Any, copy: Path, changes: dict[str, Any]) -> None:
    """A newer schema included: guessing what it means would be worse."""
    _edit(copy, **changes)
    assert _refusal(open_model, copy).code is ErrorCode.BAD_MODEL


def test_a_graph_of_another_input_size_is_refused(open_model: Any, copy: Path) -> None:
    """Ready means that the graph takes what the manifest says."""
    _edit(copy, image_size=128)
    assert _refusal(open_model, copy).code is ErrorCode.BAD_MODEL


def test_a_keras_file_in_place_of_the_graph_is_refused(open_model: Any, copy: Path) -> None:
    """With digests that fit, too: only LiteRT is ever loaded."""
    shutil.copy(copy / "model.keras", copy / "model.tflite")
    files = json.loads((copy / "model.json").read_text())["files"]
    _edit(copy, files=files | {"model.tflite": files["model.keras"]})
    assert _refusal(open_model, copy).code is ErrorCode.BAD_MODEL
