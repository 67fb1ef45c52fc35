"""The models under an output: their versions, and the manifest and evaluation of each."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from jobs.models.champion import Champions
from jobs.models.location import BUNDLE, find, near_folder, open_output, versions_of, without_file
from jobs.store import Store
from jobs.user_error import UserError
from jobs.wording import program
from worker.contract import ModelManifest
from worker.errors import Reject
from worker.scoring.models import MANIFEST_FILE

EVALUATION_FILE: Final = "evaluation.json"

#: Manifests that are read at the same time. Each is one request of a few milliseconds.
_READERS: Final = 16


@dataclass(frozen=True)
class ModelVersion:
    """A version of a model. If its manifest cannot be read, ``problem`` says why."""

    name: str
    version: str
    champion: bool
    manifest: ModelManifest | None
    problem: str | None = None


def find_all(where: str) -> list[ModelVersion]:
    """Lists every version of every model of an output, or of one model, by name and then by age.

    Raises UserError if there is none.
    """
    folder = without_file(where)
    store = open_output(folder)
    if store is None:
        near = near_folder(folder)
        hint = f"Did you mean {near}?" if near else "Give what you passed to training as --output."
        raise UserError(f"{where} is not a folder. {hint}")
    found = [match.groups() for match in map(BUNDLE.fullmatch, store.names("")) if match]
    if not found:
        try:
            location = find(where)
        except UserError:
            raise UserError(
                f"No models under {where}. Give what you passed to training as --output. "
                f"Run '{program()} train run --help' to see how to train one."
            ) from None
        store = location.store
        found = [(location.name, version) for version in versions_of(store, location.name)]
    champions = {name: _champion(store, name) for name in {name for name, _ in found}}
    with ThreadPoolExecutor(_READERS) as pool:
        versions = pool.map(lambda both: _version(store, *both, champion=champions[both[0]] == both[1]), found)
        return sorted(versions, key=_by_age)


def read_manifest(store: Store, name: str, version: str) -> ModelManifest:
    """Reads a version's ``model.json``. Raises UserError if it cannot be read or describes another bundle."""
    where = f"{store.uri}/{name}/{version}/{MANIFEST_FILE}"
    body = store.read(f"{name}/{version}/{MANIFEST_FILE}")
    if body is None:
        raise UserError(
            f"{where} does not exist. Run '{program()} model list {store.uri}/{name}' to list the versions."
        )
    return parse_manifest(body, name=name, version=version, where=where)


def read_evaluation(store: Store, name: str, version: str) -> dict[str, Any]:
    """Reads a version's ``evaluation.json``. Raises UserError if it cannot be read."""
    file = f"{name}/{version}/{EVALUATION_FILE}"
    try:
        evaluation = json.loads(store.read(file) or b"")
    except (ValueError, RecursionError):
        evaluation = None
    if not isinstance(evaluation, dict):
        raise UserError(
            f"{store.uri}/{file} is missing or not a JSON object. "
            f"Run '{program()} model verify {store.uri}/{name}/{version}' to check the entire bundle."
        )
    return evaluation


def parse_manifest(body: bytes, *, name: str, version: str, where: str) -> ModelManifest:
    """Parses a ``model.json`` and checks that it belongs where it was found; ``where`` appears in messages."""
    try:
        manifest = ModelManifest.parse(body)
    except ValueError as error:
        raise UserError(f"{where} cannot be read as a model.json: {error}") from None
    if (manifest.name, manifest.version) != (name, version):
        raise UserError(f"{where} describes {manifest.name}/{manifest.version}: was the bundle copied?")
    return manifest


def _version(store: Store, name: str, version: str, *, champion: bool) -> ModelVersion:
    try:
        return ModelVersion(name, version, champion, read_manifest(store, name, version))
    except (UserError, Reject) as error:
        return ModelVersion(name, version, champion, None, str(error))


def _by_age(version: ModelVersion) -> tuple[str, float, str]:
    created = version.manifest.created_at.timestamp() if version.manifest else 0.0
    return version.name, created, version.version


def _champion(store: Store, name: str) -> str | None:
    try:
        champion = Champions(store, name).current()
    except UserError:
        return None
    return champion.tenure.version if champion else None
