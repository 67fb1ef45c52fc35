"""Writes a model bundle: every file, then ``model.json`` with their digests. Without that there is no bundle."""

import hashlib

from jobs.errors import UserError
from jobs.models.champion import Champions
from jobs.store import Store
from worker.contract import BundleFile, ModelManifest
from worker.scoring.model import MANIFEST_FILE


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
    """Writes ``<name>/<version>/``, the files in their order, ``model.json`` last, and returns that prefix.

    Each is written once: of two jobs with one version the second stops at its first file, and spoils none. A file that
    is there already with the same bytes was written by this job, before it was ended.
    """
    prefix = f"{manifest.name}/{manifest.version}"
    last = MANIFEST_FILE
    for name in (*(name for name in files if name != last), last):
        place = f"{prefix}/{name}"
        if not store.write_once(place, files[name]) and store.read(place) != files[name]:
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
