"""Models on the disk, by digest; and the heartbeat of a worker."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Bench
from worker.health import MAX_AGE_S, Heartbeat, is_healthy
from worker.scoring import models as cache_module
from worker.scoring.models import MODEL_FILE, ModelCache, open_bundle


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def test_what_was_put_is_found_by_its_digest(tmp_path: Path) -> None:
    """Also by the next process."""
    ModelCache(tmp_path / "new").put(_digest(b"graph"), b"graph")
    assert ModelCache(tmp_path / "new").get(_digest(b"graph")) == b"graph"
    assert ModelCache(tmp_path / "new").get(_digest(b"other")) is None


def test_a_file_that_was_altered_is_not_used(tmp_path: Path) -> None:
    """A name is no proof: the digest is computed anew."""
    cache = ModelCache(tmp_path)
    cache.put(_digest(b"graph"), b"graph")
    (tmp_path / _digest(b"graph")).write_bytes(b"evil!")
    assert cache.get(_digest(b"graph")) is None


def test_a_folder_that_cannot_be_written_is_slow_and_no_error(tmp_path: Path) -> None:
    """As on a read-only file system."""
    (tmp_path / "file").write_bytes(b"")
    cache = ModelCache(tmp_path / "file" / "below")
    cache.put(_digest(b"graph"), b"graph")
    assert cache.get(_digest(b"graph")) is None


def test_the_oldest_go_when_there_are_too_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lambda's /tmp is small, and the function needs it."""
    monkeypatch.setattr(cache_module, "_MAX_CACHE_BYTES", 10)
    cache = ModelCache(tmp_path)
    for age, body in ((30, b"first"), (20, b"second")):
        cache.put(_digest(body), body)
        os.utime(tmp_path / _digest(body), (time.time() - age, time.time() - age))
    cache.put(_digest(b"new"), b"new")
    assert cache.get(_digest(b"first")) is None
    assert cache.get(_digest(b"second")) == b"second"
    assert cache.get(_digest(b"new")) == b"new"


def test_a_model_is_read_once_and_then_from_the_disk(
    ministack_bench: Bench, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its manifest says is still read each time, and the graph is checked against it."""
    bench, cache = ministack_bench, ModelCache(tmp_path)
    storage = bench.storage(monkeypatch)
    for name in ("model.json", MODEL_FILE):
        bench.put(f"m/{name}", (bundle / name).read_bytes())
    uri = f"s3://{bench.bucket}/m"
    first = open_bundle(uri, storage=storage, cache=cache)
    bench.s3.delete_object(Bucket=bench.bucket, Key=f"m/{MODEL_FILE}")
    again = open_bundle(uri, storage=storage, cache=cache)
    assert again.manifest == first.manifest


def test_a_heartbeat_is_healthy_as_long_as_it_is_young(tmp_path: Path) -> None:
    """One that never was, or stopped, is not."""
    path = tmp_path / "heartbeat"
    assert not is_healthy(path, now_s=time.time())
    Heartbeat(path)()
    now_s = path.stat().st_mtime
    assert is_healthy(path, now_s=now_s + MAX_AGE_S)
    assert not is_healthy(path, now_s=now_s + MAX_AGE_S + 1)


def test_a_heartbeat_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    """The work goes on, and the log says so."""
    Heartbeat(tmp_path / "none" / "heartbeat")()
    Heartbeat(None)()


def test_a_worker_beats_while_it_waits_and_its_health_can_be_asked_for(
    ministack_bench: Bench, models: Path, tmp_path: Path
) -> None:
    """By the command that the container runs."""
    settings = {"TWOFOLD_MODEL_URI": ministack_bench.put_bundle(models), "TWOFOLD_HEARTBEAT": str(tmp_path / "beat")}

    def ask() -> int:
        needed = {"TWOFOLD_QUEUE_URL": "q"} | settings
        return subprocess.run(
            [sys.executable, "-m", "worker.health"], env=os.environ | needed, cwd=REPOSITORY, check=False
        ).returncode

    assert ask() == 1
    ministack_bench.drain(**settings)
    assert ask() == 0
