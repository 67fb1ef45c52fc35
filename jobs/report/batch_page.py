"""The report of a batch job: counts, scores, example images and errors, as one HTML page.

    rows = RowSummary()
    rows.add(lines)                              once per chunk of rows
    facts = gather(results, rows, storage, …)    reads the example images, their names, and facts on the model
    render(facts) -> str                         pure: the same facts give the same page

It needs none of the training libraries.
"""

import base64
import heapq
import io
from array import array
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
from PIL import Image
from pydantic import ValidationError

from jobs import html
from jobs.batch.file_names import FILE
from jobs.batch.results import Line, Results
from jobs.decoding import decode
from jobs.metrics import scored_images
from jobs.metrics.arrays import Scores
from jobs.metrics.drift import drift, shares
from jobs.metrics.scored_images import ScoredImage
from jobs.metrics.unsure_rule import BandFigures, Proportion
from jobs.report import charts
from jobs.unsure_band import described
from jobs.wording import program
from worker.aws.storage import Storage
from worker.batch import cost
from worker.batch.job_folder import UPLOADS
from worker.contract import UNSURE, Job, ModelManifest, PredictionRow
from worker.errors import TwofoldError
from worker.predictions import Rule
from worker.scoring.limits import MAX_BYTES
from worker.scoring.models import MANIFEST_FILE

#: Images of each kind and label.
EACH: Final = 8
#: Failed rows listed for each code.
EXAMPLES: Final = 3
_THUMBNAIL_PX: Final = 160
_READERS: Final = 8
#: Wide enough for a telephone.
_BINS: Final = 20
_MAX_CSV_BYTES: Final = 1024 * 1024 * 1024
_MAX_JSON_BYTES: Final = 1024 * 1024
#: A population stability index of this much is a large shift. If chance alone gives as much, there are too few images.
_LARGE: Final = 0.25
_SHIFTS: Final = {"no notable shift": "same", "some shift": "some", "a large shift": "large"}

#: What each error code means, and what to do about it.
ADVICE: Final = {
    "access_denied": "Storage denied access. Allow the worker's role to read the object, then redrive.",
    "archived": "The object is in an archive storage class. Restore it, then redrive.",
    "bad_source_ref": "Not of the form s3://bucket/key. Correct the list and submit it as a new job.",
    "damaged": "The file is truncated or corrupt. Replace it, then redrive.",
    "decoder_crashed": "The file makes its decoder crash. Save it again with another program, then redrive.",
    "empty": "The file has zero bytes. Replace it, then redrive.",
    "not_allowed": "The object is outside the worker's TWOFOLD_ALLOWED_PREFIXES. Add its prefix there, then redrive.",
    "not_an_image": "Not a JPEG, PNG, WebP, GIF, BMP or TIFF file. Replace it with one of the same name, then redrive.",
    "not_found": "There is no such file or object. Put it there, then redrive.",
    "too_many_bytes": "The file is larger than 32 MiB. Replace it with a smaller one, then redrive.",
    "too_many_pixels": "The image has more than 30 million pixels. Reduce it, then redrive.",
    "too_much_memory": "Decoding the file takes too much memory. Save it again, or smaller, then redrive.",
    "too_slow": "Decoding the file takes too long. Save it again with another program, then redrive.",
    "unavailable": "Storage failed on every attempt. Redrive.",
    "unsupported_pixels": "32-bit samples have no defined black and white. Replace it with 8 or 16 bits, then redrive.",
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
        self.decided = 0  #: rows that were scored with a band of unsure scores
        self.unsure: Counter[str] = Counter()  #: those in the band, by label
        self._scores = (array("d"), array("d"))  #: by class
        self._certain: dict[str, _Heap] = {}  #: by label
        self._uncertain: dict[str, _Heap] = {}

    def add(self, lines: Iterable[Line]) -> None:
        """Adds some more rows."""
        for line in lines:
            row = line.row
            self.threshold = row.threshold
            self.models[row.model_version] += 1
            if row.error_code is not None:
                self._add_failure(row, row.error_code)
            elif row.label is not None and row.score is not None and row.confidence is not None:
                is_one = row.score >= row.threshold
                self._scores[is_one].append(row.score)
                if is_one:
                    self.positive = row.label
                self.labels[row.label] += 1
                self.decided += row.decision is not None
                self.unsure[row.label] += row.decision == UNSURE
                distance = abs(row.score - row.threshold)
                _keep(self._certain.setdefault(row.label, []), (row.confidence, -row.row, row))
                _keep(self._uncertain.setdefault(row.label, []), (-distance, -row.row, row))

    def _add_failure(self, row: PredictionRow, code: str) -> None:
        group = self.failures.setdefault(code, FailureGroup())
        group.count += 1
        if len(group.examples) < EXAMPLES:
            group.examples.append(row)

    def scores(self, label: int) -> Scores:
        """Returns the scores of the rows with class 0 or 1 as their answer, ``(N,)``."""
        return np.array(self._scores[label])

    @property
    def scored(self) -> int:
        """The number of rows with a label."""
        return self.labels.total()

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
    """The example images of one label. If there are only a few, ``uncertain`` has them all, and ``certain`` none."""

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
    cancelled: bool = False
    labels: tuple[str, str] | None = None  #: class 0, class 1; None: the model's bundle cannot be read
    names: dict[int, str] = field(default_factory=dict)  #: the names of uploaded files, by row, of the rows shown
    band: BandFigures | None = None  #: of the model's test images; None: no band, or one that cannot be read


def gather(
    results: Results, rows: RowSummary, storage: Storage, *, model_uri: str | None, complete: bool
) -> BatchFacts:
    """Reads what the page needs in addition to the rows. ``model_uri`` is used if the job names no model."""
    record = results.record
    reports = record.answers(results.job) if complete else []
    images = _read_images(rows, storage)
    job = results.job
    manifest, test = _read_model(job.model_uri or model_uri, rows, storage)
    return BatchFacts(
        job=job,
        rows=rows,
        images=images,
        test_scores=scored_images.scores(test),
        worker_s=sum(report.seconds for report in reports) if complete else None,
        cancelled=not complete and record.is_cancelled(),
        labels=manifest.labels if manifest else None,
        names=_read_names(results, _shown(rows, images)),
        band=_test_band(job, manifest, test) if rows.decided else None,
    )


def _read_images(rows: RowSummary, storage: Storage) -> list[LabelImages]:
    with ThreadPoolExecutor(_READERS) as pool:

        def read(chosen: list[PredictionRow]) -> list[Thumbnail]:
            return [*map(Thumbnail, chosen, pool.map(lambda row: _read_thumbnail(row, storage), chosen))]

        return [LabelImages(name, *map(read, examples(rows, name))) for name in sorted(rows.labels)]


def examples(rows: RowSummary, label: str) -> tuple[list[PredictionRow], list[PredictionRow]]:
    """Returns the least and the most certain rows of a label, none of them twice."""
    uncertain = rows.uncertain(label)
    seen = {row.row for row in uncertain}
    return uncertain, [row for row in rows.certain(label) if row.row not in seen]


def _read_thumbnail(row: PredictionRow, storage: Storage) -> str | None:
    try:
        pixels = decode(storage.read(row.source_ref, max_bytes=MAX_BYTES), size_px=_THUMBNAIL_PX)
    except TwofoldError:  # the object was removed or replaced since it was scored
        return None
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _read_model(
    model_uri: str | None, rows: RowSummary, storage: Storage
) -> tuple[ModelManifest | None, list[ScoredImage]]:
    """Returns the manifest and the test images of the model from its bundle, as far as they can be read.

    A bundle of another version than the one that scored the rows says nothing about them.
    """
    if model_uri is None or not model_uri.startswith("s3://"):
        return None, []
    bundle = model_uri.rstrip("/")
    try:
        manifest = ModelManifest.model_validate_json(
            storage.read(f"{bundle}/{MANIFEST_FILE}", max_bytes=_MAX_JSON_BYTES)
        )
        if rows.models.keys() - {manifest.version}:
            return None, []
        data = storage.read(f"{bundle}/{scored_images.FILE}", max_bytes=_MAX_CSV_BYTES)
    except (TwofoldError, ValidationError):  # the bundle was removed or replaced; the page says so
        return None, []
    return manifest, scored_images.from_csv(data)


def _test_band(job: Job, manifest: ModelManifest | None, test: list[ScoredImage]) -> BandFigures | None:
    """Returns what the job's band does on the model's test images."""
    if manifest is None or not test:
        return None
    rule = Rule.of(manifest, threshold=job.threshold, unsure=job.unsure)
    if rule.unsure is None:
        return None
    truth, scores = scored_images.truth(test, manifest.labels), scored_images.scores(test)
    return BandFigures.of(truth, scores, threshold=rule.threshold, band=rule.unsure)


def _shown(rows: RowSummary, images: list[LabelImages]) -> list[PredictionRow]:
    """Returns the rows that the page names."""
    failed = [row for group in rows.failures.values() for row in group.examples]
    return failed + [shot.row for kind in images for shot in (*kind.uncertain, *kind.certain)]


def _read_names(results: Results, shown: list[PredictionRow]) -> dict[int, str]:
    """Returns the names that the rows' files had on the machine that uploaded them, from the shards of the job."""
    job = results.job
    if FILE not in job.columns or job.parent is not None:  # the rows of a redrive have their parent's numbers
        return {}
    wanted = {row.row for row in shown}
    with ThreadPoolExecutor(_READERS) as pool:
        shards = pool.map(results.shard, sorted({row // job.shard_images for row in wanted}))
        found = {line.row: line.columns.get(FILE, "") for shard in shards for line in shard if line.row in wanted}
    return {row: name for row, name in found.items() if name}


def render(facts: BatchFacts) -> str:
    """Renders the page."""
    return html.render("batch_page.html.j2", facts=facts, job=facts.job, rows=facts.rows, view=_View(facts))


@dataclass(frozen=True)
class Bar:
    """A bar of the histogram: the shares of all images with scores from ``low`` to ``high``, by answer."""

    low: float
    high: float
    images: int
    zeros: float
    both: float


class _View:
    """What the template derives from the facts."""

    advice = ADVICE
    assumes = cost.ASSUMES
    program = program()
    described = staticmethod(described)

    def __init__(self, facts: BatchFacts) -> None:
        self._facts = facts
        rows = facts.rows
        self.scores = np.concatenate([rows.scores(0), rows.scores(1)])
        self.scored, self.failed = rows.scored, rows.failed
        self.done = self.scored + self.failed
        self.tested = len(facts.test_scores)
        self.drift = drift(facts.test_scores, self.scores)
        self.unsure = Proportion(rows.unsure.total(), self.scored)

    @property
    def counts(self) -> list[tuple[str, int]]:
        """The number of images by label, class 0 first."""
        found = self._facts.rows.labels
        return [(name, found[name]) for name in self._facts.labels or sorted(found, key=self.is_one)]

    @property
    def positive(self) -> str | None:
        """The label of class 1; None if it is unknown, because no row has it and the bundle cannot be read."""
        return self._facts.labels[1] if self._facts.labels else self._facts.rows.positive

    def is_one(self, label: str) -> bool:
        """Whether a label is that of class 1, which has the same colour in every report."""
        return label == self.positive

    @property
    def failures(self) -> list[tuple[str, FailureGroup]]:
        """The failed rows by error code, the most frequent first."""
        return sorted(self._facts.rows.failures.items(), key=lambda item: -item[1].count)

    @property
    def usd(self) -> float | None:
        """What the worker's time costs on Lambda; None if the job is not complete."""
        job, worker_s = self._facts.job, self._facts.worker_s
        return None if worker_s is None else cost.usd(images=job.images, parts=job.parts, worker_s=worker_s)

    @property
    def shift(self) -> str:
        """Whether the scores are distributed like those of the test images: same, some, large, or few (cannot tell)."""
        if self.drift is None or self.drift.psi <= self.drift.chance >= _LARGE:
            return "few"
        return _SHIFTS[self.drift.verdict]

    @cached_property
    def bars(self) -> list[Bar]:
        """The bars of the histogram that are not empty."""
        zeros, both = (shares(scores, _BINS) * len(scores) for scores in (self._facts.rows.scores(0), self.scores))
        total = max(len(self.scores), 1)
        return [
            Bar(number / _BINS, (number + 1) / _BINS, round(both[number]), zeros[number] / total, both[number] / total)
            for number in range(_BINS)
            if both[number]
        ]

    @cached_property
    def test_shares(self) -> list[float]:
        """The shares of the test images in the same bins."""
        heights: list[float] = shares(self._facts.test_scores, _BINS).tolist()
        return heights

    @property
    def test_line(self) -> list[tuple[float, float]]:
        """The upper outline of the histogram of the test images, as points for ``Plot.steps``."""
        edges = [(number + 1) / _BINS for number in range(_BINS)]
        return [(0.0, self.test_shares[0]), *zip(edges, self.test_shares, strict=True)]

    @property
    def plot(self) -> charts.Plot:
        """The plot of the histogram."""
        highest = max([*(bar.both for bar in self.bars), *self.test_shares])
        return charts.score_shares(highest, f"score: probability of {html.short(self.positive or 'class 1', 24)}")

    def name(self, row: PredictionRow) -> str:
        """Returns what a person knows an image as: the name of its file, not that of the object it was uploaded to."""
        if row.row in self._facts.names:
            return self._facts.names[row.row]
        uploads = f"{self._facts.job.output_uri.rstrip('/')}/{UPLOADS}/"
        return html.file_name(row.source_ref) if row.source_ref.startswith(uploads) else row.source_ref
