"""The optional libraries, and the extras of the distribution that install them."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from jobs.user_error import UserError


@dataclass(frozen=True)
class Extra:
    """An extra, as in ``pip install 'twofold[train]'``."""

    name: str
    need: str  #: a sentence on what needs it
    modules: tuple[str, ...]  #: that it installs, by the names that are imported


EXTRAS: Final = (
    Extra("cli", "The command line needs typer, rich and jinja2.", ("typer", "rich", "jinja2")),
    Extra(
        "train",
        "Training needs TensorFlow.",
        ("tensorflow", "keras", "sklearn", "scipy", "h5py", "threadpoolctl"),
    ),
    Extra("local", "The local cloud needs ministack.", ("ministack",)),
    Extra("parquet", "Parquet files need pyarrow.", ("pyarrow",)),
)


def explain_missing(error: ModuleNotFoundError) -> str | None:
    """Returns what to install after a failed import; None if no extra installs the module."""
    module = (error.name or "").partition(".")[0]
    return next((_message([extra]) for extra in EXTRAS if module in extra.modules), None)


def require(*names: str) -> None:
    """Checks that the extras with these names are installed. Raises UserError that names all missing ones at once."""
    missing = [extra for extra in EXTRAS if extra.name in names and not all(map(find_spec, extra.modules))]
    if missing:
        raise UserError(_message(missing))


def _message(missing: list[Extra]) -> str:
    needs = " ".join(extra.need for extra in missing)
    them = "it" if len(missing) == 1 else "them"
    return f"{needs} Install {them} with: pip install 'twofold[{','.join(extra.name for extra in missing)}]'"
