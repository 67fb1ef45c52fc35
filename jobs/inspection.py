"""A bundle's files held against its ``model.json``, one by one, and its scores against what it says it scored."""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, TypeVar

from jobs import tested
from jobs.errors import UserError
from jobs.pictures import score_again
from jobs.progress import Reporter, hushed
from jobs.registry import EVALUATION_FILE, parse_manifest
from jobs.store import Store
from jobs.tested import ScoredImage
from worker.contract import BundleFile, ModelManifest
from worker.errors import ErrorCode, Reject
from worker.images import fingerprint
from worker.model import MANIFEST_FILE, MODEL_FILE, Model, open_files

Done = TypeVar("Done")

#: What it takes to compare a champion: not the Keras file, which is most of the bytes.
TO_COMPARE: Final = frozenset({MANIFEST_FILE, MODEL_FILE, tested.FILE})

#: Largest difference of a score where decoder and LiteRT are those of the training: nine digits are written, and what
#: is left is the order in which another number of threads or another processor adds up.
SAME_TOLERANCE: Final = 1e-6
#: Where one of the two is another. Another libjpeg moves single pixels by a few steps of 255.
OTHER_TOLERANCE: Final = 0.02


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
        with hushed():  # LiteRT tells of its delegate
            return open_files(self.uri, self.read)

    def images(self) -> list[ScoredImage]:
        """The test images. Raises Reject where their file is damaged, or of a version that did not tell the truth."""
        try:
            images = tested.from_csv(self.read(tested.FILE))
            tested.truth(images, self.manifest.labels)
        except ValueError as error:
            raise Reject(ErrorCode.BAD_MODEL, f"{self.uri}/{tested.FILE}: {error}") from None
        return images


@dataclass(frozen=True)
class Verification:
    """What became of a check: ``scored`` of ``images`` test pictures were scored again."""

    uri: str
    files: int
    findings: list[Finding]
    images: int  #: in test_predictions.csv
    scored: int
    max_difference: float | None
    tolerance: float
    same_decoder: bool  #: and the same LiteRT: the scores should be the same to nine digits


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


def verify(bundle: Bundle, *, data: Path | None, tolerance: float | None, reporter: Reporter) -> Verification:
    """Opens the model and scores its test pictures again, where they are in ``data`` or where it was trained from."""
    findings = list(bundle.findings)
    model = _attempt(bundle.open, MODEL_FILE, findings)
    images = _attempt(bundle.images, tested.FILE, findings) or []
    folder = data or trained_from(bundle.manifest)
    again: dict[str, float] = {}
    if model is not None and folder is not None:
        again = score_again(model, images, folder, search=data is not None, reporter=reporter)
    allowed = expected_tolerance(bundle.manifest) if tolerance is None else tolerance
    differences = [(abs(again[i.sha256] - (i.score or 0.0)), i) for i in images if i.sha256 in again]
    findings += [
        Finding(tested.FILE, _difference(image, again[image.sha256]))
        for difference, image in differences
        if not difference <= allowed  # NaN, too
    ]
    missing = [image.source_ref for image in images if image.sha256 not in again]
    if data is not None and missing and model is not None:
        told = f"{len(missing):,} of its {len(images):,} pictures are not in {data}, such as {missing[0]}"
        findings.append(Finding(tested.FILE, told))
    largest = max((difference for difference, _ in differences if math.isfinite(difference)), default=None)
    return Verification(
        uri=bundle.uri,
        files=len(bundle.files),
        findings=findings,
        images=len(images),
        scored=len(differences),
        max_difference=largest,
        tolerance=allowed,
        same_decoder=_same_decoder(bundle.manifest),
    )


def _attempt(step: Callable[[], Done], file: str, findings: list[Finding]) -> Done | None:
    """What ``step`` gives; where it is refused, that is one more finding, unless the file has one already."""
    try:
        return step()
    except Reject as error:
        if all(finding.file != file for finding in findings):
            findings.append(Finding(file, error.message))
        return None


def trained_from(manifest: ModelManifest) -> Path | None:
    """The folder that the model was trained from, if this machine has it."""
    data = manifest.training_config.get("data")
    folder = Path(data) if isinstance(data, str) else None
    return folder if folder is not None and folder.is_dir() else None


def expected_tolerance(manifest: ModelManifest) -> float:
    """How far a score may be from the one written, with the decoder and the LiteRT that are here."""
    return SAME_TOLERANCE if _same_decoder(manifest) else OTHER_TOLERANCE


def _same_decoder(manifest: ModelManifest) -> bool:
    here = (fingerprint(), metadata.version("ai-edge-litert"))
    return (manifest.decoder_fingerprint, manifest.libraries.get("ai-edge-litert")) == here


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
    except (ValueError, AttributeError, TypeError):
        return []  # an evaluation that is no JSON object has another digest, which is a finding already


def _difference(image: ScoredImage, score: float) -> str:
    if math.isnan(score):
        return f"{image.source_ref} can no longer be decoded"
    return f"{image.source_ref} scores {score:.9g}, not {image.score:.9g}"
