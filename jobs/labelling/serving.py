"""The page for labelling on a server of this machine, which writes every answer to the list at once.

    with LabelServer(labels, render, refs=refs, classes=("cat", "dog")) as server:
        print(server.url)        http://127.0.0.1:40613/?token=…, which works once
        server.serve_forever()

Only the person who has the address can use it, although every user of this machine, and every page in their browser,
can send requests to its port:

- It listens on 127.0.0.1, and must be called by that name: a page could let a name of its own point there.
- The token of the address is exchanged for a cookie, once. No other site is ever sent either of them.
- An answer must come from the page itself, by its Origin.
"""

import json
import secrets
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from jobs.labelled_list import COLUMNS, LabelledLine, read_labelled_list
from jobs.labelling.label_file import Answer, LabelFile
from jobs.user_error import UserError
from worker.predictions import csv_bytes

_HOST: Final = "127.0.0.1"
#: A page sends all answers that are not saved yet. 5,000 of them take a megabyte.
_MAX_BODY_BYTES: Final = 16 * 1024 * 1024
#: A connection that says nothing is closed.
_SILENCE_S: Final = 60
#: Of every answer: it is shown here and nowhere else, no copy is kept, and nobody hears where it came from.
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_USED: Final = (
    "This address works once, in one browser, and it has been used. Go on in that browser; or press Ctrl-C in the "
    "terminal, and run the same command again. Every label is saved."
)


class LabelServer(ThreadingHTTPServer):
    """Serves one page to one browser, and writes what it answers to a list."""

    daemon_threads = True  # a browser keeps connections open

    def __init__(
        self,
        labels: LabelFile,
        render: Callable[[Sequence[LabelledLine]], bytes],
        *,
        refs: Collection[str],
        classes: tuple[str, str],
        port: int = 0,
    ) -> None:
        """Listens on ``port``; 0 is any that is free. Raises UserError if another program has it.

        ``render`` returns the page with the lines of the list as it is now. Only images of ``refs`` get a label.
        """
        self.labels = labels
        self.render = render
        self._refs = frozenset(refs)
        self._labels = {"", *classes}
        self._token: str | None = secrets.token_urlsafe(32)
        self._cookie = secrets.token_urlsafe(32)
        self._lock = threading.Lock()
        try:
            super().__init__((_HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else "there is no such port"
            raise UserError(
                f"Port {port} of {_HOST} cannot be used: {reason}. Choose another one with --port."
            ) from error
        self.url = f"http://{_HOST}:{self.server_port}/?token={self._token}"

    @property
    def cookie_name(self) -> str:
        """The name of the cookie. A browser keeps those of all ports of a machine together."""
        return f"twofold-{self.server_port}"

    @property
    def hosts(self) -> frozenset[str]:
        """The names by which the server may be called."""
        return frozenset(f"{name}:{self.server_port}" for name in (_HOST, "localhost"))

    def exchange(self, token: str) -> str | None:
        """Returns the value of the cookie for the token of the address, the first time; None for any other."""
        with self._lock:
            if self._token is None or not secrets.compare_digest(token.encode(), self._token.encode()):
                return None
            self._token = None
            return self._cookie

    def is_known(self, cookie: str) -> bool:
        """Returns whether a request comes from the browser that has exchanged the token."""
        return secrets.compare_digest(cookie.encode(), self._cookie.encode())

    def save(self, body: bytes) -> None:
        """Writes the answers of the page. Raises ValueError or UserError for anything else, OSError if it cannot."""
        answers = json.loads(body)
        if not isinstance(answers, list):
            raise UserError("These are not labels.")
        self.labels.apply([self._answer(cells) for cells in answers])

    def server_bind(self) -> None:
        """Binds the socket. The class above would also look up the name of the machine, which can take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = _HOST, int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as in the standard library
        """Says nothing of a browser that has closed its connection."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    def server_close(self) -> None:
        """Ends the server, once the list is written."""
        super().server_close()
        self.labels.close()

    def _answer(self, cells: object) -> Answer:
        match cells:
            case [str(ref), None] if ref in self._refs:
                return Answer(ref, None)
            case [str(ref), str(label), str(), str(), str()] if ref in self._refs and label in self._labels:
                (line,) = read_labelled_list(csv_bytes([COLUMNS, cells]), where="What the page has sent")
                return Answer(ref, line)
            case _:
                raise UserError("These are not labels of images of this page.")


class _Handler(BaseHTTPRequestHandler):
    server: LabelServer
    server_version = "twofold"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = _SILENCE_S

    def do_GET(self) -> None:
        """Answers with the page, or exchanges the token and sends the browser on to the page."""
        address = urlsplit(self.path)
        if not self._is_called_rightly():
            return
        if address.path != "/":
            self._say(HTTPStatus.NOT_FOUND, "There is nothing here.")
            return
        (token,) = parse_qs(address.query).get("token", [""])[:1]
        cookie = self.server.exchange(token) if token else None
        if cookie:
            kept = f"{self.server.cookie_name}={cookie}; Path=/; HttpOnly; SameSite=Strict"
            self._send(HTTPStatus.SEE_OTHER, b"", {"Location": "/", "Set-Cookie": kept})
        elif not self._is_known():
            self._say(HTTPStatus.FORBIDDEN, _USED)
        elif token:
            self._send(HTTPStatus.SEE_OTHER, b"", {"Location": "/"})
        else:
            page = self.server.render(self.server.labels.lines)
            self._send(HTTPStatus.OK, page, {"Content-Type": "text/html; charset=utf-8"})

    def do_POST(self) -> None:
        """Saves answers."""
        length = self.headers.get("Content-Length", "")
        body = self.rfile.read(int(length)) if length.isdecimal() and int(length) <= _MAX_BODY_BYTES else None
        if body is None:
            self.close_connection = True  # what follows is not another request
            self._say(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "This is too long.")
        elif self._is_called_rightly() and self._comes_from_the_page():
            self._save(body)

    def _save(self, body: bytes) -> None:
        try:
            self.server.save(body)
        except (UserError, ValueError) as error:
            self._say(HTTPStatus.CONFLICT, str(error) if isinstance(error, UserError) else "These are not labels.")
        except OSError as error:
            path = self.server.labels.path
            self._say(HTTPStatus.INSUFFICIENT_STORAGE, f"{path} cannot be written: {error.strerror}.")
        else:
            self._send(HTTPStatus.NO_CONTENT, b"", {})

    def _is_called_rightly(self) -> bool:
        """Returns whether the request names this machine. Refuses it if not."""
        if self.headers.get("Host") in self.server.hosts:
            return True
        self._say(HTTPStatus.MISDIRECTED_REQUEST, "This server answers to its own address only.")
        return False

    def _comes_from_the_page(self) -> bool:
        """Returns whether the request may change something. Refuses it if not."""
        is_page = self.headers.get("Origin") == f"http://{self.headers['Host']}"
        is_json = self.headers.get_content_type() == "application/json"
        if self.path == "/labels" and is_page and is_json and self._is_known():
            return True
        self._say(HTTPStatus.FORBIDDEN, "Only the page itself can save labels.")
        return False

    def _is_known(self) -> bool:
        try:
            cookies = SimpleCookie(self.headers.get("Cookie", ""))
        except CookieError:
            return False
        cookie = cookies.get(self.server.cookie_name)
        return cookie is not None and self.server.is_known(cookie.value)

    def _say(self, status: HTTPStatus, text: str) -> None:
        self._send(status, text.encode(), {"Content-Type": "text/plain; charset=utf-8"})

    def _send(self, status: HTTPStatus, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (_HEADERS | headers).items():
            self.send_header(name, value)
        if status is not HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Prints nothing: the terminal shows the address and what to do."""
