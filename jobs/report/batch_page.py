"""The report of a batch job: counts, scores, example images and errors, as one HTML page.

    rows = RowSummary()
    rows.add(lines)                              once per chunk of rows
    facts = gather(results, rows, storage, …)    reads the example images and the model's test scores
    render(facts) -> str                         pure: the same facts give the same page

It needs none of the training libraries.
"""

import base64
import heapq
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from PIL import Image

from jobs.batch.results import Line, Results
from jobs.decoding import decode
from jobs.metrics import scored_images
from jobs.metrics.arrays import Scores
from jobs.metrics.drift import drift, shares
from jobs.report import charts, html
from worker.aws.storage import Storage
from worker.batch import cost
from worker.contract import Job, PredictionRow
from worker.errors import TwofoldError
from worker.scoring.limits import MAX_BYTES

#: Images of each kind and label.
EACH: Final = 8
#: Failed rows listed for each code.
EXAMPLES: Final = 3
_THUMBNAIL_PX: Final = 160
_READERS: Final = 8
_BINS: Final = 40
_MAX_CSV_BYTES: Final = 1024 * 1024 * 1024

#: What each error code means, and what to do about it.
ADVICE: Final = {
    "access_denied": "Storage denied access. Allow the worker's role to read the object, then redrive.",
    "archived": "The object is in an archive storage class. Restore it, then redrive.",
    "bad_source_ref": "Not of the form s3://bucket/key. Correct the list and submit it as a new job.",
    "damaged": "The file is truncated or corrupt. Replace it, then redrive.",
    "decoder_crashed": "The file makes its decoder crash. Save it again with another program, then redrive.",
    "empty": "The file has zero bytes. Upload it again, then redrive.",
    "not_allowed": "The object is outside the worker's TWOFOLD_ALLOWED_PREFIXES. Add its prefix there, then redrive.",
    "not_an_image": "Not a JPEG, PNG, WebP, GIF, BMP or TIFF file. Replace it with one, then redrive.",
    "not_found": "The object does not exist. Upload it, then redrive.",
    "too_many_bytes": "The file is larger than 32 MiB. Replace it with a smaller one, then redrive.",
    "too_many_pixels": "The image has more than 30 million pixels. Reduce it, then redrive.",
    "too_much_memory": "Decoding the file takes too much memory. Save it again, or smaller, then redrive.",
    "too_slow": "Decoding the file takes too long. Save it again with another program, then redrive.",
    "unavailable": "Storage failed on every attempt. Redrive.",
    "unsupported_pixels": "The image has 32-bit samples, for which black and white are not defined.",
}

#: (larger is kept, minus the row's number, the row): of equal ones the first row is kept.
_Heap = list[tuple[float, int, PredictionRow]]


@dataclass
class FailureGroup:
    """The rows with one error code."""

    count: int = 0
    examples: list[PredictionRow] = field(default_factory=list)  #: the first ``EXAMPLES``


class RowSummary:
    """What the page shows of the rows: counts, all scores, and the few images and failures that are listed."""

    def __init__(self) -> None:
        self.labels: Counter[str] = Counter()
        self.failures: dict[str, FailureGroup] = {}
        self.models: Counter[str] = Counter()
        self.threshold: float | None = None
        self.positive: str | None = None  #: the label of class 1; None if no row has it
        self._scores: list[Scores] = []
        self._certain: dict[str, _Heap] = {}  #: by label
        self._uncertain: dict[str, _Heap] = {}

    def add(self, lines: Iterable[Line]) -> None:
        """Adds some more rows."""
        scores = []
        for line in lines:
            row = line.row
            self.threshold = row.threshold
            self.models[row.model_version] += 1
            if row.error_code is not None:
                self._add_failure(row, row.error_code)
            elif row.label is not None and row.score is not None and row.confidence is not None:
                scores.append(row.score)
                if row.score >= row.threshold:
                    self.positive = row.label
                self.labels[row.label] += 1
                distance = abs(row.score - row.threshold)
                _keep(self._certain.setdefault(row.label, []), (row.confidence, -row.row, row))
                _keep(self._uncertain.setdefault(row.label, []), (-distance, -row.row, row))
        self._scores.append(np.array(scores))

    def _add_failure(self, row: PredictionRow, code: str) -> None:
        group = self.failures.setdefault(code, FailureGroup())
        group.count += 1
        if len(group.examples) < EXAMPLES:
            group.examples.append(row)

    @property
    def scores(self) -> Scores:
        """All scores, ``(N,)``."""
        return np.concatenate(self._scores) if self._scores else np.array([])

    @property
    def failed(self) -> int:
        """The number of rows with an error code."""
        return sum(group.count for group in self.failures.values())

    def uncertain(self, label: str) -> list[PredictionRow]:
        """Returns the rows of a label whose scores are nearest to the threshold, the nearest first."""
        return _in_order(self._uncertain[label])

    def certain(self, label: str) -> list[PredictionRow]:
        """Returns the rows of a label with the highest confidence, the highest first."""
        return _in_order(self._certain[label])


def _keep(heap: _Heap, item: tuple[float, int, PredictionRow]) -> None:
    if len(heap) < EACH:
        heapq.heappush(heap, item)
    else:
        heapq.heappushpop(heap, item)


def _in_order(heap: _Heap) -> list[PredictionRow]:
    return [row for _, _, row in sorted(heap, reverse=True)]


@dataclass(frozen=True)
class Thumbnail:
    """An image of the page. ``data_uri`` is None if the object cannot be read any more."""

    row: PredictionRow
    data_uri: str | None


@dataclass(frozen=True)
class LabelImages:
    """The example images of one label."""

    label: str
    uncertain: list[Thumbnail]
    certain: list[Thumbnail]


@dataclass(frozen=True, kw_only=True)
class BatchFacts:
    """Everything that the page is made of."""

    job: Job
    rows: RowSummary
    images: list[LabelImages]
    test_scores: Scores  #: ``(M,)`` of the model's test images; empty if they cannot be read
    worker_s: float | None  #: None: the job is not complete


def gather(
    results: Results, rows: RowSummary, storage: Storage, *, model_uri: str | None, complete: bool
) -> BatchFacts:
    """Reads what the page needs in addition to the rows. ``model_uri`` is used if the job names no model."""
    reports = results.record.answers(results.job) if complete else []
    return BatchFacts(
        job=results.job,
        rows=rows,
        images=_read_images(rows, storage),
        test_scores=_read_test_scores(results.job.model_uri or model_uri, storage),
        worker_s=sum(report.seconds for report in reports) if complete else None,
    )


def _read_images(rows: RowSummary, storage: Storage) -> list[LabelImages]:
    with ThreadPoolExecutor(_READERS) as pool:

        def read(chosen: list[PredictionRow]) -> list[Thumbnail]:
            return [*map(Thumbnail, chosen, pool.map(lambda row: _read_thumbnail(row, storage), chosen))]

        return [LabelImages(name, read(rows.uncertain(name)), read(rows.certain(name))) for name in sorted(rows.labels)]


def _read_thumbnail(row: PredictionRow, storage: Storage) -> str | None:
    try:
        pixels = decode(storage.read(row.source_ref, max_bytes=MAX_BYTES), size_px=_THUMBNAIL_PX)
    except TwofoldError:  # the object was removed or replaced since it was scored
        return None
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _read_test_scores(model_uri: str | None, storage: Storage) -> Scores:
    """Returns the scores of the model's test images from its bundle; an empty array if they cannot be read."""
    if model_uri is None or not model_uri.startswith("s3://"):
        return np.array([])
    try:
        data = storage.read(f"{model_uri.rstrip('/')}/{scored_images.FILE}", max_bytes=_MAX_CSV_BYTES)
    except TwofoldError:  # the bundle was removed; the page says so
        return np.array([])
    return scored_images.scores(scored_images.from_csv(data))


def render(facts: BatchFacts) -> str:
    """Renders the page."""
    job, rows, scores = facts.job, facts.rows, facts.rows.scores
    heights, test_heights = shares(scores, _BINS).tolist(), shares(facts.test_scores, _BINS).tolist()
    positive = html.short(rows.positive or "class 1", 24)
    usd = None if facts.worker_s is None else cost.usd(images=job.images, parts=job.parts, worker_s=facts.worker_s)
    return html.render(
        "batch_page.html.j2",
        facts=facts,
        job=job,
        rows=rows,
        scored=len(scores),
        failed=rows.failed,
        failures=sorted(rows.failures.items(), key=lambda item: -item[1].count),
        tested=len(facts.test_scores),
        drift=drift(facts.test_scores, scores),
        heights=heights,
        test_line=_outline(test_heights),
        plot=charts.score_shares(max([*heights, *test_heights]), f"score: probability of {positive}"),
        advice=ADVICE,
        usd=usd,
        assumes=cost.ASSUMES,
    )


def _outline(heights: Sequence[float]) -> list[tuple[float, float]]:
    """Returns the upper outline of a histogram, as points for ``Plot.steps``."""
    edges = [(number + 1) / len(heights) for number in range(len(heights))]
    return [(0.0, heights[0]), *zip(edges, heights, strict=True)]
