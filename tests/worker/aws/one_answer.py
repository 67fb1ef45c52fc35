"""A server with one answer, byte by byte as it is given, so that an answer can break off anywhere."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import pytest

SECRET_KEY = "secret"


@dataclass(frozen=True)
class OneAnswer:
    """Where the server listens, and the requests it got: their lines and headers."""

    url: str
    requests: list[str] = field(default_factory=list)


def http(status: int, *headers: str, body: bytes = b"") -> bytes:
    """The bytes of an answer, which need not fit together."""
    lines = [f"HTTP/1.1 {status} S", "Content-Type: application/xml", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


@contextmanager
def serving(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[OneAnswer]:
    """Sends the same answer to every request and ends the connection. The environment names the server."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = OneAnswer(f"http://127.0.0.1:{server.getsockname()[1]}")
        thread = threading.Thread(target=_serve, args=(server, answer, found.requests), daemon=True)
        thread.start()
        for name, value in {"ENDPOINT_URL": found.url, "REGION": "us-east-1", "ACCESS_KEY_ID": "key"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        yield found
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def _serve(server: socket.socket, answer: bytes, requests: list[str]) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:  # the test is over
            return
        with closing(connection):
            request = b""
            while b"\r\n\r\n" not in request and (received := connection.recv(65_536)):
                request += received
            if not request:  # somebody looked whether anything listens here
                continue
            requests.append(request.decode().partition("\r\n\r\n")[0])
            connection.sendall(answer)
