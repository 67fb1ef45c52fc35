"""The worker as a zip that Lambda runs: its modules, and the libraries that it needs.

The same sources make the same bytes, so the zip's digest names it, and a stack changes only when the code does.
"""

import compileall
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Final, Literal

import jobs
import worker
from jobs.user_error import UserError

Architecture = Literal["arm64", "x86_64"]

#: Lambda's limit of the zip unpacked: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MAX_BYTES: Final = 250 * 1024 * 1024
#: Lambda's runtimes run on Amazon Linux 2023, with glibc 2.34, from Python 3.12 on; before, on one with glibc 2.26.
_FIRST_PYTHON: Final = (3, 12)
_PLATFORMS: Final[dict[Architecture, str]] = {"arm64": "aarch64-manylinux_2_34", "x86_64": "x86_64-manylinux_2_34"}
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  #: the first day a zip knows
_TASK_ROOT: Final = "/var/task"  #: where Lambda unpacks it


@dataclass(frozen=True)
class Package:
    """A zip, and the digest of its bytes."""

    body: bytes
    unpacked_bytes: int

    @property
    def sha256(self) -> str:
        """Hexadecimal."""
        return hashlib.sha256(self.body).hexdigest()


def infra(name: str) -> Path:
    """A file of ``infra/``, in a checkout or in the installed package. Raises UserError where it is in neither."""
    package = Path(jobs.__file__).parent
    places = (package.parent / "infra" / name, package / "infra" / name)
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise UserError(f"infra/{name} is not there: run this in a checkout of Twofold, or install it anew.")
    return found


def build(*, libraries: Architecture | None) -> Package:
    """The worker, with its libraries built for that architecture, or without any where the runtime has them.

    Raises UserError when the libraries cannot be had, or all together is too large for Lambda.
    """
    with tempfile.TemporaryDirectory(prefix="twofold-package-") as name:
        folder = Path(name)
        if libraries is not None:
            _install(folder, libraries)
        source = Path(worker.__file__).parent
        shutil.copytree(source, folder / "worker", ignore=shutil.ignore_patterns("__pycache__"))
        # Lambda's folder cannot be written to: without bytecode in it, each cold start would compile all sources anew.
        compileall.compile_dir(
            folder,
            quiet=2,
            stripdir=str(folder),
            prependdir=_TASK_ROOT,
            invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
            workers=1,
        )
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        unpacked_bytes = sum(path.stat().st_size for path in files)
        if unpacked_bytes > MAX_BYTES:
            raise UserError(
                f"The zip would unpack to {unpacked_bytes:,} bytes, over Lambda's {MAX_BYTES:,}: use the image."
            )
        return Package(_zip(folder, files), unpacked_bytes)


def _install(folder: Path, architecture: Architecture) -> None:
    uv = shutil.which("uv")
    if uv is None:
        raise UserError("uv is not there to fetch the worker's libraries with: pip install uv")
    if sys.version_info < _FIRST_PYTHON:  # the zip holds bytecode, which is of the Python that made it
        raise UserError("Lambda's runtime is too old for the libraries here: uv run --python 3.13 twofold cloud deploy")
    done = subprocess.run(
        [
            *(uv, "pip", "install", "--quiet", "--target", str(folder), "--require-hashes", "--only-binary", ":all:"),
            *("--python-platform", _PLATFORMS[architecture], "--python-version", python_version()),
            *("--requirements", str(infra("worker-requirements.txt"))),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise UserError(f"uv could not fetch the worker's libraries:\n{done.stderr.strip()[-2000:]}")
    shutil.rmtree(folder / "bin", ignore_errors=True)  # scripts that name this machine's Python


def python_version() -> str:
    """Of the runtime that the zip is for: this one, whose bytecode it holds."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _zip(folder: Path, files: list[Path]) -> bytes:
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in files:
                entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = (0o755 if os.access(path, os.X_OK) else 0o644) << 16
                archive.writestr(entry, path.read_bytes())
        file.seek(0)
        return file.read()
