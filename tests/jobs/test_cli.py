"""The ``twofold`` command as a whole."""

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.cli import main
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
    assert done.stdout.count("Example") == 4
    assert {"tensorflow", "sklearn", "scipy"} & set(done.stderr.split()) == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ("model", "list", "https://host/models?X-Amz-Signature=5ec7e7"),
        ("model", "show", "https://host/models/pets?X-Amz-Signature=5ec7e7"),
        ("train", "run", "--data", "ftp://host/\x1b[2J.zip?X-Amz-Signature=5ec7e7", "--output", "models"),
        ("train", "run", "--data", ".", "--output", "o", "--threshold", "https://host/?X-Amz-Signature=5ec7e7"),
    ],
    ids=["list", "show", "data", "threshold"],
)
def test_no_error_shows_a_signature_or_a_control_character(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever command it is given to: messages end up in logs, and a terminal acts on control characters."""
    monkeypatch.chdir(tmp_path)
    reasons: list[str] = []
    assert main(list(arguments), on_error=reasons.append) > 0
    printed = "".join([*capsys.readouterr(), *reasons])
    assert "://host/" in printed
    assert ("5ec7e7" in printed, "\x1b" in printed) == (False, False)
