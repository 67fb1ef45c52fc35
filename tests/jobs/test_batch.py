"""``twofold batch``: a folder or a list in, a table out, over real queues and buckets."""

import csv
import io
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.cli import main
from tests.conftest import Bench

Twofold = Callable[..., tuple[int, str]]


@pytest.fixture
def model(ministack_bench: Bench, models: Path) -> str:
    return ministack_bench.put_bundle(models)


@pytest.fixture
def twofold(
    ministack_bench: Bench, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Twofold:
    """The command, in this process: its exit status, and what it wrote to standard output."""
    bench = ministack_bench
    settings = {"QUEUE_URL": bench.queues.requests_url, "OUTPUT_URI": bench.output_uri, "MODEL_URI": model}
    for name, value in (bench.environment | {f"TWOFOLD_{key}": value for key, value in settings.items()}).items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        before = signal.getsignal(signal.SIGTERM)
        try:
            status = main(["batch", *arguments])
        except SystemExit as error:
            status = int(error.code or 0)
        finally:
            signal.signal(signal.SIGTERM, before)
        said = capsys.readouterr()
        return status, said.out if status == 0 else said.out + said.err

    return run


def _folder(digit_images: Path, tmp_path: Path, count: int) -> Path:
    """A folder with so many pictures, one of them damaged."""
    folder = tmp_path / "photos"
    (folder / "deep down").mkdir(parents=True)
    for number, path in enumerate(sorted(digit_images.rglob("*.png"))[:: 300 // count][:count]):
        shutil.copy(path, folder / ("deep down" if number % 2 else "") / f"{number:03} é+%.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n, and then nothing")
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


def _table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))


def test_a_folder_becomes_a_table_and_what_failed_is_mended(
    ministack_bench: Bench, twofold: Twofold, digit_images: Path, tmp_path: Path
) -> None:
    """Submit, worker, status, results; then the damaged file is put right, redriven, and in its place."""
    folder = _folder(digit_images, tmp_path, 10)
    status, said = twofold("submit", str(folder), "--json")
    assert status == 0, said
    job_id = json.loads(said)["job_id"]
    assert job_id.startswith("photos-")
    assert json.loads(twofold("status", job_id, "--json")[1])["state"] == "running"
    ministack_bench.drain()
    standing = json.loads(twofold("status", job_id, "--json")[1])
    assert (standing["state"], standing["scored"], standing["failed"]) == ("complete", 10, 1)
    assert standing["errors"] == {"damaged": 1}

    out = tmp_path / "out.csv"
    status, said = twofold("results", job_id, "--join", "-o", str(out))
    assert "11 rows = 10 scored + 1 with an error code" in said
    rows = _table(out)
    assert [row["file"] for row in rows] == sorted(row["file"] for row in rows)
    assert {row["file"] for row in rows if row["error_code"]} == {"broken.png"}

    shutil.copy(next(digit_images.rglob("*.png")), folder / "broken.png")
    status, said = twofold("redrive", job_id, "--json")
    assert json.loads(said) == {"job_id": job_id, "images": 1, "redrive_id": f"{job_id}-r1", "requests": 0}
    ministack_bench.drain()
    twofold("results", job_id, "--join", "-o", str(out))
    mended = _table(out)
    assert [row["error_code"] for row in mended] == [""] * 11
    assert [row["file"] for row in mended] == [row["file"] for row in rows]
    assert [row["row"] for row in mended] == [str(number) for number in range(11)]
    assert twofold("redrive", job_id)[1] == f"Nothing of {job_id} has failed.\n"
