"""The scoring pipeline: many images at a time, fetched, decoded and scored, with results in order.

Fetching waits for the network, while decoding and scoring keep a core busy, so each kind of work has its own threads.
A bounded window moves over the images: while the first one is awaited, those behind it are already under way.
"""

import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Final, Self

from worker.aws.storage import Storage
from worker.contract import S3Uri
from worker.errors import ErrorCode, Interrupted, TwofoldError
from worker.scoring.decoder import MAX_BYTES, decode
from worker.scoring.models import Model
from worker.uris import check_allowed, split

log = logging.getLogger(__name__)

#: Images under way per scoring thread, so that no thread waits for an image while another is decoded.
_AHEAD: Final = 2
#: How often ``cancelled`` is called while an image is awaited.
_CANCEL_CHECK_S: Final = 0.2


class Stages:
    """Milliseconds by stage: ``fetch``, ``decode``, ``score``, ``write``. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ms: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the time of the block, even when it fails."""
        started = time.perf_counter()
        try:
            yield
        finally:
            passed_ms = (time.perf_counter() - started) * 1000
            with self._lock:
                self._ms[stage] += passed_ms

    def take(self) -> dict[str, float]:
        """Returns the times since the last call, and starts again from zero."""
        with self._lock:
            taken, self._ms = dict(self._ms), defaultdict(float)
        return taken


class Pipeline:
    """Threads that fetch and score, kept from one request to the next. Use it as a context manager."""

    def __init__(
        self,
        *,
        storage: Storage,
        allowed_prefixes: tuple[S3Uri, ...],
        threads: int,
        fetchers: int,
        stages: Stages | None = None,
    ) -> None:
        self.stages = stages or Stages()  #: the time spent in each stage
        self._storage = storage
        self._allowed = allowed_prefixes
        self._fetchers = ThreadPoolExecutor(fetchers, thread_name_prefix="fetch")
        self._scorers = ThreadPoolExecutor(threads, thread_name_prefix="score")
        self._window = fetchers + _AHEAD * threads

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Without waiting: a storage that accepts a connection and never answers must not keep a worker from stopping.
        self._fetchers.shutdown(wait=False, cancel_futures=True)
        self._scorers.shutdown(wait=False, cancel_futures=True)

    def scores(
        self, refs: Iterable[tuple[str, str | None]], model: Model, *, cancelled: Callable[[], bool]
    ) -> Iterator[float | TwofoldError]:
        """Yields P(class 1) of each image, or the reason why there is none, in the order of ``refs``.

        Each of ``refs`` is a URI and the version to read, or None for the latest. ``cancelled`` is called between
        images and while one is awaited. Raises Interrupted once it returns True.
        """
        log.debug("scoring with %s %s", model.manifest.name, model.manifest.version)
        window: deque[Future[float | TwofoldError]] = deque()
        try:
            for ref, version_id in refs:
                fetched = self._fetchers.submit(self._fetch, ref, version_id)
                window.append(self._scorers.submit(self._score, fetched, model))
                if len(window) >= self._window:
                    yield _wait(window.popleft(), cancelled)
            while window:
                yield _wait(window.popleft(), cancelled)
        finally:
            for future in window:
                future.cancel()

    def _fetch(self, ref: str, version_id: str | None) -> bytes:
        split(ref)
        check_allowed(ref, self._allowed)
        with self.stages.timed("fetch"):
            return self._storage.read(ref, max_bytes=MAX_BYTES, version_id=version_id)

    def _score(self, fetched: Future[bytes], model: Model) -> float | TwofoldError:
        try:
            data = fetched.result()
            with self.stages.timed("decode"):
                pixels = decode(data, size_px=model.manifest.image_size)
            with self.stages.timed("score"):
                return model.scorer.score(pixels)
        except TwofoldError as error:
            return error


def _wait(future: Future[float | TwofoldError], cancelled: Callable[[], bool]) -> float | TwofoldError:
    while not cancelled():
        if wait([future], timeout=_CANCEL_CHECK_S).done:
            return future.result()
    raise Interrupted(ErrorCode.UNAVAILABLE, "the worker is stopping", delay_s=0)
