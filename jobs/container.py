"""The training container: ``python -m jobs.container`` turns the layout of Amazon SageMaker into options.

    /opt/ml/input/config/hyperparameters.json    {"image-size": "224", "fine-tune": "30"}, or SM_HPS
    /opt/ml/input/data/<channel>/                or SM_CHANNEL_<CHANNEL>
    /opt/ml/model/                               or SM_MODEL_DIR
    /opt/ml/checkpoints/                         kept when a Spot instance is interrupted
    /opt/ml/output/failure                       the reason for a failure, which SageMaker shows

https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from jobs.cli import main
from jobs.config import TrainConfig, explain_options
from jobs.user_error import UserError

#: The variable that SageMaker's own toolkit uses for another folder than /opt/ml.
BASE_DIR: Final = "SAGEMAKER_BASE_DIR"
#: Usual names of a channel that holds the complete dataset.
_CHANNELS: Final = ("training", "train")
#: SageMaker returns the first 1,024 characters as the reason.
_MAX_REASON: Final = 1024


def run(command: Callable[..., int], arguments: list[str], environment: Mapping[str, str]) -> int:
    """Runs ``twofold train run`` with the given options, or with those of SageMaker if there are none.

    Returns the exit status.
    """
    if arguments not in ([], ["train"]) or not is_here(environment):
        return command(["train", "run", *arguments])
    try:
        given = options(environment)
        return command(["train", "run", *given], on_error=lambda reason: note_failure(environment, reason))
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        note_failure(environment, str(error))
        return 2
    except Exception as error:
        note_failure(environment, f"{type(error).__name__}: {error}")
        raise


def base_dir(environment: Mapping[str, str]) -> Path:
    """Returns SageMaker's folder."""
    return Path(environment.get(BASE_DIR) or "/opt/ml")


def is_here(environment: Mapping[str, str]) -> bool:
    """Whether SageMaker, or something compatible with it, started this process."""
    return "SM_HPS" in environment or (base_dir(environment) / "input/config/hyperparameters.json").is_file()


def options(environment: Mapping[str, str]) -> list[str]:
    """Returns the options of ``twofold train run``. A hyperparameter of the same name overrides the layout.

    Raises UserError for a hyperparameter that is not an option, or has an invalid value.
    """
    base = base_dir(environment)
    chosen = {
        "output": environment.get("SM_MODEL_DIR") or str(base / "model"),
        "checkpoint": str(base / "checkpoints"),
        **{name.replace("-", "_"): value for name, value in _hyperparameters(environment, base).items()},
    }
    if "data" not in chosen:
        chosen["data"] = str(_data(environment, base))
    try:
        TrainConfig.model_validate(chosen)
    except ValidationError as error:
        raise UserError(f"SageMaker's hyperparameters: {explain_options(error, dashes='')}") from error
    return [
        f"--{name.replace('_', '-')}={one}"
        for name, value in chosen.items()
        for one in (value if isinstance(value, list) else [value])
    ]


def note_failure(environment: Mapping[str, str], reason: str) -> None:
    """Writes the reason to where SageMaker looks for it, if possible. It is also on standard error."""
    path = base_dir(environment) / "output/failure"
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(reason[:_MAX_REASON], encoding="utf-8")


def _hyperparameters(environment: Mapping[str, str], base: Path) -> dict[str, Any]:
    text = environment.get("SM_HPS")
    try:
        found = json.loads(text or (base / "input/config/hyperparameters.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"SageMaker's hyperparameters cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"SageMaker's hyperparameters are not a JSON object: {text or found!r:.200}")
    # Names that begin with "sagemaker_" are SageMaker's own.
    return {name: _plain(value) for name, value in found.items() if not name.startswith("sagemaker_")}


def _plain(value: object) -> object:
    """Decodes a value that is JSON once more: ``"max-f1"`` as SageMaker's Python SDK writes it, or several sources."""
    if isinstance(value, str) and value.startswith(('"', '["')):
        with contextlib.suppress(ValueError):
            return json.loads(value)
    return value


def _data(environment: Mapping[str, str], base: Path) -> Path:
    """Returns the folder of a single channel, or the folder that holds ``train``, ``validation`` and ``test``."""
    prefix = "SM_CHANNEL_"
    channels = {
        name.removeprefix(prefix).lower(): Path(p) for name, p in environment.items() if name.startswith(prefix)
    }
    folder = base / "input/data"
    if not channels and folder.is_dir():
        channels = {entry.name: entry for entry in folder.iterdir() if entry.is_dir()}
    if len(channels) == 1:
        return next(iter(channels.values()))
    if "train" in channels and set(channels) <= {"train", "validation", "test"}:
        parents = {path.parent for path in channels.values()}
        if len(parents) == 1:
            return parents.pop()
    found = ", ".join(sorted(channels)) or "none"
    raise UserError(
        f"Expected one channel, {' or '.join(_CHANNELS)}, or train with validation and test. Found: {found}."
    )


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:], os.environ))
