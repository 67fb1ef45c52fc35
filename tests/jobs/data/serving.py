"""A web server with ranges, conditional requests, and every failure that a test needs."""

import hashlib
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Site:
    """One file at ``url``, and how the server answers."""

    def __init__(self, url: str, body: bytes) -> None:
        self.url = url
        self.body = body
        self.cuts: list[int] = []  #: bytes after which the connection breaks, one entry per response
        self.stalls = False  #: whether a connection that would break stays open instead, and sends no more
        self.statuses: list[int] = []  #: sent instead of the file, one entry per request
        self.redirect = ""
        self.redirect_status = 302
        self.validators = True  #: whether it sends an entity tag
        self.has_length = True
        self.requests: list[dict[str, str]] = []  #: headers of each request
        self.sent = 0  #: bytes of bodies

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.body).hexdigest()}"'

    @property
    def ranges(self) -> list[str]:
        return [headers["range"] for headers in self.requests if "range" in headers]


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site = self.site
        request = {name.lower(): value for name, value in self.headers.items()}
        site.requests.append(request)
        if site.redirect:
            self._answer(site.redirect_status, {"Location": site.redirect})
        elif site.statuses:
            self._answer(site.statuses.pop(0), {})
        elif site.validators and request.get("if-none-match") == site.etag:
            self._answer(304, {"ETag": site.etag})
        else:
            self._send(request)

    def _send(self, request: dict[str, str]) -> None:
        site = self.site
        headers = {"ETag": site.etag} if site.validators else {}
        start = re.match(r"bytes=(\d+)-$", request.get("range", ""))
        if start and request.get("if-range") == site.etag:
            first = int(start[1])
            if first >= len(site.body):
                self._answer(416, {"Content-Range": f"bytes */{len(site.body)}"})
                return
            headers["Content-Range"] = f"bytes {first}-{len(site.body) - 1}/{len(site.body)}"
            self._answer(206, headers, site.body[first:])
        else:
            self._answer(200, headers, site.body)

    def _answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.site.has_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        sent = body[: self.site.cuts.pop(0)] if body and self.site.cuts else body
        self.site.sent += len(sent)  # first, since the test may read it as soon as the client has the last byte
        self.wfile.write(sent)
        if len(sent) < len(body) and self.site.stalls:
            self.wfile.flush()
            self.rfile.read(1)  # until the client gives up

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


@contextmanager
def serve(body: bytes, name: str = "pets.zip", *, certificate: Path | None = None) -> Iterator[Site]:
    """Serves ``body``, over TLS with a ``certificate`` and its key."""
    handler = type("Handler", (_Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "http" if certificate is None else "https"
        handler.site = Site(f"{scheme}://127.0.0.1:{server.server_port}/{name}", body)  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield handler.site  # type: ignore[attr-defined]
        server.shutdown()
