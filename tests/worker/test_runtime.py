"""The handler in Lambda's own runtime client, ``awslambdaric``, which gets its calls from a runtime API in the test."""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY, Bench

LIMIT_S = 60


@dataclass(frozen=True)
class Call:
    """An event, and how long the function may take."""

    event: Any
    limit_ms: int = 60_000


@dataclass(frozen=True)
class Reply:
    """What the client sends to the API: a response, or the error of a call or of the start."""

    kind: str
    body: Any


@dataclass
class RuntimeApi:
    """The part of https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html that a client needs."""

    calls: "queue.Queue[Call]" = field(default_factory=queue.Queue)
    replies: "queue.Queue[Reply]" = field(default_factory=queue.Queue)
    port: int = 0
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(1, 1000)))

    def ask(self, call: Call) -> Reply:
        """Makes a call and waits for its reply."""
        self.calls.put(call)
        return self.replies.get(timeout=LIMIT_S)


@contextmanager
def serve() -> Iterator[RuntimeApi]:
    api = RuntimeApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            call = api.calls.get()  # as in Lambda, the client waits here for the next call
            headers = {
                "Lambda-Runtime-Aws-Request-Id": f"request-{next(api.numbers)}",
                "Lambda-Runtime-Deadline-Ms": str(time.time_ns() // 1_000_000 + call.limit_ms),
                "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:000000000000:function:twofold",
                "Content-Type": "application/json",
            }
            self.answer(200, json.dumps(call.event).encode(), headers)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            api.replies.put(Reply(self.path.partition("/runtime/")[2].rpartition("/")[2], json.loads(body)))
            self.answer(202, b"{}", {})

        def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    api.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield api
    server.shutdown()


@contextmanager
def client(api: RuntimeApi, environment: dict[str, str], output: Path) -> Iterator[None]:
    """``python -m awslambdaric worker.serverless.handler``, as in the image. Its log goes to ``output``."""
    lambda_own = {
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{api.port}",
        "AWS_LAMBDA_FUNCTION_NAME": "twofold",
        "AWS_LAMBDA_FUNCTION_VERSION": "1",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/twofold",
        "AWS_LAMBDA_LOG_STREAM_NAME": "2026/11/24/[1]0",
        "AWS_LAMBDA_LOG_FORMAT": "JSON",
        "AWS_LAMBDA_LOG_LEVEL": "DEBUG",
    }
    with output.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "awslambdaric", "worker.serverless.handler"],
            env=os.environ | lambda_own | environment,
            cwd=REPOSITORY,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield
        finally:
            process.kill()  # as Lambda does
            process.wait()


@dataclass(frozen=True)
class Function:
    """A running function, with its queue and its log."""

    api: RuntimeApi
    bench: Bench
    output: Path

    def records(self, *bodies: str | dict[str, Any]) -> list[dict[str, Any]]:
        """Sends messages and receives them, as Lambda's poller does."""
        for body in bodies:
            self.bench.send(body)
        answer = self.bench.sqs.receive_message(
            QueueUrl=self.bench.queues.requests_url,
            MaxNumberOfMessages=len(bodies),
            MessageSystemAttributeNames=["ApproximateReceiveCount"],
        )
        return [
            {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "attributes": message["Attributes"],
                "eventSource": "aws:sqs",
            }
            for message in answer["Messages"]
        ]

    def log_lines(self) -> list[dict[str, Any]]:
        lines = self.output.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


@pytest.fixture
def function(ministack_bench: Bench, models: Path, tmp_path: Path) -> Iterator[Function]:
    """The function with the settings of the template."""
    settings = {
        "TWOFOLD_QUEUE_URL": ministack_bench.queues.requests_url,
        "TWOFOLD_MODEL_URI": ministack_bench.put_bundle(models),
        "TWOFOLD_OUTPUT_URI": ministack_bench.output_uri,
        "TWOFOLD_CACHE": str(tmp_path / "cache"),
    }
    with serve() as api, client(api, ministack_bench.environment | settings, tmp_path / "log"):
        yield Function(api, ministack_bench, tmp_path / "log")


def test_a_call_returns_the_messages_that_must_come_back(function: Function, digit_images: Path) -> None:
    """Start, call, partial failure, deadline and exception, in one process, as Lambda keeps it."""
    bench = function.bench
    image = bench.put("in/a.png", next(digit_images.rglob("*.png")).read_bytes())
    asked = {"schema_version": 1, "images": [image, f"s3://{bench.bucket}/in/none.png"]}

    # Start and call: one request is answered, one rejected, and nothing comes back.
    good = function.records(asked | {"job_id": "first"}, "<html>")
    assert function.api.ask(Call({"Records": good})) == Reply("response", {"batchItemFailures": []})
    assert [row.error_code for row in bench.rows("first")] == [None, "not_found"]
    assert len(bench.dead_letters()) == 1

    # Deadline: the message there is no time for is returned, and can be received at once.
    late = function.records(asked | {"job_id": "second"})
    named = [{"itemIdentifier": record["messageId"]} for record in late]
    assert function.api.ask(Call({"Records": late}, limit_ms=500)) == Reply("response", {"batchItemFailures": named})
    again = bench.sqs.receive_message(QueueUrl=bench.queues.requests_url)["Messages"]
    assert [message["MessageId"] for message in again] == [late[0]["messageId"]]

    # An exception is reported as one, and the same process answers the next call.
    broken = function.api.ask(Call({"hello": "world"}))
    assert (broken.kind, broken.body["errorType"]) == ("error", "ValueError")
    more = function.records(asked | {"job_id": "third"})
    assert function.api.ask(Call({"Records": more})) == Reply("response", {"batchItemFailures": []})

    lines = function.log_lines()
    third = next(line for line in lines if line.get("job_id") == "third")
    assert (third["level"], third["requestId"], third["message_id"]) == ("INFO", "request-4", more[0]["messageId"])
    metrics = [line for line in lines if "_aws" in line and "ColdStart" in line]
    assert [line["ColdStart"] for line in metrics] == [1, 0, 0]
    assert metrics[0]["ColdStartMs"] > 0
    assert {"FetchMs", "DecodeMs", "ScoreMs", "WriteMs"} <= metrics[0].keys()


def test_before_there_is_a_model_requests_are_rejected_and_test_events_are_not_errors(
    ministack_bench: Bench, tmp_path: Path
) -> None:
    """A stack is deployed before its first model is trained, and its bucket sends a test event at once."""
    settings = {
        "TWOFOLD_QUEUE_URL": ministack_bench.queues.requests_url,
        "TWOFOLD_MODEL_URI": f"s3://{ministack_bench.bucket}/models/none/champion.json",
        "TWOFOLD_OUTPUT_URI": ministack_bench.output_uri,
    }
    with serve() as api, client(api, ministack_bench.environment | settings, tmp_path / "log"):
        function = Function(api, ministack_bench, tmp_path / "log")
        event = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": ministack_bench.bucket}
        request = {"schema_version": 1, "job_id": "early", "images": [f"s3://{ministack_bench.bucket}/a.png"]}
        records = function.records(event, request)
        assert api.ask(Call({"Records": records})) == Reply("response", {"batchItemFailures": []})
    (letter,) = ministack_bench.dead_letters()
    assert letter["MessageAttributes"]["error_code"]["StringValue"] == "not_found"


def test_a_failed_start_is_an_error_that_names_the_setting(tmp_path: Path) -> None:
    """Lambda counts it, the alarm on errors fires, and the messages come back."""
    with serve() as api, client(api, {"TWOFOLD_QUEUE_URL": ""}, tmp_path / "log"):
        reply = api.ask(Call({"Records": []}))
    assert reply.kind == "error"
    assert "queue_url" in reply.body["errorMessage"] or "TWOFOLD_QUEUE_URL" in reply.body["errorMessage"]
