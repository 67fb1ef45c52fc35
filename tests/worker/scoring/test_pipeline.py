"""The pipeline: results in order, bytes in flight within a budget, and storage that never answers."""

import concurrent.futures
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.workers import wait_until
from tests.conftest import Bench
from worker.aws.storage import Storage
from worker.errors import ErrorCode, Reject, Retry, TwofoldError
from worker.scoring import pipeline as pipeline_module
from worker.scoring.models import Model, Models
from worker.scoring.pipeline import Pipeline
from worker.scoring.sandbox import Sandbox


class _Watched(Storage):
    """Storage that records how many bytes were granted at once, and is silent about some objects."""

    def __init__(self, storage: Storage) -> None:
        self.__dict__ = dict(vars(storage))
        self.silent: set[str] = set()
        self.end = threading.Event()
        self.granted: list[int] = []

    def fetch(self, uri: str, **options: Any) -> Any:
        if uri in self.silent:
            self.end.wait(60)
        take = options.pop("take", None)
        if take is None:
            return super().fetch(uri, **options)

        def watched(size: int) -> bool:
            fits: bool = take(size)
            if fits:
                self.granted.append(size)
            return fits

        return super().fetch(uri, take=watched, **options)


@pytest.fixture
def storage(ministack_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Watched]:
    watched = _Watched(ministack_bench.storage(monkeypatch))
    yield watched
    watched.end.set()


@pytest.fixture
def uris(ministack_bench: Bench, digit_images: Path) -> list[str]:
    images = sorted(digit_images.rglob("*.png"))[::40]
    return [ministack_bench.put(f"in/{path.name}", path.read_bytes()) for path in images]


@pytest.fixture
def model(ministack_bench: Bench, storage: _Watched, sandbox: Sandbox, models: Path) -> Model:
    return Models(storage=storage, sandbox=sandbox).get(ministack_bench.put_bundle(models))


def _open(bench: Bench, storage: Storage, sandbox: Sandbox, in_flight_bytes: int = 2**20) -> Pipeline:
    return Pipeline(
        storage=storage,
        sandbox=sandbox,
        allowed_prefixes=(f"s3://{bench.bucket}/",),
        fetchers=4,
        in_flight_bytes=in_flight_bytes,
    )


def _scores(pipeline: Pipeline, uris: list[str], model: Model, **options: Any) -> list[float | TwofoldError]:
    return list(pipeline.scores(((uri, None) for uri in uris), model, cancelled=lambda: False, **options))


def test_images_that_do_not_fit_into_the_budget_are_scored_all_the_same(
    ministack_bench: Bench, storage: _Watched, sandbox: Sandbox, model: Model, uris: list[str]
) -> None:
    """They are read when it is their turn, and the results are the same, in order."""
    with _open(ministack_bench, storage, sandbox) as pipeline:
        expected = _scores(pipeline, uris, model)
    assert len(set(expected)) > 1
    for in_flight_bytes in (0, 1500):
        storage.granted.clear()
        with _open(ministack_bench, storage, sandbox, in_flight_bytes) as pipeline:
            assert _scores(pipeline, uris * 3, model) == expected * 3
            assert _scores(pipeline, uris, model) == expected  # what was taken has been given back
        assert all(size <= in_flight_bytes for size in storage.granted)


def test_a_request_that_is_given_up_leaves_the_budget_free(
    ministack_bench: Bench, storage: _Watched, sandbox: Sandbox, model: Model, uris: list[str]
) -> None:
    """Whatever was fetched and not scored is freed."""
    with _open(ministack_bench, storage, sandbox) as pipeline:
        for _ in range(5):
            scores = pipeline.scores(((uri, None) for uri in uris), model, cancelled=lambda: False)
            next(scores)
            scores.close()  # type: ignore[attr-defined]
        _scores(pipeline, uris, model)
        # A read that was under way when its request was given up ends by itself.
        wait_until(lambda: pipeline._in_flight.try_take(2**20), what="the budget of what is fetched to be free")


def test_storage_that_never_answers_costs_the_time_of_the_request(
    ministack_bench: Bench, storage: _Watched, sandbox: Sandbox, model: Model, uris: list[str]
) -> None:
    """Its images are to be tried again; those that were delivered in time are scored."""
    storage.silent = set(uris[1::2])
    with _open(ministack_bench, storage, sandbox) as pipeline:
        scores = _scores(pipeline, uris[:4], model, patience_s=1)
    silent = [score for score in scores if isinstance(score, Retry)]
    assert [isinstance(score, Retry) for score in scores] == [False, True, False, True]
    assert {error.code for error in silent} == {ErrorCode.UNAVAILABLE}


def test_slow_scoring_costs_no_image_its_row(
    ministack_bench: Bench,
    storage: _Watched,
    sandbox: Sandbox,
    model: Model,
    uris: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The patience of a request is for storage alone."""
    score = sandbox.score

    def slowly(*asked: Any, **limits: Any) -> Any:
        time.sleep(0.5)
        return score(*asked, **limits)

    monkeypatch.setattr(sandbox, "score", slowly)
    with _open(ministack_bench, storage, sandbox) as pipeline:
        scores = _scores(pipeline, uris * 2, model, patience_s=2)
    assert [one for one in scores if isinstance(one, TwofoldError)] == []


def test_silent_storage_costs_its_time_once_however_many_images_there_are(
    ministack_bench: Bench,
    storage: _Watched,
    sandbox: Sandbox,
    model: Model,
    uris: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once the time is used up, no image is waited for: at 0.2 s for each of these, they would take 200 s more."""
    waited_s = []

    def watched(futures: Any, timeout: float) -> Any:
        waited_s.append(timeout)
        return concurrent.futures.wait(futures, timeout=timeout)

    monkeypatch.setattr(pipeline_module, "wait", watched)
    storage.silent = set(uris)
    with _open(ministack_bench, storage, sandbox) as pipeline:
        scores = _scores(pipeline, uris[:1] * 1000, model, patience_s=1)
    assert [type(score) for score in scores] == [Retry] * 1000
    assert sum(waited_s) < 3


def test_many_slow_images_do_not_use_up_the_time_of_their_neighbours(
    ministack_bench: Bench, storage: _Watched, sandbox: Sandbox, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After two of them, the others of the request have half of the time, and half of that, down to a quarter second.

    The next request begins with all of it.
    """
    allowed: list[float] = []

    def slow(*_: Any, cpu_s: float) -> Any:
        allowed.append(cpu_s)
        raise Reject(ErrorCode.TOO_SLOW, "slow")

    monkeypatch.setattr(sandbox, "score", slow)
    uri = ministack_bench.put("in/slow.png", b"slow")
    with _open(ministack_bench, storage, sandbox) as pipeline:
        for _ in range(2):
            assert {type(score) for score in _scores(pipeline, [uri] * 30, model)} == {Reject}
    first, second = allowed[:30], allowed[30:]
    assert first[0] == second[0] == sandbox.limits.cpu_s
    assert first == sorted(first, reverse=True)
    assert min(first) == first[-1] == second[-1] == 0.25
    assert sum(first) < 5 * sandbox.limits.cpu_s
