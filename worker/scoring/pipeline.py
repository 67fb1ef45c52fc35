"""The scoring pipeline: many images at a time, fetched, decoded and scored, with results in order.

Fetching waits for the network, while decoding and scoring keep a core busy, so each kind of work has its own threads;
those that score wait for a process of the sandbox. A bounded window moves over the images: while the first one is
awaited, those behind it are already under way. The bytes that are fetched and not yet scored share a budget. An image
that does not fit is fetched when it is its turn.
"""

import logging
import math
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Self

from worker.aws.storage import Storage
from worker.contract import S3Uri
from worker.errors import ErrorCode, Interrupted, Retry, TwofoldError
from worker.scoring.limits import MAX_BYTES, MIB, Budget
from worker.scoring.models import Model
from worker.scoring.sandbox import Sandbox
from worker.uris import check_allowed, split

log = logging.getLogger(__name__)

#: Images under way per scoring thread, so that no thread waits for an image while another is decoded.
_AHEAD: Final = 2
#: Images that are fetched and not yet scored; one for each scoring thread comes on top.
DEFAULT_IN_FLIGHT_BYTES: Final = 128 * MIB
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
            self.add(stage, (time.perf_counter() - started) * 1000)

    def add(self, stage: str, passed_ms: float) -> None:
        """Adds a time that was measured elsewhere."""
        with self._lock:
            self._ms[stage] += passed_ms

    def take(self) -> dict[str, float]:
        """Returns the times since the last call, and starts again from zero."""
        with self._lock:
            taken, self._ms = dict(self._ms), defaultdict(float)
        return taken


@dataclass(frozen=True)
class _Body:
    """An image as it was fetched; ``data`` is None if it did not fit into the budget."""

    data: bytes | memoryview | None
    taken_bytes: int  #: of the budget


class Pipeline:
    """Threads that fetch and score, kept from one request to the next. Use it as a context manager."""

    def __init__(
        self,
        *,
        storage: Storage,
        sandbox: Sandbox,
        allowed_prefixes: tuple[S3Uri, ...],
        fetchers: int,
        in_flight_bytes: int = DEFAULT_IN_FLIGHT_BYTES,
        stages: Stages | None = None,
    ) -> None:
        self.stages = stages or Stages()  #: the time spent in each stage
        self._storage = storage
        self.sandbox = sandbox  #: decodes and scores
        self._allowed = allowed_prefixes
        self._in_flight = Budget(in_flight_bytes)
        self._fetchers = _started(fetchers, "fetch")
        self._scorers = _started(sandbox.processes, "score")
        self._window = fetchers + _AHEAD * sandbox.processes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Without waiting: a storage that accepts a connection and never answers must not keep a worker from stopping.
        self._fetchers.shutdown(wait=False, cancel_futures=True)
        self._scorers.shutdown(wait=False, cancel_futures=True)

    def scores(
        self,
        refs: Iterable[tuple[str, str | None]],
        model: Model,
        *,
        cancelled: Callable[[], bool],
        until_s: float = math.inf,
    ) -> Iterator[float | TwofoldError]:
        """Yields P(class 1) of each image, or the reason why there is none, in the order of ``refs``.

        Each of ``refs`` is a URI and the version to read, or None for the latest. ``cancelled`` is called between
        images and while one is awaited. Raises Interrupted once it returns True. An image that storage has not
        delivered at ``until_s``, by ``time.monotonic``, is a Retry.
        """
        log.debug("scoring with %s %s", model.manifest.name, model.manifest.version)
        window: deque[tuple[Future[_Body], Future[float | TwofoldError]]] = deque()
        try:
            for ref, version_id in refs:
                fetched = self._fetchers.submit(self._fetch, ref, version_id, until_s)
                window.append((fetched, self._scorers.submit(self._score, fetched, ref, version_id, model, until_s)))
                if len(window) >= self._window:
                    yield _wait(window.popleft()[1], cancelled)
            while window:
                yield _wait(window.popleft()[1], cancelled)
        finally:
            for fetched, scored in window:
                fetched.cancel()
                if scored.cancel():
                    fetched.add_done_callback(self._drop)

    def _fetch(self, ref: str, version_id: str | None, until_s: float) -> _Body:
        split(ref)
        check_allowed(ref, self._allowed)
        if time.monotonic() >= until_s:
            raise Retry(ErrorCode.UNAVAILABLE, f"{ref}: the time of the request was over before it was read")
        taken_bytes = 0

        def take(size_bytes: int) -> bool:
            nonlocal taken_bytes
            fits = self._in_flight.try_take(size_bytes)
            taken_bytes = size_bytes if fits else 0
            return fits

        try:
            with self.stages.timed("fetch"):
                data = self._storage.fetch(ref, max_bytes=MAX_BYTES, version_id=version_id, take=take)
        except BaseException:
            self._in_flight.give_back(taken_bytes)
            raise
        return _Body(data, taken_bytes)

    def _score(
        self, fetched: Future[_Body], ref: str, version_id: str | None, model: Model, until_s: float
    ) -> float | TwofoldError:
        body = None
        try:
            body = self._await(fetched, ref, until_s)
            data = body.data
            if data is None:
                with self.stages.timed("fetch"):
                    data = self._storage.fetch(ref, max_bytes=MAX_BYTES, version_id=version_id)
            scored = self.sandbox.score(data, model.graph)
            self.stages.add("decode", scored.decode_ms)
            self.stages.add("score", scored.score_ms)
            return scored.score
        except TwofoldError as error:
            # Without the frames that it came through, which hold the image: thousands of errors may wait to be written.
            error.__traceback__ = error.__cause__ = error.__context__ = None
            return error
        finally:
            if body is not None:
                self._in_flight.give_back(body.taken_bytes)

    def _await(self, fetched: Future[_Body], ref: str, until_s: float) -> _Body:
        try:
            return fetched.result(None if until_s == math.inf else max(0.0, until_s - time.monotonic()))
        except TimeoutError:
            fetched.add_done_callback(self._drop)
            raise Retry(ErrorCode.UNAVAILABLE, f"{ref}: not delivered in the time of the request") from None

    def _drop(self, fetched: Future[_Body]) -> None:
        """Frees what an image has taken that will not be scored."""
        if not fetched.cancelled() and fetched.exception() is None:
            self._in_flight.give_back(fetched.result().taken_bytes)


def _wait(future: Future[float | TwofoldError], cancelled: Callable[[], bool]) -> float | TwofoldError:
    while not cancelled():
        if wait([future], timeout=_CANCEL_CHECK_S).done:
            return future.result()
    raise Interrupted(ErrorCode.UNAVAILABLE, "the worker is stopping", delay_s=0)


def _started(threads: int, name: str) -> ThreadPoolExecutor:
    """Returns a pool whose threads all run: ``Thread.start`` can wait forever for one that starts without memory."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    everyone = threading.Barrier(threads)
    wait([pool.submit(everyone.wait) for _ in range(threads)])
    return pool
