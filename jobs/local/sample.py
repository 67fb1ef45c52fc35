"""The models of ``twofold local`` and ``twofold demo``: trained on your images, or on scikit-learn's digits."""

import json
import shlex
import subprocess
from pathlib import Path
from typing import Final

from jobs.config import TrainConfig
from jobs.extras import require
from jobs.local import tether
from jobs.models.location import versions_of
from jobs.models.registry import read_manifest
from jobs.progress import Reporter
from jobs.signals import if_stopped
from jobs.store import open_store
from jobs.user_error import UserError
from jobs.wording import program

#: The options that do not change what a model learns.
_PLACES: Final = {"data", "output", "name", "version"}
#: What a job saves is complete or not there, so it need not be asked first.
_STOP_S: Final = 1
#: The exit statuses of a command that has printed why: see ``jobs.cli``.
_WITH_REASON: Final = {1, 2}


def train_on(config: TrainConfig, *, environment: dict[str, str], reporter: Reporter) -> str:
    """Trains a model as ``config`` says, unless a version has the same images and options. Returns its bundle's URI."""
    require("train")
    with reporter.step("Loading the libraries"):
        from jobs.data.prepare import open_dataset  # noqa: PLC0415 - scikit-learn takes a second

    known = _trained_before(config, open_dataset(config, reporter).digest)
    if known is not None:
        reporter.say(f"Version {known} was trained with the same images and options.")
        return f"{config.output}/{config.name}/{known}"
    options = config.options(exclude=_PLACES)
    uri = train_sample(
        config.sources, config.output, *options, name=config.name, environment=environment, reporter=reporter
    )
    reporter.say(f"The report on this model is at {uri}/report.html")
    return uri


def _trained_before(config: TrainConfig, digest: str) -> str | None:
    """Returns the latest version that was trained on these images with these options."""
    store = open_store(config.output)
    wanted = config.model_dump(mode="json", exclude=_PLACES)
    for version in reversed(versions_of(store, config.name)):
        manifest = read_manifest(store, config.name, version)
        options = {name: value for name, value in manifest.training_config.items() if name not in _PLACES}
        if (manifest.dataset_digest, options) == (digest, wanted):
            return version
    return None


def render_digits(folder: Path, reporter: Reporter) -> None:
    """Writes handwritten digits, 3 and 8, as images to two class folders."""
    require("train")
    with reporter.step("Rendering scikit-learn's digits: three and eight"):
        from jobs.data import digits  # noqa: PLC0415 - scikit-learn takes a second, which a second start can skip

        digits.write_digits(folder)


def train_sample(
    images: Path | str | tuple[str, ...],
    output: str,
    *options: str,
    name: str,
    environment: dict[str, str],
    reporter: Reporter,
    folder: Path | None = None,
) -> str:
    """Trains the model ``name`` on ``images`` with ``twofold train run``, and returns the URI of its bundle.

    It runs as a separate process with this ``environment``, in ``folder`` or else in that of this process: the settings
    of a folder apply to what runs in it. Its progress goes straight to the terminal, and so does
    the reason if it fails: that raises SystemExit with its status. Raises UserError if it ends without a reason.
    """
    sources = images if isinstance(images, tuple) else (str(images),)
    data = [part for source in sources for part in ("--data", source)]
    command = ["train", "run", *data, "--output", output, "--name", name, *options]
    reporter.say(f"Running {program()} {shlex.join(command)}")
    process = tether.start(
        "jobs.cli",
        *command,
        "--json",
        "--any-classes",
        environment=environment,
        stdout=subprocess.PIPE,
        folder=folder,
    )
    try:
        with if_stopped("The training has stopped. What it finished is saved: run the same command again to go on."):
            printed = process.stdout.read() if process.stdout else b""
            status = process.wait()
    finally:
        tether.end(process, within_s=_STOP_S)
    if status in _WITH_REASON:
        raise SystemExit(status)  # an error here would be a second one
    if status:
        raise UserError(f"Training ended with exit status {status}.")
    return str(json.loads(printed)["uri"])
