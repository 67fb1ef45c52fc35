"""The models under an output: which there are, and where one is.

    s3://shelter/models                   what training was given as --output
    s3://shelter/models/pets              a model: its versions and its champion.json
    s3://shelter/models/pets/20261124T…   a version of it: a bundle

Folders the same. A model or a version may also be named by its ``champion.json`` or ``model.json``.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from jobs.champion import Champions
from jobs.errors import UserError
from jobs.store import Store, open_store
from worker.contract import ModelManifest, explain
from worker.model import CHAMPION_FILE, MANIFEST_FILE, MODEL_FILE

_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"  #: worker.contract.Name
_BUNDLE: Final = re.compile(rf"({_NAME})/({_NAME})/{re.escape(MANIFEST_FILE)}")
_BUCKET: Final = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
#: Manifests read at the same time: each is one request of some milliseconds.
_READERS: Final = 16


@dataclass(frozen=True)
class Version:
    """A version of a model; ``problem`` says why there is no manifest where it cannot be read."""

    name: str
    version: str
    champion: bool
    manifest: ModelManifest | None
    problem: str | None = None


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
                f"{', '.join(_versions(self.store, self.name))}."
            )
        return champion.reign.version


def find(where: str) -> Place:
    """The model or version at ``where``. Raises UserError, with the next step, where there is none."""
    folder = _without_file(where)
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


def find_all(where: str) -> list[Version]:
    """Every version of every model of an output, or of one model; by name and age. Raises UserError for none."""
    folder = _without_file(where)
    store = _open(folder)
    if store is None:
        raise UserError(f"{where} is no folder. Give what training was given as --output.")
    found = [match.groups() for match in map(_BUNDLE.fullmatch, store.names("")) if match]
    if not found:
        try:
            place = find(where)
        except UserError:
            raise UserError(
                f"There are no models under {where}. Give what training was given as --output; "
                "to make one: twofold train run --help"
            ) from None
        store = place.store
        found = [(place.name, version) for version in _versions(store, place.name)]
    champions = {name: _champion(store, name) for name in {name for name, _ in found}}
    with ThreadPoolExecutor(_READERS) as pool:
        versions = pool.map(lambda both: _version(store, *both, champion=champions[both[0]] == both[1]), found)
        return sorted(versions, key=_by_age)


def read_manifest(store: Store, name: str, version: str) -> ModelManifest:
    """What ``model.json`` says. Raises UserError where it cannot be read or speaks of another bundle."""
    where = f"{store.uri}/{name}/{version}/{MANIFEST_FILE}"
    body = store.read(f"{name}/{version}/{MANIFEST_FILE}")
    if body is None:
        raise UserError(f"{where} is not there. To see what is: twofold model list {store.uri}/{name}")
    return parse_manifest(body, name=name, version=version, where=where)


def parse_manifest(body: bytes, *, name: str, version: str, where: str) -> ModelManifest:
    """The bytes of a ``model.json``, checked against the place it lies in; ``where`` is for messages."""
    try:
        manifest = ModelManifest.model_validate_json(body)
    except ValidationError as error:
        raise UserError(f"{where} is no model manifest: {explain(error)}") from None
    if (manifest.name, manifest.version) != (name, version):
        raise UserError(f"{where} is that of {manifest.name}/{manifest.version}: was it copied there?")
    return manifest


def _version(store: Store, name: str, version: str, *, champion: bool) -> Version:
    try:
        return Version(name, version, champion, read_manifest(store, name, version))
    except UserError as error:
        return Version(name, version, champion, None, str(error))


def _by_age(version: Version) -> tuple[str, float, str]:
    created = version.manifest.created_at.timestamp() if version.manifest else 0.0
    return version.name, created, version.version


def _champion(store: Store, name: str) -> str | None:
    try:
        champion = Champions(store, name).current()
    except UserError:
        return None
    return champion.reign.version if champion else None


def _model_at(output: str, name: str) -> Place | None:
    store = _open(output)
    if store is None or (store.read(f"{name}/{CHAMPION_FILE}") is None and not _versions(store, name)):
        return None
    return Place(store, name, None)


def _version_at(folder: str, version: str) -> Place | None:
    step = _step_up(folder)
    store = _open(step[0]) if step else None
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


def _versions(store: Store, name: str) -> list[str]:
    return [match[2] for match in map(_BUNDLE.fullmatch, store.names(f"{name}/")) if match]


def _without_file(where: str) -> str:
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


def _open(output: str) -> Store | None:
    """The store of an output that is there; unlike for training, no folder is made."""
    if output.startswith("s3://"):
        if not _BUCKET.fullmatch("/".join(output.split("/")[:3])):
            raise UserError(f"{output} is not of the form s3://bucket/prefix.")
        return open_store(output)
    return open_store(output) if Path(output).is_dir() else None
