"""Writes a model bundle: every file, then ``model.json`` with their digests. Without that there is no bundle."""

import hashlib

from jobs.champion import Champions
from jobs.errors import UserError
from jobs.store import Store
from worker.contract import BundleFile, ModelManifest
from worker.model import MANIFEST_FILE


def describe(files: dict[str, bytes]) -> dict[str, BundleFile]:
    """Digest and size of each file, by name."""
    return {
        name: BundleFile(sha256=hashlib.sha256(body).hexdigest(), size_bytes=len(body)) for name, body in files.items()
    }


def check_free(store: Store, *, name: str, version: str) -> None:
    """Raises UserError when there is such a bundle already: bundles are not written over."""
    if store.exists(f"{name}/{version}/{MANIFEST_FILE}"):
        raise _taken(name, version)


def write_bundle(store: Store, files: dict[str, bytes], manifest: ModelManifest) -> str:
    """Writes ``<name>/<version>/``, ``model.json`` last and once, and returns that prefix."""
    prefix = f"{manifest.name}/{manifest.version}"
    check_free(store, name=manifest.name, version=manifest.version)
    # Each is written once: of two jobs with one version the second stops at its first file, and spoils none.
    for name, body in (*files.items(), (MANIFEST_FILE, manifest.model_dump_json(indent=2).encode())):
        if not store.write_once(f"{prefix}/{name}", body):
            raise _taken(manifest.name, manifest.version)
    return prefix


def _taken(name: str, version: str) -> UserError:
    return UserError(
        f"There is a bundle {name}/{version}, or a part of one, and bundles are not written over: "
        "choose another version."
    )


def point_champion(store: Store, manifest: ModelManifest) -> bool:
    """Makes the version the champion if the model has none yet; True if it became one."""
    champions = Champions(store, manifest.name)
    return champions.current() is None and champions.crown(manifest.version, seen=None, how="first")
