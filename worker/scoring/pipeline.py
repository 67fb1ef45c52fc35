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
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Final, Self

from worker.aws.storage import Storage
from worker.contract import S3Uri
from worker.errors import ErrorCode, Interrupted, Reject, Retry, TwofoldError
from worker.scoring.limits import MAX_BYTES, MIB, Budget
from worker.scoring.models import Model
from worker.scoring.sandbox import Sandbox
from worker.threads import pool_of
from worker.uris import check_allowed, split

log = logging.getLogger(__name__)

#: Images under way per scoring thread, so that no thread waits for an image while another is decoded.
_AHEAD: Final = 2
#: Images that are fetched and not yet scored; one for each scoring thread comes on top.
DEFAULT_IN_FLIGHT_BYTES: Final = 128 * MIB
#: From this slow image of a request on, its next images have less time, down to several times what most images need.
_SLOW_IMAGES: Final = 2
_LEAST_CPU_S: Final = 0.25
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


class _Image:
    """An image under way. Its bytes are held only by the thread that fetches or scores it."""

    def __init__(self, ref: str, version_id: str | None, model: Model, allowance: "_Allowance") -> None:
        self.ref = ref
        self.version_id = version_id
        self.model = model
        self.allowance = allowance
        self.answer: Future[float | TwofoldError] = Future()
        self.fetched = False  #: storage has delivered it
        self.given_up = False  #: nobody waits for it


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
        self._fetchers = pool_of(fetchers, "fetch")
        self._scorers = pool_of(sandbox.processes, "score")
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
        patience_s: float = math.inf,
    ) -> Iterator[float | TwofoldError]:
        """Yields P(class 1) of each image, or the reason why there is none, in the order of ``refs``.

        Each of ``refs`` is a URI and the version to read, or None for the latest. ``cancelled`` is called between
        images and while one is awaited. Raises Interrupted once it returns True. Storage is waited for ``patience_s``
        in all; an image that is not there by then is a Retry.
        """
        log.debug("scoring with %s %s", model.manifest.name, model.manifest.version)
        allowance = _Allowance(patience_s, self.sandbox.limits.cpu_s)
        window: deque[_Image] = deque()
        try:
            for ref, version_id in refs:
                image = _Image(ref, version_id, model, allowance)
                self._fetchers.submit(_answering, image, self._fetch)
                window.append(image)
                if len(window) >= self._window:
                    yield from _first(len(window) // 2, window, allowance, cancelled)
            yield from _first(len(window), window, allowance, cancelled)
        finally:
            for image in window:
                image.given_up = True

    def _fetch(self, image: _Image) -> None:
        if image.given_up:
            return
        split(image.ref)
        check_allowed(image.ref, self._allowed)
        taken_bytes = 0

        def take(size_bytes: int) -> bool:
            nonlocal taken_bytes
            fits = self._in_flight.try_take(size_bytes)
            taken_bytes = size_bytes if fits else 0
            return fits

        try:
            with self.stages.timed("fetch"):
                data = self._storage.fetch(image.ref, max_bytes=MAX_BYTES, version_id=image.version_id, take=take)
            image.fetched = data is not None
            self._scorers.submit(_answering, image, self._score, data, taken_bytes)
        except BaseException:
            self._in_flight.give_back(taken_bytes)
            raise

    def _score(self, image: _Image, data: bytes | memoryview | None, taken_bytes: int) -> None:
        """Scores an image, and frees its part of the budget. ``data`` is None for one that did not fit into it."""
        try:
            if image.given_up:
                return
            if data is None:
                with self.stages.timed("fetch"):
                    data = self._storage.fetch(image.ref, max_bytes=MAX_BYTES, version_id=image.version_id)
                image.fetched = True
            try:
                scored = self.sandbox.score(data, image.model.graph, cpu_s=image.allowance.cpu_s)
            except Reject as error:
                if error.code is ErrorCode.TOO_SLOW:
                    image.allowance.shorten()
                raise
            self.stages.add("decode", scored.decode_ms)
            self.stages.add("score", scored.score_ms)
            image.answer.set_result(scored.score)
        finally:
            self._in_flight.give_back(taken_bytes)


class _Allowance:
    """What a request may still use: seconds of waiting for storage, and processor seconds for its next image."""

    def __init__(self, patience_s: float, cpu_s: float) -> None:
        self.patience_s = patience_s
        self.cpu_s = cpu_s
        self._slow = 0

    def shorten(self) -> None:
        """Halves the time of the next images, from the second slow one on: a request of slow ones would take hours."""
        self._slow += 1
        if self._slow >= _SLOW_IMAGES:
            self.cpu_s = max(self.cpu_s / 2, min(_LEAST_CPU_S, self.cpu_s))


def _answering(image: _Image, step: Callable[..., None], *details: object) -> None:
    """Runs a step towards the answer. What goes wrong is the answer."""
    try:
        step(image, *details)
    except TwofoldError as error:
        # Without the frames that it came through, which hold the image: thousands of errors may wait to be written.
        error.__traceback__ = error.__cause__ = error.__context__ = None
        image.answer.set_result(error)
    except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
        image.answer.set_exception(error)


def _first(
    count: int, window: deque[_Image], allowance: _Allowance, cancelled: Callable[[], bool]
) -> Iterator[float | TwofoldError]:
    """Yields the answers to the first images, and takes these out of the window."""
    if count and allowance.patience_s > 0:
        # The last one first: a thread that wakes up for every image takes a core from those that decode.
        wait([window[count - 1].answer], timeout=_CANCEL_CHECK_S)
    for _ in range(count):
        yield _wait(window.popleft(), allowance, cancelled)


def _wait(image: _Image, allowance: _Allowance, cancelled: Callable[[], bool]) -> float | TwofoldError:
    while not cancelled():
        started_s = time.monotonic()
        timeout_s = _CANCEL_CHECK_S if image.fetched else max(0.0, min(_CANCEL_CHECK_S, allowance.patience_s))
        if image.answer.done() or wait([image.answer], timeout=timeout_s).done:
            return image.answer.result()
        if not image.fetched:
            allowance.patience_s -= time.monotonic() - started_s
            if allowance.patience_s <= 0:
                image.given_up = True
                return Retry(ErrorCode.UNAVAILABLE, f"{image.ref}: not delivered in the time of the request")
    image.given_up = True
    raise Interrupted(ErrorCode.UNAVAILABLE, "the worker is stopping", delay_s=0)
