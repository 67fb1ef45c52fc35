"""Where a model or one of its versions is, as a person types it.

    s3://shelter/models                   what training was given as --output
    s3://shelter/models/pets              a model: its versions and its champion.json
    s3://shelter/models/pets/20261124T…   a version of it: a bundle

Folders the same. A model or a version may also be named by its ``champion.json`` or ``model.json``.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jobs.models.champion import Champions
from jobs.store import Store, open_store
from jobs.user_error import UserError
from worker.scoring.models import CHAMPION_FILE, MANIFEST_FILE, MODEL_FILE
from worker.uris import is_bucket

_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"  #: worker.contract.Name
#: ``<name>/<version>/model.json``
BUNDLE: Final = re.compile(rf"({_NAME})/({_NAME})/{re.escape(MANIFEST_FILE)}")


@dataclass(frozen=True)
class Place:
    """A model, or with ``version`` one of its bundles."""

    store: Store  #: of the output
    name: str
    version: str | None

    def bundle(self) -> str:
        """The version meant: the one named, else the champion."""
        if self.version is not None:
            return self.version
        champion = Champions(self.store, self.name).current()
        if champion is None:
            raise UserError(
                f"{self.store.uri}/{self.name} has no champion: name a version, one of "
                f"{', '.join(versions_of(self.store, self.name))}."
            )
        return champion.reign.version


def find(where: str) -> Place:
    """The model or version at ``where``. Raises UserError, with the next step, where there is none."""
    folder = without_file(where)
    step = _step_up(folder)
    if step is None:
        raise UserError(
            f"{where} names no model: give <output>/<name> or <output>/<name>/<version>, "
            "such as s3://shelter/models/pets"
        )
    above, name = step
    place = _version_at(above, name) or _model_at(above, name)
    if place is None:
        raise UserError(
            f"There is no model and no version at {where}. To see what there is: twofold model list {above}"
        )
    return place


def versions_of(store: Store, name: str) -> list[str]:
    """The versions of a model, in alphabetical order."""
    return [match[2] for match in map(BUNDLE.fullmatch, store.names(f"{name}/")) if match]


def without_file(where: str) -> str:
    """``…/pets/champion.json`` and ``…/pets/`` -> ``…/pets``."""
    folder = where.rstrip("/")
    for file in (MANIFEST_FILE, CHAMPION_FILE):
        folder = folder.removesuffix(f"/{file}")
    return folder


def _step_up(folder: str) -> tuple[str, str] | None:
    """``s3://shelter/models/pets`` -> ``("s3://shelter/models", "pets")``; a folder of this machine the same."""
    if folder.startswith("s3://"):
        above, _, name = folder.rpartition("/")
    else:
        path = Path(folder).absolute()
        above, name = str(path.parent), path.name
    return (above, name) if above not in ("s3:/", "s3:") and re.fullmatch(_NAME, name) else None


def open_output(output: str) -> Store | None:
    """The store of an output that is there; unlike for training, no folder is made."""
    if output.startswith("s3:"):
        if not (output.startswith("s3://") and is_bucket(output.split("/")[2])):
            raise UserError(f"{output} is not of the form s3://bucket/prefix.")
        return open_store(output)
    return open_store(output) if Path(output).is_dir() else None


def _model_at(output: str, name: str) -> Place | None:
    store = open_output(output)
    if store is None or (store.read(f"{name}/{CHAMPION_FILE}") is None and not versions_of(store, name)):
        return None
    return Place(store, name, None)


def _version_at(folder: str, version: str) -> Place | None:
    step = _step_up(folder)
    store = open_output(step[0]) if step else None
    if step is None or store is None:
        return None
    name = step[1]
    if store.read(f"{name}/{version}/{MANIFEST_FILE}") is not None:
        return Place(store, name, version)
    if f"{name}/{version}/{MODEL_FILE}" in store.names(f"{name}/{version}/"):
        raise UserError(
            f"{folder}/{version} has no {MANIFEST_FILE}: it was removed, or writing the bundle broke off. "
            "Without it there is no bundle: train again."
        )
    return None
