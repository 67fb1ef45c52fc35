"""The worker's libraries without what a worker never opens."""

import os
import shutil
import sysconfig
from pathlib import Path

import pytest

from jobs.cloud import lambda_zip, lean
from tests.conftest import Bench

LIBRARIES = Path(sysconfig.get_path("purelib"))
#: Those that something is removed from, with the shared libraries beside them.
CHANGED = ("ai_edge_litert", "boto3", "botocore", "numpy", "numpy.libs")


def _link(source: str, target: str) -> None:
    """As a hard link, which takes no time and no space, where the file system allows one."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """A folder with copies of these libraries."""
    for name in CHANGED:
        if (LIBRARIES / name).is_dir():
            shutil.copytree(LIBRARIES / name, tmp_path / "copies" / name, copy_function=_link)
    return tmp_path / "copies"


def test_a_worker_scores_a_picture_without_what_is_left_out(
    copies: Path, ministack_bench: Bench, models: Path, digit_images: Path
) -> None:
    """LiteRT's accelerators, botocore's other services, and what is only for building: a quarter of all libraries."""
    bench = ministack_bench
    removed = lean.strip(copies)
    assert removed > 25_000_000
    assert not list(copies.glob("ai_edge_litert/*Accelerator*"))
    assert {path.name for path in copies.glob("botocore/data/*/")} == lean.SERVICES
    image = bench.put("in/a.png", next(digit_images.rglob("*.png")).read_bytes())
    bench.send({"schema_version": 1, "job_id": "lean", "images": [image]})
    bench.drain(PYTHONPATH=str(copies), TWOFOLD_MODEL_URI=bench.put_bundle(models))
    assert [row.label in {"three", "eight"} for row in bench.rows("lean")] == [True]


def test_the_libraries_of_a_person_are_left_alone(copies: Path) -> None:
    """Only the copy changes, and a second time removes nothing."""
    before = sorted(LIBRARIES.glob("ai_edge_litert/*"))
    lean.strip(copies)
    assert lean.strip(copies) == 0
    assert sorted(LIBRARIES.glob("ai_edge_litert/*")) == before


@pytest.mark.parametrize("pattern", sorted(set(lean.UNUSED) - {"**/tests"}))
def test_each_pattern_still_removes_something(pattern: str) -> None:
    """A library that renames a part brings it back into the zip, and nobody would notice."""
    if pattern.startswith("ai_edge_litert/") and sysconfig.get_platform() != "linux-x86_64":
        pytest.skip("LiteRT's wheels for other machines have fewer parts")
    assert next(LIBRARIES.glob(pattern), None), f"nothing matches {pattern}: does the library still have it?"


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["arm64", "x86_64"])
def test_the_zip_unpacks_to_less_than_150_mb(
    architecture: lambda_zip.Architecture, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lambda allows 250 MiB, and loads what it starts with from there."""
    monkeypatch.setattr(lambda_zip, "_FIRST_PYTHON", (3, 11))  # the wheels of any version have the same sizes
    packed = lambda_zip.build(libraries=architecture)
    with capsys.disabled():
        print(f"\nzip for {architecture}: {len(packed.body) / 1e6:.0f} MB, unpacked {packed.unpacked_bytes / 1e6:.0f}")
    assert packed.unpacked_bytes <= 150_000_000
