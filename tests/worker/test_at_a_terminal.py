"""A worker that someone has started in a terminal."""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.terminal import Terminal


class _Sqs(BaseHTTPRequestHandler):
    """An empty queue that writes down how long it is asked to wait for a message."""

    server: Any

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer: dict[str, Any] = {}
        if self.headers["X-Amz-Target"].endswith("ReceiveMessage"):
            self.server.waits.append(request["WaitTimeSeconds"])
            time.sleep(0.1)
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def empty_queue() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Sqs)
    server.waits = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_an_idle_worker_leaves_within_two_seconds_of_the_first_ctrl_c(empty_queue: Any) -> None:
    """It ends the poll that is open, so a poll is shorter than that where someone waits for it."""
    endpoint = f"http://127.0.0.1:{empty_queue.server_address[1]}"
    environment = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "TWOFOLD_QUEUE_URL": f"{endpoint}/000000000000/requests",
        "TWOFOLD_DEAD_LETTER_URL": f"{endpoint}/000000000000/dead",
        "TWOFOLD_OUTPUT_URI": "s3://shelter/predictions/",
    }
    with Terminal([sys.executable, "-m", "worker"], env=os.environ | environment, cwd=REPOSITORY) as terminal:
        terminal.wait_for("ready")
        while not empty_queue.waits:
            assert terminal.process.poll() is None, terminal.text
            time.sleep(0.01)
        terminal.press_ctrl_c()
        assert terminal.process.wait(60) == 0, terminal.text
    assert set(empty_queue.waits) == {1}
