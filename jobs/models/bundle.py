"""A model bundle: how it is written, and how it is read back and checked.

A bundle is the folder ``<name>/<version>/`` with everything that training made. Its ``model.json``, the manifest, holds
the digest of every other file and is written last, so a bundle without one is incomplete.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.decoding import sandbox
from jobs.metrics import scored_images
from jobs.metrics.scored_images import ScoredImage
from jobs.models.champion import Champions
from jobs.models.registry import EVALUATION_FILE, parse_manifest
from jobs.progress import Reporter
from jobs.store import Store
from jobs.user_error import UserError
from worker.contract import BundleFile, ModelManifest
from worker.errors import ErrorCode, Reject
from worker.scoring.models import MANIFEST_FILE, Model, open_files


def describe(files: dict[str, bytes]) -> dict[str, BundleFile]:
    """Returns the digest and size of each file, by name."""
    return {
        name: BundleFile(sha256=hashlib.sha256(body).hexdigest(), size_bytes=len(body)) for name, body in files.items()
    }


def check_free(store: Store, *, name: str, version: str) -> None:
    """Raises UserError if the bundle already exists. Bundles are never overwritten."""
    if store.exists(f"{name}/{version}/{MANIFEST_FILE}"):
        raise UserError(
            f"{store.uri}/{name}/{version} exists already. A version is never overwritten: choose another --version."
        )


def write_bundle(store: Store, files: dict[str, bytes], manifest: ModelManifest) -> str:
    """Writes ``<name>/<version>/``, with ``model.json`` last, and returns that prefix.

    Each file is written once: of two jobs with the same version, the second stops at its first file and damages
    nothing. A file that already exists with the same bytes was written by an earlier, interrupted run of this job.
    """
    prefix = f"{manifest.name}/{manifest.version}"
    last = MANIFEST_FILE
    for name in (*(name for name in files if name != last), last):
        path = f"{prefix}/{name}"
        if not store.write_once(path, files[name]) and store.read(path) != files[name]:
            raise UserError(
                f"{store.uri}/{path} was written by another job, which has not finished, or never will. "
                "A version is never overwritten: choose another --version."
            )
    return prefix


def point_champion(store: Store, manifest: ModelManifest) -> bool:
    """Makes the version the champion if the model has none yet. Returns whether it became the champion."""
    champions = Champions(store, manifest.name)
    return champions.current() is None and champions.set_champion(manifest.version, expected=None, how="first")


@dataclass(frozen=True)
class Finding:
    """What is wrong with one file of a bundle."""

    file: str
    problem: str


@dataclass(frozen=True)
class Bundle:
    """A bundle as it was read: its files, and where they contradict the manifest."""

    uri: str
    manifest: ModelManifest
    files: dict[str, bytes]
    findings: list[Finding]

    def read(self, name: str, _max_bytes: int = 0) -> bytes:
        """Returns a file that matches the manifest. Raises Reject, naming the file, if it does not match."""
        problem = next((finding.problem for finding in self.findings if finding.file == name), None)
        if problem is not None or name not in self.files:
            raise Reject(ErrorCode.BAD_MODEL, f"{self.uri}/{name}: {problem or 'missing'}")
        return self.files[name]

    def open(self) -> Model:
        """Opens the model as a worker does: checks digest and shapes, and scores a blank image. Raises Reject."""
        return open_files(self.uri, self.read, sandbox=sandbox())

    def images(self) -> list[ScoredImage]:
        """Returns the test images.

        Raises Reject if their file is damaged, or comes from a version that did not record the true labels.
        """
        try:
            images = scored_images.from_csv(self.read(scored_images.FILE))
            scored_images.truth(images, self.manifest.labels)
        except ValueError as error:
            raise Reject(ErrorCode.BAD_MODEL, f"{self.uri}/{scored_images.FILE}: {error}") from None
        return images


def read_bundle(
    store: Store, name: str, version: str, reporter: Reporter, *, only: frozenset[str] | None = None
) -> Bundle:
    """Reads the files of a bundle, all or ``only`` some of them, and checks them against ``model.json``.

    Raises UserError if ``model.json`` is missing or is not a manifest.
    """
    prefix = f"{name}/{version}/"
    uri = f"{store.uri}/{name}/{version}"
    names = [found.removeprefix(prefix) for found in store.names(prefix)]
    names = [file for file in names if only is None or file in only]
    files: dict[str, bytes] = {}
    with reporter.step(f"Reading {name}/{version}", total=len(names)) as advance:
        for file in names:
            body = store.read(prefix + file)
            if body is not None:
                files[file] = body
            advance(1)
    if MANIFEST_FILE not in files:
        raise UserError(f"{uri}/{MANIFEST_FILE} is missing, so the bundle is incomplete. Train the model again.")
    manifest = parse_manifest(files[MANIFEST_FILE], name=name, version=version, where=f"{uri}/{MANIFEST_FILE}")
    expected = {file: entry for file, entry in manifest.files.items() if only is None or file in only}
    findings = _compare(expected, files)
    return Bundle(uri, manifest, files, findings + _contradictions(files))


@dataclass(frozen=True)
class ImagePlaces:
    """Where test images may be: in folders, by name or by content, and among files, by content."""

    where: str  #: as a message may show it
    folders: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()

    @classmethod
    def of_folder(cls, folder: Path) -> "ImagePlaces":
        """Returns one folder."""
        return cls(str(folder), (folder,))


def trained_from(manifest: ModelManifest) -> ImagePlaces | None:
    """Returns the folders that the model was trained from, as far as this machine has them.

    The names in a labelled list begin at its own folder.
    """
    data = manifest.training_config.get("data")
    sources = [source for source in (data if isinstance(data, list) else [data]) if isinstance(source, str) and source]
    folders = tuple(dict.fromkeys(folder for source in sources if (folder := _folder_of(Path(source))) is not None))
    return ImagePlaces(", ".join(map(str, folders)), folders) if folders else None


def _folder_of(source: Path) -> Path | None:
    try:
        return source if source.is_dir() else source.parent if source.is_file() else None
    except (OSError, ValueError):  # the name is too long, or holds a NUL
        return None


def _compare(expected: dict[str, BundleFile], files: dict[str, bytes]) -> list[Finding]:
    findings = []
    for name, file in expected.items():
        if name not in files:
            findings.append(Finding(name, "missing"))
        elif len(files[name]) != file.size_bytes:
            findings.append(Finding(name, f"{len(files[name]):,} bytes instead of {file.size_bytes:,}"))
        elif hashlib.sha256(files[name]).hexdigest() != file.sha256:
            findings.append(Finding(name, "altered: its SHA-256 is different"))
    extra = sorted(set(files) - set(expected) - {MANIFEST_FILE})
    return findings + [Finding(name, "not listed in model.json") for name in extra]


def _contradictions(files: dict[str, bytes]) -> list[Finding]:
    """Finds what was edited in ``model.json``: ``evaluation.json`` repeats it, and is protected by a digest itself."""
    try:
        evaluation: dict[str, Any] = json.loads(files.get(EVALUATION_FILE, b"{}"))
        repeated = evaluation.get("model", {})
        # As it is written: 2026-11-24t14:05:09z is the same time, and no file that Twofold has written.
        stated = {key: value for key, value in json.loads(files[MANIFEST_FILE]).items() if key != "files"}
        differ = [key for key in stated if key in repeated and repeated[key] != stated[key]]
        # A field that is written only where it is set may also have been added or removed.
        added = [key for key in ("unsure",) if repeated and (key in stated) != (key in repeated)]
        return [Finding(MANIFEST_FILE, f"altered: {key} differs from {EVALUATION_FILE}") for key in differ + added]
    except (ValueError, AttributeError, TypeError, RecursionError):
        return []  # an evaluation that is not a JSON object has another digest, which is a finding already
