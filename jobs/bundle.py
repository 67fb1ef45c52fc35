"""Writes a model bundle: every file, then ``model.json`` with their digests. Without that there is no bundle."""

import hashlib
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from jobs.errors import UserError
from worker.clients import open_session, open_storage
from worker.contract import BundleFile, ChampionPointer, ModelManifest
from worker.model import CHAMPION_FILE, MANIFEST_FILE

_CONTENT_TYPES: Final = {
    ".json": "application/json",
    ".csv": "text/csv; charset=utf-8",
    ".html": "text/html; charset=utf-8",
}


class Output(Protocol):
    """Where bundles go. No file is ever written over."""

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""

    def write_once(self, name: str, body: bytes) -> bool:
        """Writes a file, unless there is one of that name already: then False."""


class FolderOutput:
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self._root / name).exists()

    def write_once(self, name: str, body: bytes) -> bool:
        """Links a finished file into place, so that nobody ever reads half of it, and only one of two is first."""
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(body)
            Path(draft).chmod(0o644)
            path.hardlink_to(draft)
        except FileExistsError:
            return False
        finally:
            Path(draft).unlink()
        return True


class BucketOutput:
    """A prefix of a bucket."""

    def __init__(self, uri: str) -> None:
        self._uri = uri.rstrip("/")
        self._storage = open_storage(open_session())

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        return self._storage.metadata(f"{self._uri}/{name}") is not None

    def write_once(self, name: str, body: bytes) -> bool:
        """One conditional PutObject."""
        return self._storage.write_once(f"{self._uri}/{name}", body, content_type=_content_type(name), metadata={})


def open_output(output: str) -> Output:
    """The output of a job: ``s3://bucket/prefix`` or a folder."""
    if output.startswith("s3://"):
        return BucketOutput(output)
    try:
        Path(output).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {output} cannot be a folder: {error.strerror}.") from error
    return FolderOutput(Path(output))


def describe(files: dict[str, bytes]) -> dict[str, BundleFile]:
    """Digest and size of each file, by name."""
    return {
        name: BundleFile(sha256=hashlib.sha256(body).hexdigest(), size_bytes=len(body)) for name, body in files.items()
    }


def check_free(output: Output, *, name: str, version: str) -> None:
    """Raises UserError when there is such a bundle already: bundles are not written over."""
    if output.exists(f"{name}/{version}/{MANIFEST_FILE}"):
        raise _taken(name, version)


def write_bundle(output: Output, files: dict[str, bytes], manifest: ModelManifest) -> str:
    """Writes ``<name>/<version>/``, ``model.json`` last and once, and returns that prefix."""
    prefix = f"{manifest.name}/{manifest.version}"
    check_free(output, name=manifest.name, version=manifest.version)
    # Each is written once: of two jobs with one version the second stops at its first file, and spoils none.
    for name, body in (*files.items(), (MANIFEST_FILE, manifest.model_dump_json(indent=2).encode())):
        if not output.write_once(f"{prefix}/{name}", body):
            raise _taken(manifest.name, manifest.version)
    return prefix


def _taken(name: str, version: str) -> UserError:
    return UserError(
        f"There is a bundle {name}/{version}, or a part of one, and bundles are not written over: "
        "choose another version."
    )


def point_champion(output: Output, manifest: ModelManifest) -> bool:
    """Makes the version the champion if the model has none yet; True if it became one."""
    pointer = ChampionPointer(name=manifest.name, version=manifest.version, promoted_at=datetime.now(UTC))
    return output.write_once(f"{manifest.name}/{CHAMPION_FILE}", pointer.model_dump_json(indent=2).encode())


def _content_type(name: str) -> str:
    return _CONTENT_TYPES.get(Path(name).suffix, "application/octet-stream")
