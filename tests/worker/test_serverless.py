"""The Lambda: its answer to a call, the messages that it gives back, and its metrics."""

import json
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from jobs.local.emulator import create_queues
from tests.conftest import REPOSITORY, Bench
from tests.desk import Desk
from worker.aws.queue import Message, Queue
from worker.contract import PartReport
from worker.dispatch import Dispatch, Done, Outcome
from worker.errors import Broken, ErrorCode, Reject, Retry
from worker.scoring.pipeline import Stages
from worker.serverless import Serverless, read_event

START_S = 20


@dataclass
class FakeContext:
    """A call with a limited time. Each reading of the clock takes ``step_ms``."""

    left_ms: int = 300_000
    step_ms: int = 0
    aws_request_id: str = "request-1"
    function_name: str = "twofold"

    def get_remaining_time_in_millis(self) -> int:
        self.left_ms -= self.step_ms
        return max(0, self.left_ms)


class StubDispatch(Dispatch):
    """Answers each body as scripted, and records the calls."""

    def __init__(self, outcomes: dict[str, Outcome]) -> None:
        self.outcomes = outcomes
        self.asked: list[tuple[str, bool]] = []
        self.cancelled: list[bool] = []
        self.end = threading.Event()

    def handle(
        self,
        body: str,
        *,
        last_try: bool,
        cancelled: Callable[[], bool],
        progress: Callable[[], None] = lambda: None,
        left_s: float = 0,
    ) -> Outcome:
        self.asked.append((body, last_try))
        self.left_s = left_s
        self.cancelled.append(cancelled())
        if body == "no memory":
            raise MemoryError
        if body == "silence":
            self.end.wait(60)
        return self.outcomes[body]


@dataclass
class RecordingQueue(Queue):
    """A queue without SQS that records what became of each message."""

    max_receives: int = 5
    let_go: dict[str, tuple[str, Any]] = field(default_factory=dict)
    renewed: list[str] = field(default_factory=list)

    def acknowledge(self, message: Message) -> None:
        self.let_go[message.message_id] = ("acknowledged", None)

    def reject(self, message: Message, reason: Reject) -> None:
        self.let_go[message.message_id] = ("rejected", reason.code)

    def release(self, message: Message, *, delay_s: int) -> None:
        self.let_go[message.message_id] = ("released", delay_s)

    def renew(self, message: Message) -> None:
        self.renewed.append(message.message_id)


class BrokenQueue(RecordingQueue):
    """A queue that does not answer."""

    def acknowledge(self, message: Message) -> None:
        raise Retry(ErrorCode.UNAVAILABLE, "no answer")

    def reject(self, message: Message, reason: Reject) -> None:
        raise Retry(ErrorCode.UNAVAILABLE, "no answer")


def done(**fields: Any) -> Done:
    known = {"job_id": "j", "request_digest": "0" * 64, "rows": 1, "scored": 1, "failed": 0, "errors": {}}
    more = {"sha256": "0" * 64, "size_bytes": 1, "model_name": "m", "model_version": "v", "threshold": 0.5}
    return Done("done", (PartReport.model_validate(known | more | {"seconds": 0.1} | fields),))


NOT_NOW = Retry(ErrorCode.UNAVAILABLE, "storage is busy")
NEVER = Reject(ErrorCode.BAD_REQUEST, "not JSON")
OUTCOMES: dict[str, Outcome] = {"done": done(), "not now": NOT_NOW, "never": NEVER}


def record(body: str, message_id: str, *, receives: int = 1) -> dict[str, Any]:
    attributes = {"ApproximateReceiveCount": str(receives)}
    return {"messageId": message_id, "receiptHandle": f"handle-{message_id}", "body": body, "attributes": attributes}


def event(*bodies: str, receives: int = 1) -> dict[str, Any]:
    return {"Records": [record(body, f"m{index}", receives=receives) for index, body in enumerate(bodies)]}


def build(queue: Queue, outcomes: dict[str, Outcome] | None = None) -> tuple[Serverless, StubDispatch]:
    dispatch = StubDispatch(outcomes or OUTCOMES)
    return Serverless(queue=queue, dispatch=dispatch, stages=Stages(), start_s=START_S, cold_ms=123.0), dispatch


def failed_ids(answer: dict[str, list[dict[str, str]]]) -> list[str]:
    assert list(answer) == ["batchItemFailures"]
    return [item["itemIdentifier"] for item in answer["batchItemFailures"]]


def test_only_messages_that_must_come_back_are_reported_as_failed() -> None:
    """A request that can never succeed is done: it is in the dead-letter queue with its reason."""
    queue = RecordingQueue()
    serverless, _ = build(queue)
    answer = serverless.handle(event("done", "not now", "never", "done"), FakeContext())
    assert failed_ids(answer) == ["m1"]
    assert queue.let_go["m0"] == queue.let_go["m3"] == ("acknowledged", None)
    assert queue.let_go["m2"] == ("rejected", ErrorCode.BAD_REQUEST)


def test_a_message_waits_longer_after_each_receive() -> None:
    """Its visibility timeout is the backoff. Lambda alone would always wait for the same time."""
    waits = []
    for receives in (1, 3):
        queue = RecordingQueue()
        serverless, _ = build(queue)
        serverless.handle(event("not now", receives=receives), FakeContext())
        kind, delay_s = queue.let_go["m0"]
        assert kind == "released"
        waits.append(delay_s)
    assert 2 <= waits[0] <= 5
    assert 10 <= waits[1] <= 20


def test_when_all_messages_fail_all_are_listed() -> None:
    """An exception would not say which ones."""
    serverless, _ = build(RecordingQueue())
    assert failed_ids(serverless.handle(event("not now", "not now"), FakeContext())) == ["m0", "m1"]


def test_when_no_message_fails_the_list_is_empty() -> None:
    """Lambda takes that as a success of all."""
    serverless, _ = build(RecordingQueue())
    assert serverless.handle(event("done"), FakeContext()) == {"batchItemFailures": []}


def test_a_request_that_is_answered_is_done_even_if_sqs_does_not_respond() -> None:
    """Lambda deletes its message. One that could not be sent to the dead-letter queue comes back."""
    serverless, _ = build(BrokenQueue())
    assert failed_ids(serverless.handle(event("done", "never"), FakeContext())) == ["m1"]


def test_near_the_deadline_the_remaining_messages_go_back_at_once() -> None:
    """A call that is killed would hide its messages for half an hour."""
    queue = RecordingQueue()
    serverless, dispatch = build(queue)
    # The clock is read twice per message: before it is started, and to decide whether to continue.
    context = FakeContext(left_ms=START_S * 1000 + 20_000, step_ms=10_000)
    assert failed_ids(serverless.handle(event("done", "done", "done"), context)) == ["m1", "m2"]
    assert [body for body, _ in dispatch.asked] == ["done"]
    assert queue.let_go["m1"] == queue.let_go["m2"] == ("released", 0)


@pytest.mark.parametrize("left_ms", [0, 1, START_S * 1000 - 1])
def test_without_time_left_every_message_goes_back(left_ms: int) -> None:
    """Nothing is started, and nothing is lost."""
    serverless, dispatch = build(RecordingQueue())
    assert failed_ids(serverless.handle(event("done", "never"), FakeContext(left_ms=left_ms))) == ["m0", "m1"]
    assert dispatch.asked == []


def test_without_time_on_the_last_receive_a_fresh_copy_takes_the_messages_place() -> None:
    """SQS would move the message to the dead-letter queue without a reason. The old one may be deleted."""
    queue = RecordingQueue()
    serverless, dispatch = build(queue)
    assert failed_ids(serverless.handle(event("done", receives=5), FakeContext(left_ms=0))) == []
    assert (dispatch.asked, queue.renewed, queue.let_go["m0"]) == ([], ["m0"], ("acknowledged", None))


@pytest.mark.parametrize(("receives", "last_try"), [(1, False), (3, False), (4, True), (5, True)])
def test_one_receive_is_kept_for_a_process_that_is_killed(receives: int, last_try: bool) -> None:  # noqa: FBT001
    """What fails on the fourth receive of five is refused with its reason, and not tried again."""
    serverless, dispatch = build(RecordingQueue())
    serverless.handle(event("done", receives=receives), FakeContext())
    assert dispatch.asked == [("done", last_try)]


@pytest.mark.parametrize(("step_ms", "cancelled"), [(1_000, False), (18_500, True)])
def test_a_running_request_is_given_up_before_the_process_is_killed(step_ms: int, cancelled: bool) -> None:  # noqa: FBT001
    """That leaves time to give its message back."""
    serverless, dispatch = build(RecordingQueue())
    serverless.handle(event("done"), FakeContext(left_ms=START_S * 1000 + 19_000, step_ms=step_ms))
    assert dispatch.cancelled == [cancelled]


def test_a_process_without_memory_gives_back_what_is_not_answered() -> None:
    """Lambda would hide it for as long as a call may take, six times over. The message in hand waits longer."""
    queue = RecordingQueue()
    serverless, _ = build(queue)
    with pytest.raises(MemoryError):
        serverless.handle(event("done", "no memory", "done", "not now"), FakeContext())
    assert queue.let_go["m0"] == ("acknowledged", None)
    assert queue.let_go["m1"][1] > 0
    assert queue.let_go["m2"] == queue.let_go["m3"] == ("released", 0)


def test_a_call_to_storage_that_never_returns_costs_no_message_a_receive_without_a_reason() -> None:
    """Shortly before Lambda kills the process, it gives back what is not answered, and ends."""
    queue = RecordingQueue()
    dispatch = StubDispatch({"done": done(), "silence": done()})
    serverless = Serverless(queue=queue, dispatch=dispatch, stages=Stages(), start_s=1, cold_ms=1)
    with pytest.raises(Broken, match="has not returned"):
        serverless.handle(event("done", "silence", "done"), FakeContext(left_ms=2500))
    dispatch.end.set()
    assert queue.let_go["m0"] == ("acknowledged", None)
    assert queue.let_go["m1"] == queue.let_go["m2"] == ("released", 0)


def test_a_process_without_memory_ends_with_a_reason() -> None:
    """Lambda starts a fresh one. What was printed before, such as metrics, is not lost."""
    code = """
import worker.serverless as serverless
class Full:
    def handle(self, *_):
        print("metrics")
        return bytearray(1 << 62)
serverless._serverless = Full
serverless.handler({}, None)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (1, "metrics\n")
    assert "out of memory" in done.stderr


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"Records": None},
        {"schema_version": 1, "job_id": "by-hand"},
        {"Records": [record("done", "")]},
        {"Records": [record("done", "m0"), {"body": "done"}]},
    ],
)
def test_an_event_without_message_ids_is_refused_before_any_work(broken: dict[str, Any]) -> None:
    """Lambda takes a blank id in the answer as a failure of all messages."""
    queue = RecordingQueue()
    serverless, dispatch = build(queue)
    with pytest.raises(ValueError, match="not an event of an SQS queue"):
        serverless.handle(broken, FakeContext())
    assert (dispatch.asked, queue.let_go) == ([], {})


def test_the_event_is_read_without_the_bodies_of_its_messages() -> None:
    """A message with any body has an id and a receipt handle, so it can be rejected."""
    (message,) = read_event({"Records": [record("\x00{{{", "m0", receives=3)]})
    assert (message.body, message.receive_count, message.receipt_handle) == ("\x00{{{", 3, "handle-m0")


@pytest.mark.parametrize(
    ("attributes", "renewed"),
    [
        ({}, 0),
        (None, 0),
        ({"renewed": {"stringValue": "7", "stringListValues": [], "dataType": "Number"}}, 7),
        ({"renewed": {"binaryValue": "AAAA", "dataType": "Binary"}}, 0),
        ({"renewed": {"stringValue": "-1", "dataType": "Number"}}, 0),
        ({"renewed": {"stringValue": "\u0667", "dataType": "String"}}, 0),
        ({"renewed": {"stringValue": "9" * 5000, "dataType": "String"}}, 0),
    ],
)
def test_a_fresh_copy_says_how_many_there_were(attributes: Any, renewed: int) -> None:
    """In an attribute that any producer can send, so nonsense in it counts as none."""
    (message,) = read_event({"Records": [record("done", "m0") | {"messageAttributes": attributes}]})
    assert message.renewed == renewed


def test_each_call_writes_embedded_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    """Images, requests, stages and cold start on one line, and the failures on a line for each code."""
    failed = done(rows=5, scored=2, failed=3, errors={"not_found": 2, "damaged": 1})
    serverless, _ = build(RecordingQueue(), OUTCOMES | {"some failed": failed})
    serverless.handle(event("some failed", "done", "never", "not now"), FakeContext())
    first, *by_code = map(json.loads, capsys.readouterr().out.splitlines())
    expected = {"Requests": 4, "RejectedRequests": 1, "RetriedRequests": 1, "Images": 6, "FailedImages": 3}
    assert {name: first[name] for name in expected} == expected
    assert (first["ColdStart"], first["ColdStartMs"], first["requestId"]) == (1, 123.0, "request-1")
    assert {line["ErrorCode"]: (line.get("FailedImages"), line.get("RejectedRequests")) for line in by_code} == {
        "not_found": (2, None),
        "damaged": (1, None),
        "bad_request": (None, 1),
    }


def test_the_declared_metrics_are_the_ones_that_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    """CloudWatch silently drops others: these are the rules of the embedded metric format."""
    serverless, _ = build(RecordingQueue())
    serverless.handle(event("done", "never"), FakeContext())
    for line in map(json.loads, capsys.readouterr().out.splitlines()):
        assert isinstance(line["_aws"]["Timestamp"], int)
        (described,) = line["_aws"]["CloudWatchMetrics"]
        assert described["Namespace"] == "Twofold"
        assert all(isinstance(line[name], str) for names in described["Dimensions"] for name in names)
        assert all(isinstance(line[metric["Name"]], (int, float)) for metric in described["Metrics"])
        assert len(described["Metrics"]) <= 100
        figures = {name for name, value in line.items() if isinstance(value, (int, float))}
        assert figures == {metric["Name"] for metric in described["Metrics"]}


def test_only_the_first_call_is_a_cold_start(capsys: pytest.CaptureFixture[str]) -> None:
    """So the sum of cold starts is the number of processes."""
    serverless, _ = build(RecordingQueue())
    for _ in range(3):
        serverless.handle(event("done"), FakeContext())
    assert [json.loads(line)["ColdStart"] for line in capsys.readouterr().out.splitlines()] == [1, 0, 0]


def test_a_rejected_message_is_in_the_dead_letter_queue_with_its_reason(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On both emulators. It is deleted from the queue before Lambda would delete it."""
    bench.send("never")
    received = bench.sqs.receive_message(QueueUrl=bench.queues.requests_url)["Messages"][0]
    sqs_record = record("never", received["MessageId"]) | {"receiptHandle": received["ReceiptHandle"]}
    queue = bench.queue(monkeypatch)
    serverless, _ = build(queue)
    assert serverless.handle({"Records": [sqs_record]}, FakeContext()) == {"batchItemFailures": []}
    (letter,) = bench.dead_letters()
    assert letter["MessageAttributes"]["error_code"]["StringValue"] == "bad_request"
    assert queue.is_empty()


@dataclass
class ShortCall(FakeContext):
    """A call whose time is up at the reading of the clock with this number."""

    readings: int = 0

    def get_remaining_time_in_millis(self) -> int:
        self.readings -= 1
        return self.left_ms if self.readings >= 0 else 0


def _poll(bench: Bench, url: str) -> dict[str, Any]:
    """The event of a call, as Lambda's poller makes it."""
    answer = bench.sqs.receive_message(
        QueueUrl=url,
        MaxNumberOfMessages=5,
        MessageSystemAttributeNames=["ApproximateReceiveCount"],
        MessageAttributeNames=["All"],
    )
    return {
        "Records": [
            {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "attributes": message["Attributes"],
                "messageAttributes": {
                    name: {"stringValue": value["StringValue"], "dataType": value["DataType"]}
                    for name, value in message.get("MessageAttributes", {}).items()
                },
            }
            for message in answer.get("Messages", ())
        ]
    }


@pytest.mark.parametrize(
    ("endpoint", "deadlines"),
    [
        pytest.param("ministack", 8, id="eight"),
        pytest.param("ministack", 50, id="fifty on ministack", marks=pytest.mark.slow),
        pytest.param("moto", 50, id="fifty on moto", marks=pytest.mark.slow),
    ],
    indirect=["endpoint"],
)
def test_deadlines_refuse_no_good_request(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, digit_images: Path, deadlines: int
) -> None:
    """Call after call runs out of time, before a request or in the middle, with three receives for each message."""
    bench = desk.bench
    queues = create_queues(bench.sqs, f"{bench.bucket}-few", max_receives=3)
    sqs = bench.queue(monkeypatch)._sqs
    queue = Queue.open(sqs=sqs, url=queues.requests_url, dead_letter_url=None, visibility_s=30)
    serverless = Serverless(queue=queue, dispatch=desk.dispatch, stages=Stages(), start_s=START_S, cold_ms=1.0)
    image = bench.put("in/a.png", next(digit_images.rglob("*.png")).read_bytes())
    jobs = [f"job-{number}" for number in range(5)]
    for job_id in jobs:
        body = json.dumps({"schema_version": 1, "job_id": job_id, "images": [image] * 30})
        bench.sqs.send_message(QueueUrl=queues.requests_url, MessageBody=body)
    random_, most = random.Random(20261124), 0
    for _ in range(deadlines):
        records = _poll(bench, queues.requests_url)
        most = max([most, *(message.renewed for message in read_event(records))])
        answer = serverless.handle(records, ShortCall(readings=random_.randrange(20)))
        assert len(failed_ids(answer)) <= len(records["Records"])
    assert bench.sqs.receive_message(QueueUrl=queues.dead_letter_url).get("Messages", []) == []
    assert bench.keys("predictions/") == []
    assert most >= deadlines // 5
    while not queue.is_empty():
        serverless.handle(_poll(bench, queues.requests_url), FakeContext())
    assert [[row.source_ref for row in bench.rows(job_id)] for job_id in jobs] == [[image] * 30] * 5
    assert bench.sqs.receive_message(QueueUrl=queues.dead_letter_url).get("Messages", []) == []


def test_storage_has_the_time_of_the_call_and_some_is_kept_for_the_rest() -> None:
    """What it has delivered must still be scored and written."""
    serverless, dispatch = build(RecordingQueue())
    serverless.handle(event("done"), FakeContext(left_ms=60_000))
    assert START_S < dispatch.left_s < 60
