"""Writes a model bundle: every file, then ``model.json`` with their digests. Without that there is no bundle."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Final

from jobs.metrics import scored_images
from jobs.metrics.scored_images import ScoredImage
from jobs.models.champion import Champions
from jobs.models.registry import EVALUATION_FILE, parse_manifest
from jobs.progress import Reporter, hushed
from jobs.store import Store
from jobs.user_error import UserError
from worker.contract import BundleFile, ModelManifest
from worker.errors import ErrorCode, Reject
from worker.scoring.models import MANIFEST_FILE, Model, open_files


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


#: ``hushed`` turns away standard error for the whole process, so one thread at a time.
_OPENING: Final = Lock()


@dataclass(frozen=True)
class Finding:
    """What is wrong with one file of a bundle."""

    file: str
    problem: str


@dataclass(frozen=True)
class Bundle:
    """A bundle as it was read: every file, and what does not fit its manifest."""

    uri: str
    manifest: ModelManifest
    files: dict[str, bytes]
    findings: list[Finding]

    def read(self, name: str, _max_bytes: int = 0) -> bytes:
        """A file that is what the manifest says. Raises Reject, naming it, where it is not."""
        problem = next((finding.problem for finding in self.findings if finding.file == name), None)
        if problem is not None or name not in self.files:
            raise Reject(ErrorCode.BAD_MODEL, f"{self.uri}/{name}: {problem or 'missing'}")
        return self.files[name]

    def open(self) -> Model:
        """The model, opened as a worker opens it: digest, shapes, and a blank picture scored. Raises Reject."""
        with _OPENING, hushed():  # LiteRT tells of its delegate
            return open_files(self.uri, self.read)

    def images(self) -> list[ScoredImage]:
        """The test images. Raises Reject where their file is damaged, or of a version that did not tell the truth."""
        try:
            images = scored_images.from_csv(self.read(scored_images.FILE))
            scored_images.truth(images, self.manifest.labels)
        except ValueError as error:
            raise Reject(ErrorCode.BAD_MODEL, f"{self.uri}/{scored_images.FILE}: {error}") from None
        return images


def read_bundle(
    store: Store, name: str, version: str, reporter: Reporter, *, only: frozenset[str] | None = None
) -> Bundle:
    """Reads the files of a bundle, all or ``only`` some, and holds them against ``model.json``.

    Raises UserError where that is no manifest.
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
        raise UserError(f"{uri}/{MANIFEST_FILE} is missing: without it there is no bundle.")
    manifest = parse_manifest(files[MANIFEST_FILE], name=name, version=version, where=f"{uri}/{MANIFEST_FILE}")
    expected = {file: told for file, told in manifest.files.items() if only is None or file in only}
    findings = _compare(expected, files)
    return Bundle(uri, manifest, files, findings + _contradictions(manifest, files))


def trained_from(manifest: ModelManifest) -> Path | None:
    """The folder that the model was trained from, if this machine has it."""
    data = manifest.training_config.get("data")
    try:
        return Path(data) if isinstance(data, str) and data and Path(data).is_dir() else None
    except OSError:  # a name too long
        return None


def _compare(expected: dict[str, BundleFile], files: dict[str, bytes]) -> list[Finding]:
    findings = []
    for name, file in expected.items():
        if name not in files:
            findings.append(Finding(name, "missing"))
        elif len(files[name]) != file.size_bytes:
            findings.append(Finding(name, f"{len(files[name]):,} bytes, not {file.size_bytes:,}"))
        elif hashlib.sha256(files[name]).hexdigest() != file.sha256:
            findings.append(Finding(name, "altered: another SHA-256"))
    extra = sorted(set(files) - set(expected) - {MANIFEST_FILE})
    return findings + [Finding(name, "not in model.json: somebody put it there") for name in extra]


def _contradictions(manifest: ModelManifest, files: dict[str, bytes]) -> list[Finding]:
    """No digest vouches for ``model.json``, but ``evaluation.json``, which has one, repeats all that it says."""
    try:
        evaluation: dict[str, Any] = json.loads(files.get(EVALUATION_FILE, b"{}"))
        told = evaluation.get("model", {})
        said = manifest.model_dump(mode="json", exclude={"files"})
        return [
            Finding(MANIFEST_FILE, f"altered: {key} is not what {EVALUATION_FILE} says")
            for key in said
            if key in told and told[key] != said[key]
        ]
    except (ValueError, AttributeError, TypeError, RecursionError):
        return []  # an evaluation that is no JSON object has another digest, which is a finding already
