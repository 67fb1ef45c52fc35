"""Test pictures found again by the digest of their bytes, and scored anew: whatever they are called by now."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from jobs.metrics.scored_images import ScoredImage
from jobs.progress import Reporter
from worker.errors import Reject
from worker.scoring.decoder import MAX_BYTES, decode
from worker.scoring.model import Model
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
