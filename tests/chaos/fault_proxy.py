"""A proxy between workers and an emulator. It sees every call, and does to calls what networks and services do.

    with FaultProxy(endpoint) as proxy, proxy.using(Faults(share=0.2, luck=Random(1))):
        ...                                  # a fifth of the calls through proxy.url fail, each in its own way

    with proxy.using(Hold("PUT part")) as hold:
        hold.wait()                          # a worker waits for an answer to the write of its part
        worker.kill()                        # and is killed before the write arrives

A call is named as in ``PUT part``, ``GET image`` or ``DeleteMessage``: see ``Call.name``.
"""

import http.client
import json
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Protocol, Self, TypeVar
from urllib.parse import urlparse

#: How long a scenario waits for a call that must come. No promise is about time, so only a hang reaches this.
LIMIT_S: Final = 120

#: What the objects of a bucket are, by the end of their path.
_OBJECTS: Final = {
    "part": r"/parts/part-\d+\.csv",
    "errors": r"/errors/part-\d+\.csv",
    "shard": r"/shards/\d+\.jsonl",
    "marker": r"/(submitted|cancelled)",
    "model": r"/models/.+",
    "image": r"/in/.+",
}
_PER_CONNECTION: Final = frozenset({"connection", "content-length", "expect", "transfer-encoding"})
_SQS: Final = "AmazonSQS."


@dataclass(frozen=True)
class Answer:
    """What an emulator answers."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True)
class Call:
    """One call of S3 or SQS."""

    method: str
    path: str
    action: str  #: of SQS, such as ReceiveMessage; else empty
    headers: tuple[tuple[str, str], ...]
    body: bytes
    message: str = ""  #: the body of the message that the call is about, where it passes a receipt handle

    @property
    def name(self) -> str:
        """The action of SQS; or the method and what kind of object it is about, such as ``PUT job.json``."""
        if self.action:
            return self.action
        path = self.path.partition("?")[0]
        kinds = (kind for kind, pattern in _OBJECTS.items() if re.search(f"{pattern}$", path))
        return f"{self.method} {next(kinds, path.rpartition('/')[2])}"

    def is_about(self, text: str) -> bool:
        """Returns whether a path, a request or a message holds ``text``, such as the name of a job."""
        return text in self.path or text in self.message or (self.action != "" and text.encode() in self.body)


@dataclass(frozen=True)
class Cut:
    """An answer whose connection is closed after some bytes of the body."""

    answer: Answer
    length: int


class Influence(Protocol):
    """What is done to calls. Its methods may wait, and return what goes on; None cuts the connection."""

    def on_call(self, call: Call) -> Answer | Call | None:
        """Returns the call, or an answer that the emulator does not give."""

    def on_answer(self, call: Call, answer: Answer) -> Answer | Cut | None:
        """Returns the answer, or a part of it."""

    def close(self) -> None:
        """Lets every call go on that waits."""


Used = TypeVar("Used", bound=Influence)


class Hold:
    """Keeps the first call of a kind until its block ends, and then cuts the connection.

    With ``arrives`` the emulator has carried it out, and its answer is kept.
    """

    def __init__(self, name: str, *, about: str = "", arrives: bool = False) -> None:
        self._name, self._about, self._arrives = name, about, arrives
        self._taken = threading.Lock()
        self._reached, self._over = threading.Event(), threading.Event()

    def wait(self) -> None:
        """Waits until a call is held. Raises TimeoutError when none comes."""
        if not self._reached.wait(LIMIT_S):
            raise TimeoutError(f"no worker came to {self._name} about {self._about or 'anything'}")

    def close(self) -> None:
        self._over.set()

    def on_call(self, call: Call) -> Call | None:
        return None if not self._arrives and self._keeps(call, b"") else call

    def on_answer(self, call: Call, answer: Answer) -> Answer | None:
        return None if self._arrives and self._keeps(call, answer.body) else answer

    def _keeps(self, call: Call, answer: bytes) -> bool:
        is_meant = call.is_about(self._about) or self._about.encode() in answer
        if call.name != self._name or not is_meant or not self._taken.acquire(blocking=False):
            return False
        self._reached.set()
        self._over.wait(LIMIT_S)
        return True


class Gate:
    """Lets calls of a kind pass only all at once, when as many as ``count`` wait for it."""

    def __init__(self, name: str, *, about: str, count: int) -> None:
        self._name, self._about = name, about
        self._barrier = threading.Barrier(count, action=self._open)
        self.opened = False

    def close(self) -> None:
        self._barrier.abort()

    def on_call(self, call: Call) -> Call:
        if call.name == self._name and call.is_about(self._about) and not self.opened:
            with suppress(threading.BrokenBarrierError):
                self._barrier.wait(LIMIT_S)
        return call

    def on_answer(self, _: Call, answer: Answer) -> Answer:
        return answer

    def _open(self) -> None:
        self.opened = True


@dataclass(frozen=True)
class Slow:
    """Delays every call of a kind."""

    name: str
    delay_s: float

    def close(self) -> None:
        """Does nothing: no call waits for long."""

    def on_call(self, call: Call) -> Call:
        if call.name == self.name:
            time.sleep(self.delay_s)
        return call

    def on_answer(self, _: Call, answer: Answer) -> Answer:
        return answer


@dataclass(frozen=True)
class NoBackoff:
    """Makes a message that is given back visible at once. An extension by ``lease_s`` stays one."""

    lease_s: int

    def close(self) -> None:
        """Does nothing: no call waits for long."""

    def on_call(self, call: Call) -> Call:
        if call.action != "ChangeMessageVisibility":
            return call
        asked = json.loads(call.body)
        if asked["VisibilityTimeout"] == self.lease_s:
            return call
        return replace(call, body=json.dumps(asked | {"VisibilityTimeout": 0}).encode())

    def on_answer(self, _: Call, answer: Answer) -> Answer:
        return answer


class Fault(Enum):
    """What can happen to a call."""

    REFUSED = auto()  #: the connection is reset, and nothing arrives
    LOST = auto()  #: it is carried out, and the answer is lost
    CUT = auto()  #: it is carried out, and the connection ends in the middle of the answer
    BUSY = auto()  #: 503
    BROKEN = auto()  #: 500
    CUT_BUSY = auto()  #: 503, and the connection ends in the middle of its body
    SLOW = auto()  #: the answer is late


@dataclass
class Faults:
    """Makes a share of all calls fail, each in a way that ``luck`` chooses."""

    share: float
    luck: random.Random
    done: int = 0  #: how many calls have failed
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _chosen: threading.local = field(default_factory=threading.local)  #: for the call of this thread

    def close(self) -> None:
        """Does nothing: no call waits for long."""

    def on_call(self, call: Call) -> Answer | Call | None:
        with self._lock:
            fails = self.luck.random() < self.share
            fault = self.luck.choice(list(Fault)) if fails else None
            self.done += fails
        self._chosen.fault = fault
        if fault is Fault.REFUSED:
            return None
        if fault in {Fault.BUSY, Fault.CUT_BUSY}:
            return _failure(call, HTTPStatus.SERVICE_UNAVAILABLE, "SlowDown")
        if fault is Fault.BROKEN:
            return _failure(call, HTTPStatus.INTERNAL_SERVER_ERROR, "InternalError")
        return call

    def on_answer(self, _: Call, answer: Answer) -> Answer | Cut | None:
        fault: Fault | None = self._chosen.fault
        if fault is Fault.LOST:
            return None
        if fault in {Fault.CUT, Fault.CUT_BUSY}:
            with self._lock:
                return Cut(answer, self.luck.randrange(max(1, len(answer.body))))
        if fault is Fault.SLOW:
            with self._lock:
                delay_s = self.luck.uniform(0.05, 0.5)
            time.sleep(delay_s)
        return answer


def _failure(call: Call, status: HTTPStatus, code: str) -> Answer:
    """Returns an error as the service words it."""
    if call.action:
        body = json.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": status.phrase})
        return Answer(status, (("Content-Type", "application/x-amz-json-1.0"),), body.encode())
    body = f"<Error><Code>{code}</Code><Message>{status.phrase}</Message></Error>"
    return Answer(status, (("Content-Type", "application/xml"),), body.encode())


@dataclass
class Receipt:
    """What the proxy saw of a message: its body, its last receipt handle, and how often it was received."""

    body: str
    handle: str
    receives: int


class FaultProxy:
    """The proxy, as a context manager. Without an influence it only watches."""

    def __init__(self, upstream: str) -> None:
        address = urlparse(upstream)
        self._host, self._port = address.hostname or "", address.port
        self._influences: tuple[Influence, ...] = ()
        self._messages: dict[str, str] = {}  #: the body of each message by its receipt handle
        self.receipts: dict[str, Receipt] = {}  #: by the id of the message

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @contextmanager
    def using(self, influence: Used) -> Iterator[Used]:
        """Puts an influence on all calls within the block."""
        self._influences += (influence,)
        try:
            yield influence
        finally:
            self._influences = tuple(one for one in self._influences if one is not influence)
            influence.close()

    def carry(self, call: Call) -> Answer | Cut | None:
        """Returns what the client gets: the emulator's answer, unless an influence has another."""
        influences = self._influences
        given: Answer | Call | Cut | None = call
        for influence in influences:
            if isinstance(given, Call):
                given = influence.on_call(given)
        if isinstance(given, Call):
            given = self._ask(given)
        for influence in influences:
            if isinstance(given, Answer):
                given = influence.on_answer(call, given)
        assert not isinstance(given, Call)
        return given

    def message_of(self, body: bytes) -> str:
        """Returns the body of the message whose receipt handle a call passes."""
        return self._messages.get(json.loads(body or b"{}").get("ReceiptHandle", ""), "")

    def _ask(self, call: Call) -> Answer:
        connection = http.client.HTTPConnection(self._host, self._port)
        connection.putrequest(call.method, call.path, skip_host=True, skip_accept_encoding=True)
        for name, value in (*call.headers, ("Content-Length", str(len(call.body)))):
            connection.putheader(name, value)
        connection.endheaders(call.body)
        response = connection.getresponse()
        headers = tuple((name, value) for name, value in response.headers.items() if name.lower() != "connection")
        answer = Answer(response.status, headers, response.read())
        connection.close()
        if call.action == "ReceiveMessage" and answer.status == HTTPStatus.OK:
            self._note(json.loads(answer.body).get("Messages") or [])
        return answer

    def _note(self, messages: list[dict[str, Any]]) -> None:
        for message in messages:
            handle, body = message["ReceiptHandle"], message["Body"]
            self._messages[handle] = body
            count = int(message["Attributes"]["ApproximateReceiveCount"])
            self.receipts[message["MessageId"]] = Receipt(body, handle, count)


class _Server(ThreadingHTTPServer):
    """A thread for each connection. None is waited for: a poll may be open."""

    daemon_threads = True
    block_on_close = False

    def shutdown_request(self, request: Any) -> None:
        """Closes a connection without announcing it, so that a reset is one."""
        self.close_request(request)

    def handle_error(self, *_: object) -> None:
        """Says nothing about a client that was killed."""


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: FaultProxy

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        action = self.headers.get("X-Amz-Target", "").removeprefix(_SQS)
        call = Call(
            method=self.command,
            path=self.path,
            action=action,
            headers=tuple(item for item in self.headers.items() if item[0].lower() not in _PER_CONNECTION),
            body=body,
            message=self.proxy.message_of(body) if action else "",
        )
        self.close_connection = True  # unless all goes well
        with suppress(OSError, http.client.HTTPException):  # the client or the emulator is gone
            self._give(self.proxy.carry(call))

    do_DELETE = do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - the base class calls them so

    def _give(self, given: Answer | Cut | None) -> None:
        if given is None:  # the client gets a reset
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        answer = given.answer if isinstance(given, Cut) else given
        self.send_response_only(answer.status)
        length = str(len(answer.body))
        for name, value in answer.headers:
            if name.lower() not in _PER_CONNECTION:
                self.send_header(name, value)
            elif self.command == "HEAD" and name.lower() == "content-length":
                length = value  # of a body that is not sent
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(answer.body[: given.length] if isinstance(given, Cut) else answer.body)
        self.close_connection = isinstance(given, Cut)

    def log_message(self, *_: object) -> None:
        """Logs nothing: the worker does."""
