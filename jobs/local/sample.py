"""The sample: scikit-learn's digits as images, and a model trained on a folder of images."""

import os
import subprocess
import sys
from pathlib import Path

from jobs.extras import require
from jobs.progress import Reporter
from jobs.user_error import UserError


def render_digits(folder: Path, reporter: Reporter) -> None:
    """Writes handwritten digits, 3 and 8, as images to two class folders."""
    require("train")
    with reporter.step("Rendering scikit-learn's digits, 3 against 8"):
        from jobs.data import digits  # noqa: PLC0415 - scikit-learn takes a second, which a second start can skip

        digits.write_digits(folder)


def train_sample(
    images: Path, output: str, *options: str, name: str, environment: dict[str, str], reporter: Reporter
) -> None:
    """Trains the model ``name`` on ``images`` with ``twofold train run``, and writes its bundle to ``output``.

    It runs as a separate process, with ``environment`` added, and its progress goes straight to the terminal. Raises
    UserError if it fails.
    """
    command = ["train", "run", "--data", str(images), "--output", output, "--name", name, *options]
    reporter.say(f"twofold {' '.join(command)}")
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", *command],
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        raise UserError(f"Training ended with exit status {done.returncode}. The reason is printed above.")
