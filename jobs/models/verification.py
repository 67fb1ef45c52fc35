"""A whole bundle checked: its files against their digests, and its scores against what it says it scored."""

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Final, TypeVar

from jobs.metrics import scored_images
from jobs.metrics.scored_images import ScoredImage
from jobs.models.bundle import Bundle, Finding, trained_from
from jobs.progress import Reporter
from worker.contract import ModelManifest
from worker.errors import Reject
from worker.scoring.decoder import MAX_BYTES, decode, fingerprint
from worker.scoring.models import MODEL_FILE, Model
from worker.settings import available_cores

#: What a picture scores that cannot be decoded here.
UNDECODABLE: Final = math.nan


def score_again(
    model: Model, images: Sequence[ScoredImage], folder: Path, *, search: bool, reporter: Reporter
) -> dict[str, float]:
    """P(class 1) by sha256 of those of ``images`` that are in ``folder``.

    Each is looked for under its name. With ``search`` every file of the folder is looked into for what is then
    missing.
    """
    folder = folder.resolve()
    wanted = {image.sha256 for image in images}
    scoring = _Scoring(model, wanted)
    named = [path for path in (_below(folder, image.source_ref) for image in images) if path is not None]
    with reporter.step("Scoring the test pictures", total=len(named)) as advance:
        for _ in scoring.over(named):
            advance(1)
    if search and wanted - set(scoring.found):
        others = sorted(set(folder.rglob("*")) - set(named))
        with reporter.step("Looking for the others", total=len(others)) as advance:
            for _ in scoring.over(others):
                advance(1)
    return scoring.found


def score_one(model: Model, images: Sequence[ScoredImage], folder: Path) -> tuple[ScoredImage, float] | None:
    """The first picture that is where its name says, and its P(class 1); None where none is."""
    scoring = _Scoring(model, {image.sha256 for image in images})
    for image in images:
        path = _below(folder.resolve(), image.source_ref)
        if path is not None:
            scoring.look_at(path)
        if image.sha256 in scoring.found:
            return image, scoring.found[image.sha256]
    return None


@dataclass
class _Scoring:
    model: Model
    wanted: set[str]
    found: dict[str, float] = field(default_factory=dict)

    def over(self, paths: Iterable[Path]) -> Iterable[None]:
        with ThreadPoolExecutor(available_cores()) as pool:
            yield from pool.map(self.look_at, paths)

    def look_at(self, path: Path) -> None:
        """Scores the file if it is a picture that is wanted."""
        try:
            # A device or a pipe would never end.
            data = path.read_bytes() if path.is_file() and path.stat().st_size <= MAX_BYTES else b""
        except OSError:  # what cannot be read is not at hand
            return
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self.wanted or digest in self.found:
            return
        try:
            self.found[digest] = self.model.scorer.score(decode(data, size_px=self.model.manifest.image_size))
        except Reject:
            self.found[digest] = UNDECODABLE


def _below(folder: Path, ref: str) -> Path | None:
    """The file of that name, unless the name leads out of the folder or cannot be one."""
    try:
        path = (folder / ref).resolve()
        return path if path.is_relative_to(folder) else None
    except (OSError, ValueError, RuntimeError):  # a name too long, with a NUL, or a link to itself
        return None


Done = TypeVar("Done")

#: Largest difference of a score where decoder and LiteRT are those of the training: nine digits are written, and what
#: is left is the order in which another number of threads or another processor adds up.
SAME_TOLERANCE: Final = 1e-6
#: Where one of the two is another. Measured: every value of 300 photographs moved by -1, 0 or 1, at random, as another
#: libjpeg might, moves their scores by 0.0008 in the median and by 0.053 at the most (160 pixels, cats and dogs).
OTHER_TOLERANCE: Final = 0.1


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


def verify(bundle: Bundle, *, data: Path | None, tolerance: float | None, reporter: Reporter) -> Verification:
    """Opens the model and scores its test pictures again, where they are in ``data`` or where it was trained from."""
    findings = list(bundle.findings)
    model = _attempt(bundle, bundle.open, MODEL_FILE, findings)
    images = _attempt(bundle, bundle.images, scored_images.FILE, findings) or []
    folder = data or trained_from(bundle.manifest)
    again: dict[str, float] = {}
    if model is not None and folder is not None:
        again = score_again(model, images, folder, search=data is not None, reporter=reporter)
    allowed = expected_tolerance(bundle.manifest) if tolerance is None else tolerance
    differences = [(abs(again[i.sha256] - (i.score or 0.0)), i) for i in images if i.sha256 in again]
    findings += [
        Finding(scored_images.FILE, _difference(image, again[image.sha256]))
        for difference, image in differences
        if not difference <= allowed  # NaN, too
    ]
    missing = [image.source_ref for image in images if image.sha256 not in again]
    if data is not None and missing and model is not None:
        told = f"{len(missing):,} of its {len(images):,} pictures are not in {data}, such as {missing[0]}"
        findings.append(Finding(scored_images.FILE, told))
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


def _attempt(bundle: Bundle, step: Callable[[], Done], file: str, findings: list[Finding]) -> Done | None:
    """What ``step`` gives; where it is refused, that is one more finding, unless it is one already."""
    try:
        return step()
    except Reject as error:
        if not any(error.message.startswith(f"{bundle.uri}/{finding.file}:") for finding in findings):
            findings.append(Finding(file, error.message))
        return None


def expected_tolerance(manifest: ModelManifest) -> float:
    """How far a score may be from the one written, with the decoder and the LiteRT that are here."""
    return SAME_TOLERANCE if _same_decoder(manifest) else OTHER_TOLERANCE


def _same_decoder(manifest: ModelManifest) -> bool:
    here = (fingerprint(), metadata.version("ai-edge-litert"))
    return (manifest.decoder_fingerprint, manifest.libraries.get("ai-edge-litert")) == here


def _difference(image: ScoredImage, score: float) -> str:
    if math.isnan(score):
        return f"{image.source_ref} can no longer be decoded"
    return f"{image.source_ref} scores {score:.9g}, not {image.score:.9g}"
