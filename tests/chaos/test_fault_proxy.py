"""The proxy: what a client of it sees."""

import http.client
import json
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.chaos.fault_proxy import Call, Fault, FaultProxy, Faults, Gate, Hold, NoBackoff

BODY = b"x" * 100


class Upstream(BaseHTTPRequestHandler):
    """Answers every call, and counts."""

    protocol_version = "HTTP/1.1"
    calls = 0

    def do_GET(self) -> None:
        type(self).calls += 1
        self.send_response_only(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)


@pytest.fixture
def upstream() -> type[Upstream]:
    """A class of its own, whose calls are those of one test."""
    return type("Fresh", (Upstream,), {"calls": 0})


@pytest.fixture
def proxy(upstream: type[Upstream]) -> Iterator[FaultProxy]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), upstream)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    with FaultProxy(f"http://127.0.0.1:{server.server_port}") as proxy:
        yield proxy
    server.shutdown()
    server.server_close()


def _get(proxy: FaultProxy, path: str = "/a-bucket/in/a.png") -> tuple[int, bytes] | str:
    """The status and the body, or what was raised."""
    connection = http.client.HTTPConnection(proxy.url.removeprefix("http://"), timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("fault", "seen", "calls"),
    [
        (Fault.REFUSED, {"ConnectionResetError"}, 0),
        (Fault.LOST, {"ConnectionResetError"}, 1),
        (Fault.CUT, {"IncompleteRead"}, 1),
        (Fault.BUSY, {503}, 0),
        (Fault.BROKEN, {500}, 0),
        (Fault.CUT_BUSY, {"IncompleteRead"}, 0),
        (Fault.SLOW, {200}, 1),
    ],
)
def test_a_fault_does_what_it_is_called(
    proxy: FaultProxy, upstream: type[Upstream], fault: Fault, seen: set[object], calls: int
) -> None:
    """As seen by the client, and by the emulator."""

    class Luck(random.Random):
        def choice(self, _: object) -> Fault:  # type: ignore[override]
            return fault

    with proxy.using(Faults(share=1.0, luck=Luck(1))) as faults:
        got = _get(proxy)
    assert {got if isinstance(got, str) else got[0]} == seen
    assert (upstream.calls, faults.done) == (calls, 1)
    assert _get(proxy) == (200, BODY)


def test_a_call_is_held_until_the_block_ends(proxy: FaultProxy, upstream: type[Upstream]) -> None:
    """Before it arrives or after it; one of its kind, and no other."""
    for arrives, calls in ((False, 1), (True, 3)):
        with proxy.using(Hold("GET image", about="a.png", arrives=arrives)) as hold:
            got: list[object] = []
            client = threading.Thread(target=lambda held=got: held.append(_get(proxy)))
            client.start()
            hold.wait()
            assert _get(proxy, "/a-bucket/in/b.png") == (200, BODY)
            assert (got, upstream.calls) == ([], calls)
        client.join()
        assert got == ["ConnectionResetError"]


def test_a_gate_opens_when_enough_calls_wait(proxy: FaultProxy) -> None:
    """All of them pass."""
    with proxy.using(Gate("GET image", about="a.png", count=2)) as gate:
        client = threading.Thread(target=_get, args=[proxy])
        client.start()
        assert not gate.opened
        assert _get(proxy) == (200, BODY)
        client.join()
        assert gate.opened


@pytest.mark.parametrize(("asked_s", "sent_s"), [(3, 3), (0, 0), (40, 0)])
def test_a_backoff_is_over_at_once_and_an_extension_is_kept(asked_s: int, sent_s: int) -> None:
    """Both are the same call, with other seconds."""
    body = json.dumps({"ReceiptHandle": "handle", "VisibilityTimeout": asked_s}).encode()
    sent = NoBackoff(lease_s=3).on_call(Call("POST", "/", "ChangeMessageVisibility", (), body))
    assert json.loads(sent.body) == {"ReceiptHandle": "handle", "VisibilityTimeout": sent_s}
