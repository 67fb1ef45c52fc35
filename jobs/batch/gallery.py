"""The rows of a job to what its page shows: counts, the spread of the scores, and the images worth a look."""

import base64
import heapq
import io
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from PIL import Image

from jobs.batch.results import Line
from jobs.metrics.drift import Scores
from worker.aws.storage import Storage
from worker.contract import PredictionRow
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
