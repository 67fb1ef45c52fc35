"""The optional libraries, and the extras of the distribution that install them."""

import json
from dataclasses import dataclass
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Final
from urllib.parse import unquote, urlsplit

from jobs.user_error import UserError


@dataclass(frozen=True)
class Extra:
    """An extra, as in ``pip install 'twofold[train]'``."""

    name: str
    need: str  #: what needs it, as a clause
    modules: tuple[str, ...]  #: that it installs, by the names that are imported


EXTRAS: Final = (
    Extra("cli", "the command line needs typer, rich and jinja2", ("typer", "rich", "jinja2")),
    Extra(
        "train",
        "training needs TensorFlow",
        ("tensorflow", "keras", "sklearn", "scipy", "h5py", "threadpoolctl"),
    ),
    Extra("local", "the local cloud needs ministack", ("ministack",)),
    Extra("parquet", "Parquet files need pyarrow", ("pyarrow",)),
)


def explain_missing(error: ModuleNotFoundError) -> str | None:
    """Returns what to install after a failed import; None if no extra installs the module."""
    module = (error.name or "").partition(".")[0]
    for extra in EXTRAS:
        if module in extra.modules:
            # Whoever promotes a model does not train, and needs SciPy all the same.
            need = f"promoting compares two models with {module}" if extra.name == "train" else extra.need
            return _sentence([need], [extra.name])
    return None


def require(*names: str) -> None:
    """Checks that the extras with these names are installed. Raises UserError that names all missing ones at once."""
    missing = [extra for extra in EXTRAS if extra.name in names and not all(map(find_spec, extra.modules))]
    if missing:
        raise UserError(_sentence([extra.need for extra in missing], [extra.name for extra in missing]))


def _sentence(needs: list[str], names: list[str]) -> str:
    """Returns one sentence with the command that installs the extras."""
    need = " and ".join(needs)
    them = "it" if len(names) == 1 else "them"
    return f"{need[0].upper()}{need[1:]}; install {them} with: {_install(','.join(names))}"


def _install(names: str) -> str:
    """Returns the command that installs extras from what there is: this checkout, or the wheel that is installed.

    Twofold is on no package index, and whoever takes its name there must not be asked.
    """
    root = Path(__file__).parent.parent
    if (root / "pyproject.toml").is_file():
        return "uv sync" if which("uv") else f"pip install -e '{root}[{names}]'"
    return f"pip install '{_wheel()}[{names}]'"


def _wheel() -> str:
    """Returns the path of the wheel that was installed, as pip and uv keep it, or its name."""
    found = distribution("twofold")
    try:
        url = urlsplit(json.loads(found.read_text("direct_url.json") or "{}").get("url", ""))
    except ValueError:
        url = urlsplit("")
    path = unquote(url.path)
    return path if url.scheme == "file" and Path(path).is_file() else f"twofold-{found.version}-py3-none-any.whl"
