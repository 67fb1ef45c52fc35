"""The straight way of the README, typed as it is written: from photos in folders to a table."""

import csv
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.jobs.local.test_playground import assert_ended, family_of, free_port
from tests.pages import blocks
from tests.terminal import Terminal

PAGE: Final = "README.md"
TITLE: Final = "Your photos, sorted"


def arguments(command: str) -> list[str]:
    """Returns what follows ``uv run twofold`` in a line of a page."""
    words = shlex.split(command, comments=True)
    assert words[:3] == ["uv", "run", "twofold"]
    return words[3:]


def walk(twofold: Path, images: Path, folder: Path) -> list[dict[str, str]]:
    """Types the four commands in ``folder`` with an installed ``twofold``, and returns the rows of the table.

    ``images`` become ``pets/`` and, in one folder without their classes, ``photos/``.
    """
    (train, serve), (submit, results), _ = (block.splitlines() for block in blocks(PAGE, TITLE, "sh"))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS", "PYTHON", "TWOFOLD"))}
    shutil.copytree(images, folder / "pets")
    (folder / "photos").mkdir()
    for path in images.rglob("*.png"):
        shutil.copy(path, folder / "photos" / f"{path.parent.name}-{path.name}")

    def type_in(command: str) -> None:
        words = [str(twofold), *arguments(command)]
        done = subprocess.run(words, cwd=folder, env=clean, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stdout, done.stderr)

    type_in(train)
    serving = [str(twofold), *arguments(serve), "--port", str(free_port())]
    with Terminal(serving, cwd=folder, env=clean) as local:
        local.wait_for("Write these settings to twofold.toml?")
        local.type("y\n")
        local.wait_for("Type in another terminal, in this folder:")
        for command in (submit, results):
            type_in(command)
        family = family_of(local.process)
        local.press_ctrl_c()
        assert local.process.wait(60) == 0
        assert_ended(family)
    with (folder / "june.csv").open(newline="", encoding="utf-8") as table:
        return list(csv.DictReader(table))


def assert_sorted(rows: list[dict[str, str]], images: Path) -> None:
    """Checks that each photo has one row under its file name, and at least 97 in 100 the right class."""
    assert sorted(row["file"] for row in rows) == sorted(
        f"{path.parent.name}-{path.name}" for path in images.rglob("*.png")
    )
    right = sum(row["file"].startswith(f"{row['label']}-") for row in rows)
    assert right / len(rows) >= 0.97
