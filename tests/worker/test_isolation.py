"""One image never costs another its row: a request with images that crash, hang and bloat their decoder."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Bench
from tests.desk import Desk
from tests.worker.scoring import cursed
from worker.consumer import Consumer, Stop
from worker.scoring import template
from worker.scoring.limits import MIB, ImageLimits
from worker.scoring.pipeline import Pipeline, Stages
from worker.scoring.sandbox import Sandbox
from worker.serverless import Serverless


class _Call:
    """A call of Lambda with all the time it needs."""

    aws_request_id = "request-1"
    function_name = "twofold"

    def get_remaining_time_in_millis(self) -> int:
        return 300_000


@pytest.fixture
def cursed_desk(ministack_bench: Bench, models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    bench = ministack_bench
    storage = bench.storage(monkeypatch)
    monkeypatch.setattr(template, "_PROGRAM", cursed.PROGRAM)
    limits = ImageLimits(cpu_s=0.5, wall_s=60, memory_bytes=128 * MIB)
    allowed = (f"s3://{bench.bucket}/",)
    with (
        Sandbox(processes=2, limits=limits) as sandbox,
        Pipeline(storage=storage, sandbox=sandbox, allowed_prefixes=allowed, fetchers=4) as pipeline,
    ):
        yield Desk(bench, storage, pipeline, bench.put_bundle(models))


def _by_loop(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    Consumer(queue=desk.bench.queue(monkeypatch), dispatch=desk.dispatch, stop=Stop(grace_s=20)).run(drain=True)


def _by_lambda(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = desk.bench.queue(monkeypatch)
    serverless = Serverless(queue=queue, dispatch=desk.dispatch, stages=Stages(), start_s=20, cold_ms=1)
    records: list[dict[str, Any]] = []
    while len(records) < 2:
        message = queue.receive(wait_s=1)
        assert message is not None
        attributes = {"ApproximateReceiveCount": str(message.receive_count)}
        names = {"messageId": message.message_id, "receiptHandle": message.receipt_handle}
        records.append({**names, "body": message.body, "attributes": attributes})
    assert serverless.handle({"Records": records}, _Call()) == {"batchItemFailures": []}


@pytest.mark.parametrize("answer", [_by_loop, _by_lambda], ids=["loop", "lambda"])
def test_harmful_images_are_rows_and_their_neighbours_are_scored_on_the_first_receive(
    cursed_desk: Desk,
    digit_images: Path,
    answer: Callable[[Desk, pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten images have ten rows, seven of them scores; the next request is answered, and nothing is a dead letter."""
    bench = cursed_desk.bench
    good = [bench.put(f"in/{p.name}", p.read_bytes()) for p in sorted(digit_images.rglob("*.png"))[::40][:7]]
    harmful = [bench.put(f"in/{what[8:].decode()}", what) for what in (cursed.CRASH, cursed.HANG, cursed.BLOAT)]
    images = [good[0], harmful[0], *good[1:3], harmful[1], *good[3:5], harmful[2], *good[5:]]
    for job_id, asked in (("harmful", images), ("next", good[:1])):
        bench.send({"schema_version": 1, "job_id": job_id, "images": asked})
    answer(cursed_desk, monkeypatch)
    rows = bench.rows("harmful")
    assert [row.source_ref for row in rows] == images
    codes = {row.source_ref: row.error_code for row in rows if row.error_code}
    assert codes == dict(zip(harmful, ("decoder_crashed", "too_slow", "too_much_memory"), strict=True))
    assert sum(row.score is not None for row in rows) == 7
    assert [row.score is not None for row in bench.rows("next")] == [True]
    assert bench.dead_letters() == []
