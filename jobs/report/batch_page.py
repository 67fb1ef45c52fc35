"""A job as one HTML page that needs nothing else: counts, scores, images, errors."""

import base64
import heapq
import io
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import jinja2
import numpy as np
from PIL import Image

from jobs.batch.results import Line, Results
from jobs.metrics import scored_images
from jobs.metrics.arrays import Scores
from jobs.metrics.drift import drift, shares
from worker.aws.storage import Storage
from worker.batch import cost
from worker.batch.completion import collect
from worker.contract import Job, PredictionRow
from worker.errors import TwofoldError
from worker.scoring.decoder import MAX_BYTES, decode

_SHOWN: Final = 8
_THUMBNAIL_PX: Final = 160
_READERS: Final = 8
#: Failed rows that are named for each code.
_EXAMPLES: Final = 3


@dataclass(frozen=True)
class Picture:
    """An image of the page; ``data_uri`` is None where it is there no more."""

    row: PredictionRow
    data_uri: str | None


@dataclass
class Failure:
    """Rows with one error code."""

    count: int = 0
    examples: list[PredictionRow] = field(default_factory=list)


class Gallery:
    """Takes rows in, any number, and keeps a few of them."""

    def __init__(self) -> None:
        self.labels: Counter[str] = Counter()
        self.failures: dict[str, Failure] = {}
        self.models: Counter[str] = Counter()
        self.threshold: float | None = None
        self.positive: str | None = None  #: the label of class 1, where it was given at all
        self._scores: list[Scores] = []
        #: Heaps by label. The row's number decides between equals, the first one winning.
        self._sure: dict[str, list[tuple[float, int, PredictionRow]]] = {}
        self._unsure: dict[str, list[tuple[float, int, PredictionRow]]] = {}

    def add(self, lines: Iterable[Line]) -> None:
        """Some more rows."""
        scores = []
        for line in lines:
            row = line.row
            self.threshold = row.threshold
            self.models[row.model_version] += 1
            if row.error_code is not None:
                failure = self.failures.setdefault(row.error_code, Failure())
                failure.count += 1
                if len(failure.examples) < _EXAMPLES:
                    failure.examples.append(row)
            elif row.label is not None and row.score is not None and row.confidence is not None:
                scores.append(row.score)
                if row.score >= row.threshold:
                    self.positive = row.label
                self.labels[row.label] += 1
                distance = abs(row.score - row.threshold)
                _keep(self._sure.setdefault(row.label, []), (row.confidence, -row.row, row))
                _keep(self._unsure.setdefault(row.label, []), (-distance, -row.row, row))
        self._scores.append(np.array(scores))

    @property
    def scores(self) -> Scores:
        """All scores, ``(N,)``."""
        return np.concatenate(self._scores) if self._scores else np.array([])

    def pictures(self, storage: Storage) -> dict[str, tuple[list[Picture], list[Picture]]]:
        """By label: the least certain images and the most certain ones, each as the model sees it."""
        with ThreadPoolExecutor(_READERS) as pool:

            def shown(heap: list[tuple[float, int, PredictionRow]]) -> list[Picture]:
                rows = [row for _, _, row in sorted(heap, reverse=True)]
                return [*map(Picture, rows, pool.map(lambda row: _thumbnail(row, storage), rows))]

            return {label: (shown(self._unsure[label]), shown(self._sure[label])) for label in sorted(self._sure)}


def _keep(heap: list[tuple[float, int, PredictionRow]], item: tuple[float, int, PredictionRow]) -> None:
    if len(heap) < _SHOWN:
        heapq.heappush(heap, item)
    else:
        heapq.heappushpop(heap, item)


def _thumbnail(row: PredictionRow, storage: Storage) -> str | None:
    try:
        pixels = decode(storage.read(row.source_ref, max_bytes=MAX_BYTES), size_px=_THUMBNAIL_PX)
    except TwofoldError:  # it was there when it was scored
        return None
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


_BINS: Final = 40
_MAX_CSV_BYTES: Final = 1024 * 1024 * 1024

#: What the codes mean, and what to do, for somebody who looks after pictures.
_ADVICE: Final = {
    "access_denied": "Storage refuses to hand it out. Give the worker's role the right to read it, then redrive.",
    "archived": "It lies in an archive class. Restore it, then redrive.",
    "bad_source_ref": "It is not named as s3://bucket/key. Mend the list and submit it anew.",
    "damaged": "The file breaks off or makes no sense. Put a whole one in its place, then redrive.",
    "empty": "The file has no bytes. Upload it again, then redrive.",
    "not_allowed": "It lies outside the worker's TWOFOLD_ALLOWED_PREFIXES.",
    "not_an_image": "It is none of JPEG, PNG, WebP, GIF, BMP, TIFF.",
    "not_found": "There is no such object. Upload it, then redrive.",
    "too_many_bytes": "It has over 32 MiB.",
    "too_many_pixels": "It has over 30 million pixels.",
    "unavailable": "Storage did not deliver it in any of the tries. Redrive.",
    "unsupported_pixels": "It has 32-bit samples, which have no agreed black and white.",
}


@dataclass(frozen=True)
class Bar:
    """One bin of the histogram; heights are shares of the highest bar, 0 to 1."""

    seen: float
    tested: float


def render(results: Results, gallery: Gallery, storage: Storage, *, tested: Scores, complete: bool) -> str:
    """The page. ``tested`` are the scores of the model's test images, or nothing."""
    job, scores = results.job, gallery.scores
    failed = sum(failure.count for failure in gallery.failures.values())
    reports = collect(results.folder, job, storage) if complete else []
    seconds = sum(report.seconds for report in reports)
    found = drift(tested, scores)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jobs"),
        autoescape=True,  # names of files are anybody's
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("batch.html").render(
        job=job,
        complete=complete,
        rows=len(scores) + failed,
        scored=len(scores),
        failed=failed,
        labels=sorted(gallery.labels.items()),
        models=sorted(gallery.models),
        threshold=gallery.threshold,
        positive=gallery.positive or "class 1",
        bars=_bars(scores, tested),
        tested=len(tested),
        drift=found,
        pictures=gallery.pictures(storage),
        failures=sorted(gallery.failures.items(), key=lambda item: -item[1].count),
        advice=_ADVICE,
        worker_s=seconds,
        usd=cost.usd(images=job.images, parts=job.parts, worker_s=seconds),
        assumes=cost.ASSUMES,
    )


def tested_scores(job: Job, model_uri: str | None, storage: Storage) -> Scores:
    """The scores of the images that the model was tested with, from its bundle; none where they cannot be had."""
    uri = job.model_uri or model_uri
    if uri is None or not uri.startswith("s3://"):
        return np.array([])
    try:
        data = storage.read(f"{uri.rstrip('/')}/{scored_images.FILE}", max_bytes=_MAX_CSV_BYTES)
    except TwofoldError:  # a bundle that was removed; the page says that it has none
        return np.array([])
    return scored_images.scores(scored_images.from_csv(data))


def _bars(seen: Scores, tested: Scores) -> list[Bar]:
    both: list[Any] = [shares(scores, _BINS) for scores in (seen, tested)]
    # By the root: most scores lie at the two ends, and what lies between them is what one looks for.
    both = [np.sqrt(one) for one in both]
    highest = max(float(np.max(np.concatenate(both))), 1e-9)
    return [Bar(float(a) / highest, float(b) / highest) for a, b in zip(*both, strict=True)]
