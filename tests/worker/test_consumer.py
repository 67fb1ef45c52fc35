"""The loop, as real processes on real queues, stopped and killed with real signals."""

import dataclasses
import io
import json
import random
import signal
import socket
import time
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import Bench
from worker.batch.job_folder import part_uri
from worker.consumer import Consumer, Stop
from worker.delivery import backoff_s
from worker.dispatch import Dispatch
from worker.errors import ErrorCode, Reject, Retry

#: Long enough to be killed in the middle: some seconds of work.
LONG = 1500


@pytest.fixture
def settings(bench: Bench, models: Path) -> dict[str, str]:
    return {"TWOFOLD_MODEL_URI": bench.put_bundle(models), "TWOFOLD_VISIBILITY_S": "3"}


@pytest.fixture
def own_settings(ministack_bench: Bench, models: Path) -> dict[str, str]:
    return {"TWOFOLD_MODEL_URI": ministack_bench.put_bundle(models), "TWOFOLD_VISIBILITY_S": "3"}


def _picture(bench: Bench, digit_images: Path) -> str:
    return bench.put("in/a.png", next(digit_images.rglob("*.png")).read_bytes())


def _long_request(bench: Bench, digit_images: Path, job_id: str) -> dict[str, Any]:
    line = json.dumps({"source-ref": _picture(bench, digit_images)}) + "\n"
    manifest = bench.put(f"{job_id}.jsonl", line.encode() * LONG)
    return {"schema_version": 1, "job_id": job_id, "manifest": {"uri": manifest}}


def _wait(condition: Any, *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def _in_flight(bench: Bench) -> int:
    name = "ApproximateNumberOfMessagesNotVisible"
    answer = bench.sqs.get_queue_attributes(QueueUrl=bench.queues.requests_url, AttributeNames=[name])
    return int(answer["Attributes"][name])


def _waiting(bench: Bench) -> int:
    name = "ApproximateNumberOfMessages"
    answer = bench.sqs.get_queue_attributes(QueueUrl=bench.queues.requests_url, AttributeNames=[name])
    return int(answer["Attributes"][name])


def test_a_request_typed_by_hand_is_answered(bench: Bench, settings: dict[str, str], digit_images: Path) -> None:
    """The JSON of the README, sent with plain boto3; the drained worker leaves nothing behind."""
    picture = _picture(bench, digit_images)
    bench.send({"schema_version": 1, "job_id": "by-hand", "images": [picture, picture], "threshold": 0.5})
    bench.drain(**settings)
    assert [row.source_ref for row in bench.rows("by-hand")] == [picture, picture]
    assert (_waiting(bench), _in_flight(bench), bench.dead_letters()) == (0, 0, [])


def test_a_message_delivered_twice_leaves_one_part(bench: Bench, settings: dict[str, str], digit_images: Path) -> None:
    """SQS promises at least once; Twofold makes it one part."""
    request = {"schema_version": 1, "job_id": "twice", "images": [_picture(bench, digit_images)]}
    bench.send(request)
    bench.send(request)
    log = bench.drain(**settings)
    assert "answered already" in log
    assert len(bench.rows("twice")) == 1
    names = ["_SUCCESS", "job.json", "predictions/part-00000.csv", "summary.json"]
    assert bench.keys("predictions/twice/") == [f"predictions/twice/{name}" for name in names]
    assert bench.dead_letters() == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("<html>", "bad_request"),
        ('{"schema_version": 1, "job_id": "x", "images": ["s3://a-bucket/b"], "colour": "red"}', "bad_request"),
        ('{"schema_version": 1, "job_id": "x", "images": ["s3://a-bucket/b"], "job_id": "y"}', "bad_request"),
        ('{"schema_version": 1, "job_id": "x", "manifest": {"uri": "s3://BUCKET/none.csv"}}', "not_found"),
        ('{"schema_version": 1, "job_id": "x", "images": ["a"], "model_uri": "s3://BUCKET/none/"}', "not_found"),
        ('{"schema_version": 1, "job_id": "x", "images": ["a"], "output_uri": "s3://other-bucket/"}', "not_allowed"),
    ],
)
def test_a_request_that_can_never_succeed_goes_to_the_dead_letter_queue_and_delays_nothing(
    ministack_bench: Bench, own_settings: dict[str, str], digit_images: Path, body: str, code: str
) -> None:
    """At once, with its reason; the next request is answered."""
    bench = ministack_bench
    body = body.replace("BUCKET", bench.bucket)
    bench.send(body)
    bench.send({"schema_version": 1, "job_id": "good", "images": [_picture(bench, digit_images)]})
    bench.drain(**own_settings)
    (letter,) = bench.dead_letters()
    assert letter["Body"] == body
    assert letter["MessageAttributes"]["error_code"]["StringValue"] == code
    assert len(bench.rows("good")) == 1


def test_a_worker_killed_in_the_middle_loses_and_doubles_nothing(
    bench: Bench, settings: dict[str, str], digit_images: Path
) -> None:
    """SIGKILL in mid-request: the message comes back by itself, and another worker writes the one part."""
    bench.send(_long_request(bench, digit_images, "killed"))
    worker = bench.start_worker(**settings)
    _wait(lambda: _in_flight(bench) == 1)
    time.sleep(0.3)
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    assert bench.keys("predictions/") == []
    bench.drain(**settings)
    assert [row.row for row in bench.rows("killed")] == list(range(LONG))
    assert bench.dead_letters() == []


def test_workers_killed_at_random_instants_answer_every_request_once(
    ministack_bench: Bench, own_settings: dict[str, str], digit_images: Path
) -> None:
    """Lost 0, doubled 0, whatever the instant."""
    bench = ministack_bench
    picture = _picture(bench, digit_images)
    jobs = [f"job-{number}" for number in range(12)]
    for job_id in jobs:
        bench.send({"schema_version": 1, "job_id": job_id, "images": [picture] * 100})
    random_ = random.Random(20261124)
    for _ in range(6):
        worker = bench.start_worker(**own_settings)
        time.sleep(random_.uniform(0.2, 2.0))
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
    bench.drain(**own_settings)
    for job_id in jobs:
        assert [row.source_ref for row in bench.rows(job_id)] == [picture] * 100
    assert sum(key.endswith(".csv") for key in bench.keys("predictions/")) == len(jobs)
    assert bench.dead_letters() == []


def test_a_stop_signal_lets_the_current_part_finish(
    ministack_bench: Bench, own_settings: dict[str, str], digit_images: Path
) -> None:
    """SIGTERM: the part is written and acknowledged, and the exit status is 0."""
    bench = ministack_bench
    bench.send(_long_request(bench, digit_images, "finished"))
    worker = bench.start_worker(**own_settings)
    _wait(lambda: _in_flight(bench) == 1)
    worker.send_signal(signal.SIGTERM)
    _, log = worker.communicate(timeout=60)
    assert worker.returncode == 0, log
    assert len(bench.rows("finished")) == LONG
    assert (_waiting(bench), _in_flight(bench)) == (0, 0)


def test_a_stop_signal_gives_back_what_takes_too_long(ministack_bench: Bench, own_settings: dict[str, str]) -> None:
    """After TWOFOLD_STOP_S the message is visible again at once, and nothing was written."""
    bench = ministack_bench
    large = io.BytesIO()
    Image.effect_noise((4000, 3000), 50).save(large, "PNG", compress_level=1)  # a quarter of a second to decode
    image = bench.put("in/large.png", large.getvalue())
    bench.send({"schema_version": 1, "job_id": "given-back", "images": [image] * 400})
    worker = bench.start_worker(**own_settings, TWOFOLD_STOP_S="1")
    _wait(lambda: _in_flight(bench) == 1)
    worker.send_signal(signal.SIGTERM)
    _, log = worker.communicate(timeout=30)
    assert worker.returncode == 0, log
    assert (_waiting(bench), _in_flight(bench)) == (1, 0)
    assert bench.keys("predictions/") == []


def test_a_message_that_arrives_with_the_stop_signal_is_not_stranded(
    ministack_bench: Bench, own_settings: dict[str, str], digit_images: Path
) -> None:
    """Sent in the same instant as SIGTERM, it is answered or waits for the next worker; it is never in flight."""
    bench = ministack_bench
    request = {"schema_version": 1, "images": [_picture(bench, digit_images)]}
    for number in range(4):
        worker = bench.start_worker(**own_settings)
        assert worker.stderr
        _wait(lambda worker=worker: "ready" in worker.stderr.readline())
        bench.send(request | {"job_id": f"job-{number}"})
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=30)
        assert _in_flight(bench) == 0
    bench.drain(**own_settings)
    assert all(len(bench.rows(f"job-{number}")) == 1 for number in range(4))


def test_a_worker_frozen_past_its_lease_corrupts_nothing(
    ministack_bench: Bench, own_settings: dict[str, str], digit_images: Path
) -> None:
    """SIGSTOP past the lease, SIGCONT when another worker has answered: still one CSV, and it is whole."""
    bench = ministack_bench
    bench.send(_long_request(bench, digit_images, "frozen"))
    frozen = bench.start_worker(**own_settings)
    _wait(lambda: _in_flight(bench) == 1)
    frozen.send_signal(signal.SIGSTOP)
    bench.drain(**own_settings)
    written = bench.get(part_uri(bench.output_uri, "frozen"))
    frozen.send_signal(signal.SIGCONT)
    time.sleep(1)
    frozen.send_signal(signal.SIGTERM)
    frozen.communicate(timeout=60)
    assert bench.get(part_uri(bench.output_uri, "frozen")) == written
    assert len(bench.rows("frozen")) == LONG
    assert bench.dead_letters() == []


@pytest.mark.parametrize(
    ("setting", "value", "status", "said"),
    [
        ("TWOFOLD_QUEUE_URL", "", 2, "TWOFOLD_QUEUE_URL (the request queue)"),
        ("TWOFOLD_THREADS", "many", 2, "TWOFOLD_THREADS"),
        ("TWOFOLD_OUTPUT_URI", "/tmp", 2, "TWOFOLD_OUTPUT_URI"),
        ("TWOFOLD_MODEL_URI", "s3://no-such-bucket/m", 1, "no such bucket"),
    ],
)
def test_a_worker_that_cannot_start_says_why(
    ministack_bench: Bench, setting: str, value: str, status: int, said: str
) -> None:
    """In words, with an exit status, and without a traceback."""
    worker = ministack_bench.start_worker("--drain", **{setting: value})
    _, log = worker.communicate(timeout=60)
    assert worker.returncode == status, log
    assert said in log
    assert "Traceback" not in log


class _Broken:
    """A dispatch with a storage that is down, or anything else that may pass."""

    def __init__(self, code: ErrorCode) -> None:
        self._code = code

    def handle(self, _: str, *, last_try: bool, **__: Any) -> Any:
        return (Reject if last_try else Retry)(self._code, "503")


def test_what_fails_on_every_receive_ends_in_the_dead_letter_queue_with_its_reason(
    ministack_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the last receive the message goes back; on the last, SQS alone would move it without a word."""
    bench = ministack_bench
    queue = bench.queue(monkeypatch)
    bench.send({"schema_version": 1, "job_id": "x", "images": ["s3://a-bucket/b"]})
    consumer = Consumer(queue=queue, dispatch=cast("Dispatch", _Broken(ErrorCode.UNAVAILABLE)), stop=Stop(grace_s=1))
    message = queue.receive(wait_s=5)
    assert message is not None
    consumer._handle(message)
    assert bench.dead_letters() == []
    consumer._handle(dataclasses.replace(message, receive_count=queue.max_receives))
    (letter,) = bench.dead_letters()
    assert letter["MessageAttributes"]["error_code"]["StringValue"] == "unavailable"


def test_a_storage_that_never_answers_does_not_keep_a_worker_from_stopping(
    ministack_bench: Bench, own_settings: dict[str, str], digit_images: Path
) -> None:
    """It accepts, and says nothing: the worker is out soon after TWOFOLD_STOP_S, and the message comes back."""
    bench = ministack_bench
    bench.send({"schema_version": 1, "job_id": "stuck", "images": [_picture(bench, digit_images)] * 3})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        model = {"TWOFOLD_MODEL_URI": "", "TWOFOLD_STOP_S": "1", "AWS_ENDPOINT_URL_S3": endpoint}
        worker = bench.start_worker(**own_settings | model)
        _wait(lambda: _in_flight(bench) == 1)
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=25)  # 1 s, and 4 to give things back; the storage would take minutes
    bench.drain(**own_settings)
    assert len(bench.rows("stuck")) == 3


@given(receive_count=st.integers(1, 1000), random_=st.floats(0, 1, exclude_max=True))
def test_backoff_is_within_what_sqs_takes(receive_count: int, random_: float) -> None:
    """At least some seconds, at most 15 minutes."""
    assert 2 <= backoff_s(receive_count, random_=random_) <= 900


def test_backoff_grows() -> None:
    """Exponentially, from 5 s."""
    assert [backoff_s(count, random_=1.0) for count in (1, 2, 3, 4, 20)] == [5, 10, 20, 40, 900]
