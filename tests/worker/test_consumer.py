"""The loop of a worker: real processes on real queues, stopped with real signals. tests/chaos/ kills them."""

import dataclasses
import io
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image

from jobs.local.emulator import create_queues
from tests.conftest import EMULATORS, REPOSITORY, Bench
from worker.aws.queue import Queue
from worker.consumer import Consumer, Stop
from worker.dispatch import Dispatch, Done, Outcome
from worker.errors import ErrorCode, Reject, Retry

#: Images of a request that takes a second or more, so that it can be interrupted in the middle.
LONG = 500
#: The shortest lease that a worker accepts, in seconds.
LEASE = {"TWOFOLD_VISIBILITY_S": "3"}


@pytest.fixture
def settings(ministack_bench: Bench, models: Path) -> dict[str, str]:
    return LEASE | {"TWOFOLD_MODEL_URI": ministack_bench.put_bundle(models)}


def _keep_versions(bench: Bench) -> None:
    """From here on the bucket shows what was written twice."""
    bench.s3.put_bucket_versioning(Bucket=bench.bucket, VersioningConfiguration={"Status": "Enabled"})


def _written(bench: Bench, prefix: str) -> list[str]:
    """The keys below a prefix, once for each time they were written."""
    listed = bench.s3.list_object_versions(Bucket=bench.bucket, Prefix=prefix)
    return [item["Key"] for item in listed.get("Versions", ())]


def _image(bench: Bench, digit_images: Path) -> str:
    return bench.put("in/a.png", next(digit_images.rglob("*.png")).read_bytes())


def _long_request(bench: Bench, digit_images: Path, job_id: str) -> dict[str, Any]:
    line = json.dumps({"source-ref": _image(bench, digit_images)}) + "\n"
    manifest = bench.put(f"{job_id}.jsonl", line.encode() * LONG)
    return {"schema_version": 1, "job_id": job_id, "manifest": {"uri": manifest}}


def _wait_until(text: str, worker: "subprocess.Popen[str]") -> None:
    """Reads the worker's log up to a line with this text."""
    assert worker.stderr
    assert any(text in line for line in iter(worker.stderr.readline, "")), f"the worker ended without {text!r}"


def _begin(bench: Bench, **settings: str) -> "subprocess.Popen[str]":
    """A worker in the middle of its first message: it has found no part, and scores images."""
    worker = bench.start_worker(**settings, TWOFOLD_LOG_LEVEL="DEBUG")
    _wait_until("scoring with", worker)
    return worker


def _count(bench: Bench, name: str) -> int:
    answer = bench.sqs.get_queue_attributes(QueueUrl=bench.queues.requests_url, AttributeNames=[name])
    return int(answer["Attributes"][name])


def _in_flight(bench: Bench) -> int:
    return _count(bench, "ApproximateNumberOfMessagesNotVisible")


def _waiting(bench: Bench) -> int:
    return _count(bench, "ApproximateNumberOfMessages")


#: Requests that can never succeed, and the code that each gets.
BAD = {
    "not JSON": ("<html>", "bad_request"),
    "an unknown field": (
        '{"schema_version": 1, "job_id": "x", "images": ["s3://a-bucket/b"], "colour": "red"}',
        "bad_request",
    ),
    "a duplicate key": (
        '{"schema_version": 1, "job_id": "x", "images": ["s3://a-bucket/b"], "job_id": "y"}',
        "bad_request",
    ),
    "a missing manifest": (
        '{"schema_version": 1, "job_id": "x", "manifest": {"uri": "s3://BUCKET/none.csv"}}',
        "not_found",
    ),
    "a missing model": (
        '{"schema_version": 1, "job_id": "x", "images": ["a"], "model_uri": "s3://BUCKET/models/digits/none/"}',
        "not_found",
    ),
    "another bucket": (
        '{"schema_version": 1, "job_id": "x", "images": ["a"], "output_uri": "s3://other-bucket/"}',
        "not_allowed",
    ),
}


@dataclass(frozen=True)
class Drained:
    """A queue of good and bad requests after one worker has drained it."""

    bench: Bench
    image: str
    log: str
    letters: dict[str, str]  #: error_code by body


@pytest.fixture(scope="module", params=EMULATORS)
def drained(
    request: pytest.FixtureRequest, bench_on: Callable[[str], Bench], models: Path, digit_images: Path
) -> Drained:
    """The same on each emulator. One worker answers all requests, since most of its time is its start."""
    bench = bench_on(request.getfixturevalue(request.param))
    _keep_versions(bench)
    image = _image(bench, digit_images)
    twice = {"schema_version": 1, "job_id": "twice", "images": [image]}
    bench.send(twice)
    bench.send(twice)
    for body, _ in BAD.values():
        bench.send(body.replace("BUCKET", bench.bucket))
    bench.send({"schema_version": 1, "job_id": "by-hand", "images": [image, image], "threshold": 0.5})
    log = bench.drain(TWOFOLD_MODEL_URI=bench.put_bundle(models))
    letters = bench.dead_letters()
    codes = {letter["Body"]: letter["MessageAttributes"]["error_code"]["StringValue"] for letter in letters}
    assert len(codes) == len(letters) == len(BAD)
    return Drained(bench, image, log, codes)


def test_a_request_typed_by_hand_is_answered(drained: Drained) -> None:
    """The JSON of the README, sent with plain boto3. A drained queue is empty."""
    assert [row.source_ref for row in drained.bench.rows("by-hand")] == [drained.image, drained.image]
    assert (_waiting(drained.bench), _in_flight(drained.bench)) == (0, 0)


def test_a_message_delivered_twice_leaves_one_part(drained: Drained) -> None:
    """SQS delivers at least once. The second delivery finds the part and writes nothing."""
    bench = drained.bench
    assert [line for line in drained.log.splitlines() if "twice" in line and "answered already" in line]
    assert len(bench.rows("twice")) == 1
    names = ["_SUCCESS", "job.json", "parts/part-00000.csv", "summary.json"]
    assert _written(bench, "predictions/twice/") == [f"predictions/twice/{name}" for name in names]


@pytest.mark.parametrize("name", BAD)
def test_a_request_that_can_never_succeed_goes_to_the_dead_letter_queue(drained: Drained, name: str) -> None:
    """At once and with its reason. The requests behind it are answered."""
    body, code = BAD[name]
    assert drained.letters[body.replace("BUCKET", drained.bench.bucket)] == code


def test_a_stop_signal_lets_the_current_part_finish(
    ministack_bench: Bench, settings: dict[str, str], digit_images: Path
) -> None:
    """After SIGTERM the part is written and acknowledged, and the exit status is 0."""
    bench = ministack_bench
    bench.send(_long_request(bench, digit_images, "finished"))
    worker = _begin(bench, **settings)
    worker.send_signal(signal.SIGTERM)
    _, log = worker.communicate(timeout=60)
    assert worker.returncode == 0, log
    assert len(bench.rows("finished")) == LONG
    assert (_waiting(bench), _in_flight(bench)) == (0, 0)


def test_a_stop_signal_gives_back_what_takes_too_long(ministack_bench: Bench, settings: dict[str, str]) -> None:
    """After TWOFOLD_STOP_S the message is visible again at once, and nothing is written."""
    bench = ministack_bench
    large = io.BytesIO()
    Image.effect_noise((2000, 1500), 50).save(large, "PNG", compress_level=1)  # some 60 ms to decode
    image = bench.put("in/large.png", large.getvalue())
    bench.send({"schema_version": 1, "job_id": "given-back", "images": [image] * 1000})
    worker = _begin(bench, **settings, TWOFOLD_STOP_S="1")
    worker.send_signal(signal.SIGTERM)
    _, log = worker.communicate(timeout=30)
    assert worker.returncode == 0, log
    assert (_waiting(bench), _in_flight(bench)) == (1, 0)
    assert bench.keys("predictions/") == []


def test_a_message_that_arrives_with_the_stop_signal_is_not_stranded(
    ministack: str, bench_on: Callable[[str], Bench], models: Path, digit_images: Path
) -> None:
    """It is answered, or waits for the next worker. It is never in flight, however little time a stop may take.

    The poll that is open when the signal comes ends by itself: SQS hands messages to a poll that is cut off.
    """
    benches = [bench_on(ministack) for _ in range(3)]
    workers = []
    for stop_s, bench in enumerate(benches, start=1):
        settings = LEASE | {"TWOFOLD_MODEL_URI": bench.put_bundle(models), "TWOFOLD_STOP_S": str(stop_s)}
        workers.append(bench.start_worker(**settings))
    for worker in workers:
        _wait_until("ready", worker)
    workers[0].send_signal(signal.SIGTERM)  # its message comes once it has ended
    workers[1].send_signal(signal.SIGTERM)
    _send_late(benches[1], digit_images)
    _send_late(benches[2], digit_images)
    workers[2].send_signal(signal.SIGTERM)
    for worker in workers:
        _, log = worker.communicate(timeout=30)
        assert worker.returncode == 0, log
    _send_late(benches[0], digit_images)
    for bench in benches:
        answered = bench.keys("predictions/late/_SUCCESS") != []
        assert (_waiting(bench), _in_flight(bench)) == (0 if answered else 1, 0)


def _send_late(bench: Bench, digit_images: Path) -> None:
    bench.send({"schema_version": 1, "job_id": "late", "images": [_image(bench, digit_images)]})


@pytest.mark.parametrize(("grace_s", "poll_s"), [(0.5, 1), (1, 1), (3, 3), (20, 10)])
def test_no_poll_is_longer_than_a_stop_may_take(grace_s: float, poll_s: int) -> None:
    """A stop waits for the open poll. Ten seconds are enough for the queue, and one is the least."""
    stop, waits = Stop(grace_s=grace_s), []

    class Polled(Queue):
        def receive(self, *, wait_s: int) -> None:
            waits.append(wait_s)
            stop.request()

    queue = Polled(sqs=cast("Any", None), url="", dead_letter_url="", max_receives=10, visibility_s=30)
    Consumer(queue=queue, dispatch=cast("Dispatch", None), stop=stop).run()
    assert waits == [poll_s]


def test_a_message_that_arrives_after_the_stop_is_released(
    ministack_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stop comes while a poll is open. What the poll returns is not begun, and is visible again at once."""
    queue, stop, never = ministack_bench.queue(monkeypatch), Stop(grace_s=60), _Always(Done("begun"))
    ministack_bench.send("x")

    class Stopped(Queue):
        def receive(self, *, wait_s: int) -> Any:
            message = queue.receive(wait_s=wait_s)
            stop.request()
            return message

    stopped = Stopped(sqs=queue._sqs, url=queue._url, dead_letter_url="", max_receives=10, visibility_s=30)
    Consumer(queue=stopped, dispatch=cast("Dispatch", never), stop=stop).run()
    assert never.calls == 0
    assert (_waiting(ministack_bench), _in_flight(ministack_bench)) == (1, 0)


@pytest.mark.parametrize(
    ("settings", "status", "expected"),
    [
        pytest.param(
            {"TWOFOLD_QUEUE_URL": "", "TWOFOLD_THREADS": "many", "TWOFOLD_OUTPUT_URI": "/tmp"},
            2,
            ["TWOFOLD_QUEUE_URL (the request queue)", "TWOFOLD_THREADS", "TWOFOLD_OUTPUT_URI"],
            id="settings",
        ),
        pytest.param({"TWOFOLD_MODEL_URI": "s3://no-such-bucket/m"}, 1, ["no such bucket"], id="model"),
    ],
)
def test_a_worker_that_cannot_start_says_why(
    ministack_bench: Bench, settings: dict[str, str], status: int, expected: list[str]
) -> None:
    """With an exit status, and without a traceback."""
    worker = ministack_bench.start_worker("--drain", **settings)
    _, log = worker.communicate(timeout=60)
    assert worker.returncode == status, log
    assert [text for text in expected if text not in log] == []
    assert "Traceback" not in log


class _Always:
    """A dispatch with one outcome."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self.calls = 0

    def handle(self, _: str, *, last_try: bool, **__: Any) -> Outcome:
        self.calls += 1
        if last_try and isinstance(self._outcome, Retry):
            return Reject(self._outcome.code, self._outcome.message)
        return self._outcome


class _Waiting:
    """A dispatch that waits, and then moves on once. The worker is stopped meanwhile."""

    def __init__(self, beats: list[str], stop: Stop) -> None:
        self._beats = beats
        self._stop = stop

    def handle(self, _: str, *, cancelled: Callable[[], bool], progress: Callable[[], None], **__: Any) -> Outcome:
        self._beats.append("begun")
        assert not any(cancelled() for _ in range(100))
        self._beats.append("waited")
        self._stop.request()
        progress()
        return Done("answered")


def test_the_health_of_a_worker_is_its_progress(ministack_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll that returned and work that moved on, but not waiting for it."""
    beats: list[str] = []
    queue, stop = ministack_bench.queue(monkeypatch), Stop(grace_s=60)
    ministack_bench.send("x")
    dispatch = cast("Dispatch", _Waiting(beats, stop))
    Consumer(queue=queue, dispatch=dispatch, stop=stop, beat=lambda: beats.append("beat")).run()
    assert [step for step, _ in itertools.groupby(beats)] == ["beat", "begun", "waited", "beat"]


def test_what_fails_on_every_receive_ends_in_the_dead_letter_queue_with_its_reason(
    ministack_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One receive is kept for a worker that is killed: after the last one SQS itself moves the message, without it."""
    bench = ministack_bench
    queue = bench.queue(monkeypatch)
    bench.send({"schema_version": 1, "job_id": "x", "images": ["s3://a-bucket/b"]})
    broken = cast("Dispatch", _Always(Retry(ErrorCode.UNAVAILABLE, "503")))
    consumer = Consumer(queue=queue, dispatch=broken, stop=Stop(grace_s=1))
    message = queue.receive(wait_s=5)
    assert message is not None
    consumer._handle(message)
    assert bench.dead_letters() == []
    consumer._handle(dataclasses.replace(message, receive_count=queue.max_receives - 1))
    (letter,) = bench.dead_letters()
    assert letter["MessageAttributes"]["error_code"]["StringValue"] == "unavailable"


def _few_receives(bench: Bench) -> Bench:
    """The same bucket with a queue that gives each message three receives."""
    return dataclasses.replace(bench, queues=create_queues(bench.sqs, f"{bench.bucket}-few", max_receives=3))


def _interrupt(bench: Bench, settings: dict[str, str]) -> str:
    """A worker that is stopped in the middle of a request, and gives it no time to finish. Returns its log."""
    quick = "import worker.__main__ as m; stop = m.Stop; m.Stop = lambda **_: stop(grace_s=0); m._exit_now(m.main())"
    own = {"TWOFOLD_QUEUE_URL": bench.queues.requests_url, "TWOFOLD_OUTPUT_URI": bench.output_uri}
    worker = subprocess.Popen(
        [sys.executable, "-c", quick],
        env=os.environ | bench.environment | own | settings | {"TWOFOLD_LOG_LEVEL": "DEBUG"},
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
    )
    _wait_until("scoring with", worker)
    worker.send_signal(signal.SIGTERM)
    _, log = worker.communicate(timeout=30)
    assert worker.returncode == 0, log
    return log


def test_a_stop_on_the_last_receive_puts_a_fresh_copy_on_the_queue(
    ministack_bench: Bench, settings: dict[str, str], digit_images: Path
) -> None:
    """SQS would move the message to the dead-letter queue without a reason. The copy has all its receives."""
    bench = _few_receives(ministack_bench)
    bench.send(_long_request(bench, digit_images, "stopped"))
    for _ in range(2):
        bench.sqs.receive_message(QueueUrl=bench.queues.requests_url, VisibilityTimeout=0)
    assert "a fresh copy is on the queue (1 of 20)" in _interrupt(bench, settings)
    assert (_waiting(bench), _in_flight(bench)) == (1, 0)
    names = {"MessageSystemAttributeNames": ["ApproximateReceiveCount"], "MessageAttributeNames": ["All"]}
    (copy,) = bench.sqs.receive_message(QueueUrl=bench.queues.requests_url, **names)["Messages"]
    assert json.loads(copy["Body"])["job_id"] == "stopped"
    assert copy["Attributes"]["ApproximateReceiveCount"] == "1"
    assert copy["MessageAttributes"]["renewed"]["StringValue"] == "1"
    assert bench.dead_letters() == []


@pytest.mark.slow
def test_fifty_stops_refuse_no_good_request(
    ministack_bench: Bench, settings: dict[str, str], digit_images: Path
) -> None:
    """Each in the middle of a request, with three receives for each message. Afterwards all of them are answered."""
    bench = _few_receives(ministack_bench)
    jobs = ["one", "two", "three"]
    for job_id in jobs:
        bench.send(_long_request(bench, digit_images, job_id))
    logs = [_interrupt(bench, settings) for _ in range(50)]
    assert bench.keys("predictions/") == []
    assert sum("a fresh copy is on the queue" in log for log in logs) >= 10
    bench.drain(**settings)
    for job_id in jobs:
        assert [row.row for row in bench.rows(job_id)] == list(range(LONG))
    assert sum(key.endswith(".csv") for key in _written(bench, "predictions/")) == len(jobs)
    assert bench.dead_letters() == []


def test_a_worker_without_memory_gives_its_message_back_and_ends_with_a_reason(
    ministack_bench: Bench, settings: dict[str, str], digit_images: Path
) -> None:
    """Its exit status is 1. The queue keeps the message for another worker."""
    bench = ministack_bench
    bench.send({"schema_version": 1, "job_id": "large", "images": [_image(bench, digit_images)]})
    full = """
import worker.__main__ as m
from worker.batch.part import PartWriter
PartWriter.write = lambda *_, **__: bytearray(1 << 62)
m._exit_now(m.main())
"""
    own = {"TWOFOLD_QUEUE_URL": bench.queues.requests_url, "TWOFOLD_OUTPUT_URI": bench.output_uri}
    ended = subprocess.run(
        [sys.executable, "-c", full],
        env=os.environ | bench.environment | own | settings,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 1, ended.stderr
    assert "out of memory: " in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
    assert "returns to the queue in" in ended.stderr
    assert _waiting(bench) + _in_flight(bench) == 1


def test_a_storage_that_never_answers_does_not_keep_a_worker_from_stopping(
    ministack_bench: Bench, settings: dict[str, str], digit_images: Path
) -> None:
    """It accepts connections and sends nothing. The worker exits soon after TWOFOLD_STOP_S; the message comes back."""
    bench = ministack_bench
    bench.send({"schema_version": 1, "job_id": "stuck", "images": [_image(bench, digit_images)] * 3})
    # A smaller margin than the four seconds of production: what counts is that the process ends by itself.
    quick = "import worker.__main__ as m; m._STOP_MARGIN_S = 1; m._exit_now(m.main())"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        own = {
            "TWOFOLD_QUEUE_URL": bench.queues.requests_url,
            "TWOFOLD_OUTPUT_URI": bench.output_uri,
            "TWOFOLD_MODEL_URI": "",
            "TWOFOLD_STOP_S": "1",
            "TWOFOLD_LOG_LEVEL": "DEBUG",
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{silent.getsockname()[1]}",
        }
        environment = os.environ | bench.environment | settings | own
        worker = subprocess.Popen(
            [sys.executable, "-c", quick], env=environment, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True
        )
        _wait_until("receive 1", worker)
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=20)  # the storage would keep it for minutes
    (message,) = bench.sqs.receive_message(QueueUrl=bench.queues.requests_url, WaitTimeSeconds=10)["Messages"]
    assert json.loads(message["Body"])["job_id"] == "stuck"
