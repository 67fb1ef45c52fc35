"""The models under an output: which versions there are, and what each says of itself."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from jobs.models.champion import Champions
from jobs.models.location import BUNDLE, find, open_output, versions_of, without_file
from jobs.store import Store
from jobs.user_error import UserError
from worker.contract import ModelManifest, explain
from worker.errors import Reject
from worker.scoring.models import MANIFEST_FILE

EVALUATION_FILE: Final = "evaluation.json"

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


def find_all(where: str) -> list[Version]:
    """Every version of every model of an output, or of one model; by name and age. Raises UserError for none."""
    folder = without_file(where)
    store = open_output(folder)
    if store is None:
        raise UserError(f"{where} is no folder. Give what training was given as --output.")
    found = [match.groups() for match in map(BUNDLE.fullmatch, store.names("")) if match]
    if not found:
        try:
            place = find(where)
        except UserError:
            raise UserError(
                f"There are no models under {where}. Give what training was given as --output; "
                "to make one: twofold train run --help"
            ) from None
        store = place.store
        found = [(place.name, version) for version in versions_of(store, place.name)]
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


def read_evaluation(store: Store, name: str, version: str) -> dict[str, Any]:
    """What ``evaluation.json`` says. Raises UserError where it cannot be read."""
    file = f"{name}/{version}/{EVALUATION_FILE}"
    try:
        evaluation = json.loads(store.read(file) or b"")
    except (ValueError, RecursionError):
        evaluation = None
    if not isinstance(evaluation, dict):
        raise UserError(
            f"{store.uri}/{file} is missing or no JSON. For all that is wrong: "
            f"twofold model verify {store.uri}/{name}/{version}"
        )
    return evaluation


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
    except (UserError, Reject) as error:
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
