"""The hashed requirements: on their own they install everything that runs."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from jobs.cloud import lean
from tests.conftest import REPOSITORY, Bench
from tests.pages import blocks
from tests.pythons import find_python

INFRA = REPOSITORY / "infra"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
NAMES = ("worker", "train", "train-gpu", "build")


def _pins(name: str) -> dict[str, str]:
    text = (INFRA / f"{name}-requirements.txt").read_text()
    return dict(re.findall(r"^([a-z0-9._-]+)==([^\s;\\]+)", text, re.MULTILINE))


@pytest.mark.parametrize("name", NAMES)
def test_every_package_has_hashes_and_no_index_is_named(name: str) -> None:
    """So pip rejects anything else that an index serves under that name."""
    text = (INFRA / f"{name}-requirements.txt").read_text()
    blocks = [block for block in re.split(r"\n(?=[a-z0-9])", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)) if block]
    assert len(blocks) == len(_pins(name)) > 0
    assert all("--hash=sha256:" in block for block in blocks)
    assert "--index" not in text.partition("-o ")[2]
    assert "://" not in text


@pytest.mark.slow
def test_the_commands_of_the_page_compile_exactly_these_files(tmp_path: Path) -> None:
    """An edit of pyproject.toml, or of a file by hand, would part them."""
    shutil.copytree(INFRA, tmp_path / "infra")
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    shutil.copy(REPOSITORY / "README.md", tmp_path)
    (commands,) = blocks("infra/README.md", "Images", "sh")
    own = os.environ | {"UV_PYTHON_DOWNLOADS": "never"}  # none is needed to resolve for another version
    done = subprocess.run(["sh", "-ec", commands], cwd=tmp_path, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in NAMES:
        made = (tmp_path / "infra" / f"{name}-requirements.txt").read_text()
        assert made == (INFRA / f"{name}-requirements.txt").read_text(), f"compile infra/{name}-requirements.txt again"


def test_no_file_has_a_package_that_is_only_for_older_versions_of_python() -> None:
    """Pip refuses to install it on the image's Python; uv installs it all the same."""
    assert [name for name in NAMES if "backports-strenum" in _pins(name)] == []


#: What each file is for, as the code that an image or its build starts.
STARTED = {
    "worker": "import awslambdaric, worker.__main__, worker.serverless, worker.scoring.litert",
    "train": "import jobs.container, jobs.train",
    "build": "import hatchling.build",
}


@pytest.fixture(scope="session")
def image_python() -> str:
    """A Python of the version of the images."""
    found = find_python("3.13")
    if found is None:
        pytest.skip("no Python 3.13 here (uv python install 3.13); tests/images installs the files with pip, too")
    return found


def _pip(image_python: str, folder: Path) -> list[str]:
    """Pip in a new virtual environment, as the Dockerfiles call it."""
    subprocess.run([image_python, "-m", "venv", str(folder)], check=True)
    return [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps"]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(STARTED))
def test_pip_installs_the_file_and_what_the_image_starts_can_be_imported(
    name: str, image_python: str, tmp_path: Path
) -> None:
    """Pip and not uv, hashes required, no package built here, on the Python of the images."""
    pip = _pip(image_python, tmp_path / "venv")
    file = str(INFRA / f"{name}-requirements.txt")
    subprocess.run([*pip, "--require-hashes", "--only-binary", ":all:", "--requirement", file], check=True)
    subprocess.run([*pip, str(REPOSITORY)], check=True)
    subprocess.run([pip[0], "-c", STARTED[name]], check=True, cwd=tmp_path)


def _requirements(extra: str) -> list[Requirement]:
    """Returns what an extra installs, including the extras that it names, such as twofold[cli]."""
    found = [Requirement(line) for line in PROJECT["optional-dependencies"][extra]]
    named = {name for one in found if one.name == PROJECT["name"] for name in one.extras}
    others = [one for one in found if one.name != PROJECT["name"]]
    return [*others, *(one for name in sorted(named) for one in _requirements(name))]


@pytest.mark.parametrize(("name", "extra"), [("worker", "lambda"), ("train", "train"), ("train-gpu", "gpu")])
def test_every_dependency_of_the_project_is_in_the_file(name: str, extra: str) -> None:
    """One that was added only to pyproject.toml would be missing from the image, and nowhere else."""
    wanted = [*map(Requirement, PROJECT["dependencies"]), *_requirements(extra)]
    pins = _pins(name)
    assert [r.name for r in wanted if r.name not in pins or not r.specifier.contains(pins[r.name])] == []


def test_a_worker_has_no_training_library() -> None:
    """Nor the command line's libraries, nor what only tests need."""
    training = {"tensorflow", "keras", "scikit-learn", "scipy", "h5py"}
    others = {"jinja2", "rich", "typer", "moto", "ministack", "pytest"}
    assert (training | others) & _pins("worker").keys() == set()


def test_the_gpu_image_holds_the_versions_that_are_tested_without_a_gpu() -> None:
    """The pins are the same, with CUDA's wheels added."""
    plain, gpu = _pins("train"), _pins("train-gpu")
    assert {name: gpu[name] for name in plain.keys() & gpu.keys()} == {
        name: plain[name] for name in plain.keys() & gpu.keys()
    }
    assert {"nvidia-cudnn-cu12", "nvidia-nccl-cu12"} <= gpu.keys() - plain.keys()
    assert gpu["tensorflow"] == plain["tensorflow"]


@pytest.mark.parametrize(("name", "other"), [("worker", "train"), ("worker", "train-gpu")])
def test_training_and_serving_use_the_same_decoder_and_arithmetic(name: str, other: str) -> None:
    """Pillow, numpy and LiteRT have the same version on both sides."""
    shared = ("pillow", "numpy", "ai-edge-litert", "pydantic", "obstore")
    assert [_pins(name)[package] for package in shared] == [_pins(other)[package] for package in shared]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_list_of_components_has_every_library_with_its_version_and_hashes(name: str, tmp_path: Path) -> None:
    """As CycloneDX, by the command of the page; a scanner looks up known weaknesses by its package URLs."""
    (text,) = blocks("worker/README.md", "Security", "sh")
    line = text.replace("\\\n", " ").replace("infra/worker-", f"infra/{name}-")
    *command, target = shlex.split(line)
    assert (command[-1], target) == ("-o", "worker.cdx.json")
    subprocess.run([*command, str(tmp_path / target)], cwd=REPOSITORY, check=True, capture_output=True)
    listed = json.loads((tmp_path / target).read_text())
    assert (listed["bomFormat"], listed["metadata"]["component"]["name"]) == ("CycloneDX", "twofold")
    components = listed["components"]
    assert {component["name"]: component["version"] for component in components} == _pins(name)
    assert all(c["purl"].startswith(f"pkg:pypi/{c['name']}@{c['version']}") for c in components)
    assert all(c["externalReferences"][0]["hashes"] for c in components)


def _environment(name: str, folder: Path, *, compiled: bool) -> Path:
    """Creates a virtual environment from the file and returns its Python. The image is ``compiled``, to bytecode."""
    uv = shutil.which("uv")
    assert uv, "uv is not installed: pip install uv"
    python = folder / "bin" / "python"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    install = [uv, "pip", "install", "--quiet", "--python", str(python), "--no-deps"]
    install += ["--compile-bytecode"] if compiled else []
    requirements = str(INFRA / f"{name}-requirements.txt")
    subprocess.run([*install, "--require-hashes", "--requirement", requirements], check=True)
    subprocess.run([*install, str(REPOSITORY)], check=True)
    return python


def _size_bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_symlink() and path.is_file())


def _seconds(*command: str, cwd: Path, **environment: str) -> float:
    started = time.monotonic()
    done = subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return time.monotonic() - started


@pytest.mark.slow
def test_the_workers_requirements_suffice_to_answer_a_message(
    ministack_bench: Bench, models: Path, digit_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without TensorFlow, and without the parts of its libraries that the image and the Lambda zip leave out."""
    bench = ministack_bench
    python = _environment("worker", tmp_path / "venv", compiled=True)
    lean.strip(next((tmp_path / "venv").glob("lib/python3*/site-packages")))
    size = _size_bytes(tmp_path / "venv" / "lib")
    image = bench.put("in/a.png", next(digit_images.rglob("*.png")).read_bytes())
    bench.send({"schema_version": 1, "job_id": "alone", "images": [image]})
    settings = {
        "TWOFOLD_QUEUE_URL": bench.queues.requests_url,
        "TWOFOLD_MODEL_URI": bench.put_bundle(models),
        "TWOFOLD_OUTPUT_URI": bench.output_uri,
    }
    import_s = _seconds(str(python), "-c", "import worker.__main__", cwd=tmp_path)
    row_s = _seconds(str(python), "-m", "worker", "--drain", cwd=tmp_path, **bench.environment | settings)
    assert [row.label in {"three", "eight"} for row in bench.rows("alone")] == [True]
    absent = subprocess.run([str(python), "-c", "import tensorflow"], check=False, capture_output=True, cwd=tmp_path)
    assert absent.returncode != 0
    assert size <= 150_000_000
    with capsys.disabled():
        print(f"\nworker: {size / 1e6:.0f} MB installed, import {import_s:.2f} s, start to drained {row_s:.2f} s")


@pytest.mark.slow
def test_the_training_requirements_suffice_to_train(
    digit_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The entry point of the image trains on a few images, with weights that need no download."""
    python = _environment("train", tmp_path / "venv", compiled=False)
    for folder in digit_images.iterdir():
        (tmp_path / "few" / folder.name).mkdir(parents=True)
        for image in sorted(folder.glob("*.png"))[:12]:
            shutil.copy(image, tmp_path / "few" / folder.name)
    options = ["--data", "few", "--output", "models", "--version", "v1", "--image-size", "32"]
    command = ("-m", "jobs.cli", "train", "submit", "--on", "here")  # which starts the entry point of the image
    train_s = _seconds(str(python), *command, *options, "--weights", "package", cwd=tmp_path)
    assert (tmp_path / "models/model/v1/model.json").is_file()
    with capsys.disabled():
        size = _size_bytes(tmp_path / "venv" / "lib")
        print(f"\ntrain: {size / 1e6:,.0f} MB installed, start to bundle {train_s:.1f} s")
