"""The health check: a worker that makes progress touches a file, and a command checks its age."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Bench
from worker.health import MAX_AGE_S, Heartbeat, is_healthy, main


def test_a_recent_heartbeat_is_healthy(tmp_path: Path) -> None:
    """A missing or an old one is not."""
    path = tmp_path / "heartbeat"
    assert not is_healthy(path, now_s=time.time())
    Heartbeat(path)()
    now_s = path.stat().st_mtime
    assert is_healthy(path, now_s=now_s + MAX_AGE_S)
    assert not is_healthy(path, now_s=now_s + MAX_AGE_S + 1)


def test_a_wrong_setting_is_unhealthy_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The health check prints one line and no traceback."""
    monkeypatch.delenv("TWOFOLD_QUEUE_URL", raising=False)
    assert main() == 1
    assert "TWOFOLD_QUEUE_URL" in capsys.readouterr().err


def test_a_heartbeat_that_cannot_be_written_does_not_stop_the_work(tmp_path: Path) -> None:
    """It is logged."""
    Heartbeat(tmp_path / "none" / "heartbeat")()
    Heartbeat(None)()


def test_a_worker_beats_while_it_waits_and_its_health_can_be_checked(
    ministack_bench: Bench, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the command that the container runs."""
    monkeypatch.setenv("TWOFOLD_QUEUE_URL", "q")
    monkeypatch.setenv("TWOFOLD_HEARTBEAT", str(tmp_path / "beat"))
    assert main() == 1
    ministack_bench.drain(TWOFOLD_MODEL_URI=ministack_bench.put_bundle(models))
    check = [sys.executable, "-m", "worker.health"]
    assert subprocess.run(check, cwd=REPOSITORY, check=False).returncode == 0
