"""The conventions of a training container: what Amazon SageMaker lays out, as options of ``twofold train run``.

    /opt/ml/input/config/hyperparameters.json    {"image-size": "224", "fine-tune": "30"}; also SM_HPS
    /opt/ml/input/data/<channel>/                also SM_CHANNEL_<CHANNEL>
    /opt/ml/model/                               also SM_MODEL_DIR
    /opt/ml/checkpoints/                         kept across spot interruptions
    /opt/ml/output/failure                       why it failed, for whoever asks SageMaker

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
from jobs.config import TrainConfig
from jobs.user_error import UserError
from worker.contract import explain

#: Where SageMaker's own toolkit looks for another place than /opt/ml.
BASE_DIR: Final = "SAGEMAKER_BASE_DIR"
#: Channels that hold all there is, and not one of the three splits.
_WHOLE: Final = ("training", "train")
_MAX_REASON: Final = 1024


def run(command: Callable[..., int], arguments: list[str], environment: Mapping[str, str]) -> int:
    """Runs ``python -m jobs.container``: ``twofold train run`` with the given options, or with those of SageMaker."""
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
    """SageMaker's folder."""
    return Path(environment.get(BASE_DIR) or "/opt/ml")


def is_here(environment: Mapping[str, str]) -> bool:
    """Whether SageMaker, or something that does as it does, started this process."""
    return "SM_HPS" in environment or (base_dir(environment) / "input/config/hyperparameters.json").is_file()


def options(environment: Mapping[str, str]) -> list[str]:
    """The options of ``twofold train run``; hyperparameters are named as these, and win.

    Raises UserError for a hyperparameter that is none of them, or has a value that cannot be.
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
        raise UserError(f"SageMaker's hyperparameters: {explain(error)}") from error
    return [f"--{name.replace('_', '-')}={value}" for name, value in chosen.items()]


def note_failure(environment: Mapping[str, str], reason: str) -> None:
    """Leaves the reason where SageMaker looks for it, if that can be written to: standard error has it too."""
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
        raise UserError(f"SageMaker's hyperparameters are no JSON object: {text or found!r:.200}")
    # What begins with "sagemaker_" is SageMaker's own.
    return {name: _plain(value) for name, value in found.items() if not name.startswith("sagemaker_")}


def _plain(value: object) -> object:
    """SageMaker's Python SDK packs each value into JSON once more: ``"max-f1"`` with its quotation marks."""
    if isinstance(value, str) and value.startswith('"'):
        with contextlib.suppress(ValueError):
            return json.loads(value)
    return value


def _data(environment: Mapping[str, str], base: Path) -> Path:
    """The folder of the one channel there is; or the folder that holds ``train``, ``validation`` and ``test``."""
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
    raise UserError(f"Expected one channel, {' or '.join(_WHOLE)}, or train with validation and test; found: {found}.")


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:], os.environ))
