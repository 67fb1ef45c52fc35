"""Other versions of Python on this machine, for tests of what is installed elsewhere."""

import os
import shutil
import subprocess
from pathlib import Path


def find_python(version: str) -> str | None:
    """Returns the interpreter of a minor version such as ``3.13`` that starts, or None. None is downloaded."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [shutil.which(f"python{version}"), *map(str, sorted(versions.glob(f"{version}.*/bin/python")))]
    managed = Path.home() / ".local/share/uv/python"
    found += map(str, sorted(managed.glob(f"cpython-{version}.*/bin/python{version}")))
    for python in filter(None, found):  # the first may be pyenv's, which refuses to start
        if subprocess.run([python, "--version"], capture_output=True, check=False).returncode == 0:
            return python
    return None
