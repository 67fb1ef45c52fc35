"""The worker as a zip for Lambda: its modules, and the libraries that it needs.

The same sources always make the same bytes. The zip is named by its digest, so a stack changes only when the code does.
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
from jobs.cloud import lean
from jobs.user_error import UserError

Architecture = Literal["arm64", "x86_64"]

#: Lambda's limit for the unpacked zip: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MAX_BYTES: Final = 250 * 1024 * 1024
#: From Python 3.12, Lambda's runtimes are based on Amazon Linux 2023 with glibc 2.34; older ones have glibc 2.26.
_FIRST_PYTHON: Final = (3, 12)
_PLATFORMS: Final[dict[Architecture, str]] = {"arm64": "aarch64-manylinux_2_34", "x86_64": "x86_64-manylinux_2_34"}
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  #: the earliest time that a zip can hold
_TASK_ROOT: Final = "/var/task"  #: where Lambda unpacks the zip


@dataclass(frozen=True)
class WorkerZip:
    """A zip of the worker."""

    body: bytes
    unpacked_bytes: int

    @property
    def sha256(self) -> str:
        """The digest of the zip, in hexadecimal."""
        return hashlib.sha256(self.body).hexdigest()


def infra(name: str) -> Path:
    """Finds a file of ``infra/`` in a checkout or in the installed package. Raises UserError if it is in neither."""
    package = Path(jobs.__file__).parent
    candidates = (package.parent / "infra" / name, package / "infra" / name)
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise UserError(f"infra/{name} is missing. Run this in a checkout of Twofold, or reinstall the package.")
    return found


def build(*, libraries: Architecture | None) -> WorkerZip:
    """Builds the zip with libraries for the given architecture, or without any if the runtime has them.

    Raises UserError if the libraries cannot be downloaded or the zip is too large for Lambda.
    """
    with tempfile.TemporaryDirectory(prefix="twofold-package-") as name:
        folder = Path(name)
        if libraries is not None:
            _install(folder, libraries)
        source = Path(worker.__file__).parent
        shutil.copytree(source, folder / "worker", ignore=shutil.ignore_patterns("__pycache__"))
        # Lambda's folder is read-only. Without bytecode in the zip, every cold start would compile all sources.
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
                f"The zip would unpack to {unpacked_bytes:,} bytes, more than Lambda's {MAX_BYTES:,}. Use the image."
            )
        return WorkerZip(_zip(folder, files), unpacked_bytes)


def _install(folder: Path, architecture: Architecture) -> None:
    uv = shutil.which("uv")
    if uv is None:
        raise UserError("Fetching the worker's libraries needs uv. Install it with: pip install uv")
    if sys.version_info < _FIRST_PYTHON:  # the zip holds bytecode, which only this version of Python can load
        raise UserError(
            "Lambda's runtime for this Python is too old for the libraries. "
            "Run 'uv run --python 3.13 twofold cloud deploy' instead."
        )
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
    shutil.rmtree(folder / "bin", ignore_errors=True)  # scripts with the path of this machine's Python
    lean.strip(folder)


def python_version() -> str:
    """Returns the version of the runtime that the zip is for: the running one, because the zip holds its bytecode."""
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
