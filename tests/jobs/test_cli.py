"""The ``twofold`` command as a whole."""

import subprocess
import sys

from tests.conftest import REPOSITORY

SCRIPT = """
import sys
from jobs.cli import main
for command in ("", "train run", "demo", "model promote"):
    try:
        main([*command.split(), "--help"])
    except SystemExit as ended:
        assert ended.code == 0
print(*sys.modules, file=sys.stderr)
"""


def test_help_loads_no_training_library() -> None:
    """It appears at once, and every command has an example."""
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.count("Example") == 3
    assert {"tensorflow", "sklearn", "scipy"} & set(done.stderr.split()) == set()
