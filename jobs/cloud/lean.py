"""What the worker's libraries bring and a worker never opens, which the Lambda zip and the image leave out.

    python -m jobs.cloud.lean SITE_PACKAGES

This changes the folder for good. It is meant for copies of the libraries that only a worker uses.
"""

import shutil
import sys
from pathlib import Path
from typing import Final

#: Patterns of files and folders, relative to the libraries, and the reason why the worker does not need them.
UNUSED: Final = {
    "ai_edge_litert/libLiteRtWebGpuAccelerator.so": "runs graphs on a graphics card",
    "ai_edge_litert/libLiteRt.so": "runs a CompiledModel; the interpreter has a runtime of its own",
    "ai_edge_litert/aot": "compiles graphs for the accelerators of phones",
    "ai_edge_litert/tools": "compiles graphs for the accelerators of phones",
    "ai_edge_litert/vendors": "drivers of the accelerators of phones",
    "boto3/data": "boto3's resources; the worker uses clients",
    "numpy/f2py": "compiles Fortran",
    "numpy/_core/include": "for compiling extensions",
    "**/*.a": "for compiling extensions",
    "**/*.pyi": "for type checkers",
    "**/tests": "the tests of numpy and simplejson",
}
#: AWS services with a client in the worker, and those that botocore's credentials can come from. Botocore describes
#: more than 400 services, which take 27 MB.
SERVICES: Final = frozenset({"events", "s3", "signin", "sns", "sqs", "sso", "sso-oidc", "sts"})


def strip(libraries: Path) -> int:
    """Removes from the folder what a worker does not use, and returns how many bytes that were."""
    unused = {path for pattern in UNUSED for path in libraries.glob(pattern)}
    unused |= {path for path in libraries.glob("botocore/data/*/") if path.name not in SERVICES}
    return sum(_remove(path) for path in unused)


def _remove(path: Path) -> int:
    """Removes a file or a folder, which may be gone with a folder above it. Returns its size in bytes."""
    files = [file for file in (path, *path.rglob("*")) if file.is_file()]
    removed = sum(file.lstat().st_size for file in files)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    return removed


if __name__ == "__main__":
    print(f"Removed {strip(Path(sys.argv[1])) / 1e6:.0f} MB that a worker does not use.")
