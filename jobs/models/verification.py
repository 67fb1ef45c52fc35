"""The check of a complete bundle: its files against their digests, and its scores against those on record."""

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Final, TypeVar

from jobs.decoding import sandbox
from jobs.metrics import scored_images
from jobs.metrics.scored_images import ScoredImage
from jobs.models.bundle import Bundle, Finding, ImagePlaces, trained_from
from jobs.progress import Reporter
from worker.contract import ModelManifest
from worker.errors import Reject
from worker.scoring.decoder import fingerprint
from worker.scoring.limits import MAX_BYTES
from worker.scoring.models import MANIFEST_FILE, MODEL_FILE, Model
from worker.settings import available_cores

#: Largest difference of a score with the decoder and LiteRT of the training. Scores are recorded with nine digits; the
#: rest is the order of summation, which depends on the number of threads and on the processor.
SAME_TOLERANCE: Final = 1e-6
#: The same with another decoder or LiteRT. Measured on 300 photographs, cats and dogs, at 160 pixels: moving every
#: value by -1, 0 or 1 at random, as another libjpeg might, moves a score by 0.0008 (median) and by at most 0.053.
OTHER_TOLERANCE: Final = 0.1
#: The score of an image that cannot be decoded here.
UNDECODABLE: Final = math.nan

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Verification:
    """The result of a check: ``scored`` of ``images`` test images were scored again."""

    uri: str
    files: int
    intact: int  #: of the files that model.json lists, and itself; the others have findings
    findings: list[Finding]
    images: int  #: in test_predictions.csv
    scored: int
    max_difference: float | None
    tolerance: float
    opened: bool  #: whether the model could be opened at all
    same_decoder: bool  #: and the same LiteRT, so that scores should agree to nine digits


def verify(bundle: Bundle, *, data: ImagePlaces | None, tolerance: float | None, reporter: Reporter) -> Verification:
    """Opens the model and scores its test images again, from ``data`` or from where it was trained."""
    findings = list(bundle.findings)
    model = _attempt(bundle, bundle.open, MODEL_FILE, findings)
    images = _attempt(bundle, bundle.images, scored_images.FILE, findings) or []
    places = data or trained_from(bundle.manifest)
    again: dict[str, float] = {}
    if model is not None and places is not None:
        again = score_again(model, images, places, search=data is not None, reporter=reporter)
    allowed = expected_tolerance(bundle.manifest) if tolerance is None else tolerance
    differences = [(abs(again[i.sha256] - (i.score or 0.0)), i) for i in images if i.sha256 in again]
    findings += [
        Finding(scored_images.FILE, _difference(image, again[image.sha256]))
        for difference, image in differences
        if not difference <= allowed  # true for NaN, too
    ]
    missing = [image.source_ref for image in images if image.sha256 not in again]
    if data is not None and missing and model is not None:
        findings.append(Finding(scored_images.FILE, _absent(missing, len(images), data.where)))
    largest = max((difference for difference, _ in differences if math.isfinite(difference)), default=None)
    recorded = {*bundle.manifest.files, MANIFEST_FILE}
    return Verification(
        uri=bundle.uri,
        files=len(bundle.files),
        intact=len(recorded - {finding.file for finding in bundle.findings}),
        findings=findings,
        images=len(images),
        scored=len(differences),
        max_difference=largest,
        tolerance=allowed,
        opened=model is not None,
        same_decoder=_same_decoder(bundle.manifest),
    )


def score_again(
    model: Model, images: Sequence[ScoredImage], places: ImagePlaces, *, search: bool, reporter: Reporter
) -> dict[str, float]:
    """Returns P(class 1) by SHA-256 for those of ``images`` that are in ``places``.

    Each image is looked up by its name first. With ``search``, every file there is then searched for the content of
    those still missing.
    """
    wanted = {image.sha256 for image in images}
    scoring = _Scoring(model, wanted)
    folders = [folder.resolve() for folder in places.folders]
    named = [path for folder in folders for image in images if (path := _below(folder, image.source_ref)) is not None]
    with reporter.step("Scoring the test images", total=len(named)) as advance:
        for _ in scoring.score_all(named):
            advance(1)
    if search and wanted - set(scoring.found):
        others = sorted({path for folder in folders for path in folder.rglob("*")} - set(named)) + list(places.files)
        with reporter.step("Searching for the others", total=len(others)) as advance:
            for _ in scoring.score_all(others):
                advance(1)
    return scoring.found


def score_one(model: Model, images: Sequence[ScoredImage], places: ImagePlaces) -> tuple[ScoredImage, float] | None:
    """Returns the first image that is where its name says, and its P(class 1); None if there is none."""
    scoring = _Scoring(model, {image.sha256 for image in images})
    for folder in places.folders:
        for image in images:
            path = _below(folder.resolve(), image.source_ref)
            if path is not None:
                scoring.score_file(path)
            if image.sha256 in scoring.found:
                return image, scoring.found[image.sha256]
    return None


def expected_tolerance(manifest: ModelManifest) -> float:
    """Returns how far a score may be from the recorded one, given the decoder and LiteRT of this machine."""
    return SAME_TOLERANCE if _same_decoder(manifest) else OTHER_TOLERANCE


@dataclass
class _Scoring:
    """Scores the files whose content is wanted, and collects the scores by SHA-256."""

    model: Model
    wanted: set[str]
    found: dict[str, float] = field(default_factory=dict)

    def score_all(self, paths: Iterable[Path]) -> Iterable[None]:
        with ThreadPoolExecutor(available_cores()) as pool:
            yield from pool.map(self.score_file, paths)

    def score_file(self, path: Path) -> None:
        try:
            # Reading a device or a pipe would never end.
            data = path.read_bytes() if path.is_file() and path.stat().st_size <= MAX_BYTES else b""
        except OSError:  # a file that cannot be read counts as missing
            return
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self.wanted or digest in self.found:
            return
        try:
            self.found[digest] = sandbox().score(data, self.model.graph).score
        except Reject:
            self.found[digest] = UNDECODABLE


def _below(folder: Path, ref: str) -> Path | None:
    """Returns the file of that name, unless the name leads out of the folder or is not a possible file name."""
    try:
        path = (folder / ref).resolve()
        return path if path.is_relative_to(folder) else None
    except (OSError, ValueError, RuntimeError):  # too long, with a NUL, or a link to itself
        return None


def _attempt(bundle: Bundle, step: Callable[[], _Result], file: str, findings: list[Finding]) -> _Result | None:
    """Returns the result of ``step``. If it raises Reject, adds a finding, unless the file has one already."""
    try:
        return step()
    except Reject as error:
        if not any(error.message.startswith(f"{bundle.uri}/{finding.file}:") for finding in findings):
            findings.append(Finding(file, error.message))
        return None


def _same_decoder(manifest: ModelManifest) -> bool:
    here = (fingerprint(), metadata.version("ai-edge-litert"))
    return (manifest.decoder_fingerprint, manifest.libraries.get("ai-edge-litert")) == here


def _absent(missing: Sequence[str], images: int, where: str) -> str:
    if len(missing) == images:
        return f"none of its {images:,} images is in {where}"
    return f"{len(missing):,} of its {images:,} images are not in {where}, such as {missing[0]}"


def _difference(image: ScoredImage, score: float) -> str:
    if math.isnan(score):
        return f"{image.source_ref} can no longer be decoded"
    return f"{image.source_ref} scores {score:.9g} instead of {image.score:.9g}"
