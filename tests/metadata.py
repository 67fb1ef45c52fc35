"""A metadata service of EC2, version 2, that announces the end of a Spot machine when it is asked to."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Metadata:
    """What the service knows, and what it was asked."""

    url: str = ""
    ends: datetime | None = None  #: when the machine is taken back
    token: str = "first"
    is_away: bool = False  #: it answers that it cannot answer
    asked: list[tuple[str, int]] = field(default_factory=list)  #: paths and the status of their answers

    def announce(self, *, seconds: float = 120) -> None:
        self.ends = datetime.now(UTC) + timedelta(seconds=seconds)

    def answer(self, method: str, path: str, token: str | None, ttl: str | None) -> tuple[int, str]:
        if self.is_away:
            return 503, ""
        if (method, path) == ("PUT", "/latest/api/token"):
            return (200, self.token) if ttl else (400, "")
        if token != self.token:
            return 401, ""
        if path != "/latest/meta-data/spot/instance-action" or self.ends is None:
            return 404, ""
        return 200, json.dumps({"action": "terminate", "time": self.ends.strftime("%Y-%m-%dT%H:%M:%SZ")})


@contextmanager
def metadata_service() -> Iterator[Metadata]:
    """Yields a service on a port of this machine. Without a notice at first."""
    known = Metadata()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            prefix = "X-aws-ec2-metadata-token"
            found = known.answer(self.command, self.path, self.headers[prefix], self.headers[f"{prefix}-ttl-seconds"])
            known.asked.append((self.path, found[0]))
            self.send_response(found[0])
            self.end_headers()
            self.wfile.write(found[1].encode())

        do_GET = do_PUT = _answer  # noqa: N815 - names of http.server

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    known.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield known
    finally:
        server.shutdown()
        server.server_close()
