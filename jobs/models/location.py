"""The location of a model or of one of its versions, as you type it.

    s3://shelter/models                   the output: what you passed to training as --output
    s3://shelter/models/pets              a model: its versions and its champion.json
    s3://shelter/models/pets/20261124T…   a version of the model: a bundle

Local folders work the same way. A model or a version may also be named by its ``champion.json`` or ``model.json``.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from jobs.models.champion import Champions
from jobs.store import Store, open_store
from jobs.user_error import UserError
from jobs.wording import program
from worker.contract import nearest
from worker.scoring.models import CHAMPION_FILE, MANIFEST_FILE, MODEL_FILE

_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"  #: worker.contract.Name
#: ``NAME/VERSION/model.json``
BUNDLE: Final = re.compile(rf"({_NAME})/({_NAME})/{re.escape(MANIFEST_FILE)}")


@dataclass(frozen=True)
class ModelLocation:
    """A model, or one of its bundles if ``version`` is set."""

    store: Store  #: the output that holds the model
    name: str
    version: str | None

    def bundle(self) -> str:
        """Returns the version that is meant: the one named, otherwise the champion.

        Raises UserError if no version is named and the model has no champion.
        """
        if self.version is not None:
            return self.version
        champion = Champions(self.store, self.name).current()
        if champion is None:
            raise UserError(
                f"{self.store.uri}/{self.name} has no champion. "
                f"Name one of its versions: {', '.join(versions_of(self.store, self.name))}."
            )
        return champion.tenure.version


def find(where: str) -> ModelLocation:
    """Finds the model or version at ``where``. Raises UserError, with the next step, if there is none."""
    folder = without_file(where)
    parts = _split_last(folder)
    if parts is None:
        raise UserError(
            f"{where} does not name a model. Give OUTPUT/NAME or OUTPUT/NAME/VERSION, such as s3://shelter/models/pets."
        )
    parent, name = parts
    location = _version_at(parent, name) or _model_at(parent, name)
    if location is None:
        raise UserError(f"No model or version at {where}. {_hint(where, folder, parent)}")
    return location


def find_model(where: str) -> ModelLocation:
    """Finds the model or version at ``where``, or the only model there.

    Raises UserError, with the next step, if there is none or more than one.
    """
    try:
        return find(where)
    except UserError:
        only = _only_model(where)
        if only is None:
            raise
        return only


def find_bundle(where: str) -> ModelLocation:
    """Finds one version: the one at ``where``, or the champion of the model or of the only model there.

    Raises UserError, with the next step, if there is none or more than one.
    """
    location = find_model(where)
    return replace(location, version=location.bundle())


def versions_of(store: Store, name: str) -> list[str]:
    """Returns the versions of a model in alphabetical order."""
    return [match[2] for match in map(BUNDLE.fullmatch, store.names(f"{name}/")) if match]


def without_file(where: str) -> str:
    """``…/pets/champion.json`` and ``…/pets/`` -> ``…/pets``."""
    folder = where.rstrip("/")
    for file in (MANIFEST_FILE, CHAMPION_FILE):
        folder = folder.removesuffix(f"/{file}")
    return folder


def open_output(output: str) -> Store | None:
    """Opens an output that exists. Unlike training, it never creates a folder."""
    if output.startswith("s3:"):
        return open_store(output)
    return open_store(output) if Path(output).is_dir() else None


def near_folder(where: str) -> str | None:
    """Returns the folder on this machine that ``where`` is probably a misspelling of, written in the same way."""
    path = Path(where)
    if where.startswith("s3:") or not path.parent.is_dir():
        return None
    folders = (found.name for found in path.parent.iterdir() if found.is_dir() and not found.name.startswith("."))
    near = nearest(path.name, folders)
    return None if near in (None, path.name) else str(path.with_name(near))


def _hint(where: str, folder: str, parent: str) -> str:
    """Returns what to type instead of a place without a model: one that is nearly the same, or a list that has some."""
    if _model_names(where):
        return f"Run '{program()} model list {where.rstrip('/')}' to list those that exist."
    if near := near_folder(folder):
        return f"Did you mean {near}?"
    if _model_names(parent) or _is_model(parent):
        return f"Run '{program()} model list {parent}' to list those that exist."
    return (
        "Give OUTPUT/NAME or OUTPUT/NAME/VERSION, where OUTPUT is what you passed to training, "
        f"or run '{program()} model list OUTPUT'."
    )


def _is_model(folder: str) -> bool:
    parts = _split_last(folder)
    return parts is not None and _model_at(*parts) is not None


def _only_model(output: str) -> ModelLocation | None:
    store, names = open_output(output.rstrip("/")), _model_names(output)
    if store is None or not names:
        return None
    if len(names) > 1:
        where = f"{store.uri}/{names[0]}"
        raise UserError(f"{output} has {len(names)} models: {', '.join(names)}. Name one of them, such as {where}.")
    return ModelLocation(store, names[0], None)


def _model_names(output: str) -> list[str]:
    """Returns the names of the models in an output, without repetition; none if there is no such output."""
    store = open_output(output.rstrip("/"))
    return sorted({match[1] for match in map(BUNDLE.fullmatch, store.names("") if store else []) if match})


def _split_last(folder: str) -> tuple[str, str] | None:
    """``s3://shelter/models/pets`` -> ``("s3://shelter/models", "pets")``; a local folder likewise."""
    if folder.startswith("s3://"):
        parent, _, name = folder.rpartition("/")
    else:
        path = Path(folder)
        if not path.name:  # the folder that the command is run in
            path = path.absolute()
        parent, name = str(path.parent), path.name
    return (parent, name) if parent not in ("s3:/", "s3:") and re.fullmatch(_NAME, name) else None


def _model_at(output: str, name: str) -> ModelLocation | None:
    store = open_output(output)
    if store is None or (store.read(f"{name}/{CHAMPION_FILE}") is None and not versions_of(store, name)):
        return None
    return ModelLocation(store, name, None)


def _version_at(folder: str, version: str) -> ModelLocation | None:
    parts = _split_last(folder)
    store = open_output(parts[0]) if parts else None
    if parts is None or store is None:
        return None
    name = parts[1]
    if store.read(f"{name}/{version}/{MANIFEST_FILE}") is not None:
        return ModelLocation(store, name, version)
    if f"{name}/{version}/{MODEL_FILE}" in store.names(f"{name}/{version}/"):
        raise UserError(
            f"{folder}/{version} has no {MANIFEST_FILE}: it was removed, or the bundle was only partly written. "
            "Train the model again."
        )
    return None
