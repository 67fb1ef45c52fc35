"""Images to scores, many at a time and in order: fetch, decode, score.

Fetching waits for the network and decoding and scoring keep a core busy, so each has its own threads. A bounded window
moves over the images: the first is waited for while those behind it are read.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final, Self

from worker.contract import S3Uri
from worker.errors import ErrorCode, Reject, Retry, TwofoldError
from worker.images import MAX_BYTES, decode
from worker.model import Model
from worker.storage import Storage, split

#: Images on their way for each scoring thread, so that none waits for an image while another is decoded.
_AHEAD: Final = 2


#: How long a stop can go unnoticed while an image is waited for.
_ASK_S: Final = 0.2


class Pipeline:
    """Threads that are kept from one request to the next. Close it, or use it as a context manager."""

    def __init__(self, *, storage: Storage, allowed_prefixes: tuple[S3Uri, ...], threads: int, fetchers: int) -> None:
        self._storage = storage
        self._allowed = allowed_prefixes
        self._fetchers = ThreadPoolExecutor(fetchers, thread_name_prefix="fetch")
        self._scorers = ThreadPoolExecutor(threads, thread_name_prefix="score")
        self._window = fetchers + _AHEAD * threads

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Not waited for: a storage that accepts and never answers must not keep a worker from stopping.
        self._fetchers.shutdown(wait=False, cancel_futures=True)
        self._scorers.shutdown(wait=False, cancel_futures=True)

    def scores(
        self, refs: Iterable[tuple[str, str | None]], model: Model, *, cancelled: Callable[[], bool]
    ) -> Iterator[float | TwofoldError]:
        """P(class 1) of each image, or why there is none (Reject: never; Retry: not now), in the order of ``refs``:
        URIs, each with the version that is meant, or None.

        ``cancelled`` is asked between images and while one is waited for; Retry is raised once it says so.
        """
        window: deque[Future[float | TwofoldError]] = deque()
        try:
            for ref, version_id in refs:
                fetched = self._fetchers.submit(self._fetch, ref, version_id)
                window.append(self._scorers.submit(_score, fetched, model))
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
        return self._storage.read(ref, max_bytes=MAX_BYTES, version_id=version_id)


def _wait(future: Future[float | TwofoldError], cancelled: Callable[[], bool]) -> float | TwofoldError:
    while not cancelled():
        if wait([future], timeout=_ASK_S).done:
            return future.result()
    raise Retry(ErrorCode.UNAVAILABLE, "the worker was told to stop", delay_s=0)


def check_allowed(uri: str, prefixes: tuple[S3Uri, ...]) -> None:
    """Raises Reject ``not_allowed`` unless ``uri`` lies under one of ``prefixes``: no packet goes anywhere else."""
    if ".." in uri.split("/"):  # to S3 a name like any other, but not to whoever reads this prefix as a folder
        raise Reject(ErrorCode.NOT_ALLOWED, f"{uri[:200]} climbs out of its prefix")
    if not is_allowed(uri, prefixes):
        raise Reject(ErrorCode.NOT_ALLOWED, f"{uri[:200]} is outside TWOFOLD_ALLOWED_PREFIXES")


def is_allowed(uri: str, prefixes: tuple[S3Uri, ...]) -> bool:
    """Whether ``uri`` is one of ``prefixes`` or below it: "s3://shelter" is not above "s3://shelter-of-others"."""
    return any(f"{uri.rstrip('/')}/".startswith(f"{prefix.rstrip('/')}/") for prefix in prefixes)


def _score(fetched: Future[bytes], model: Model) -> float | TwofoldError:
    try:
        return model.scorer.score(decode(fetched.result(), size_px=model.manifest.image_size))
    except TwofoldError as error:
        return error
