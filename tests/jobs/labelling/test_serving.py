"""The page on a server: each answer is in the list at once, and nobody else can give one."""

import http.client
import json
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs.labelled_list import LabelledLine, labelled_list_csv, read_labelled_list
from jobs.labelling.label_file import LabelFile
from jobs.labelling.serving import LabelServer
from jobs.labelling.session import LabellingSession
from jobs.user_error import UserError
from tests.browser import Browser
from tests.jobs.labelling.conftest import CLASSES, some_images

LINE = ["photos/1.jpg", "cat", "2026-11-24T10:15:00Z", "", ""]


@dataclass
class Served:
    """A server in a thread, and a client that knows what the browser knows."""

    server: LabelServer
    thread: threading.Thread
    path: Path
    cookie: str = ""

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"

    @property
    def token(self) -> str:
        return self.server.url.rpartition("=")[2]

    def ask(self, method: str, path: str, body: object = None, **changed: str | None) -> http.client.HTTPResponse:
        """Sends a request as the page would, with some headers changed, or left out where they are None."""
        headers: dict[str, str | None] = {"Host": self.host, "Cookie": self.cookie or None}
        if body is not None:
            headers |= {"Origin": f"http://{self.host}", "Content-Type": "application/json"}
        headers |= {name.replace("_", "-"): value for name, value in changed.items()}
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=30)
        given = {name: value for name, value in headers.items() if value is not None}
        connection.request(method, path, data, given)
        answer = connection.getresponse()
        answer.body = answer.read().decode()  # type: ignore[attr-defined]
        connection.close()
        return answer

    def enter(self) -> None:
        """Exchanges the token for the cookie."""
        answer = self.ask("GET", f"/?token={self.token}")
        assert (answer.status, answer.headers["Location"]) == (303, "/")
        self.cookie = answer.headers["Set-Cookie"].partition(";")[0]

    def labels(self) -> dict[str, str | None]:
        if not self.path.exists():
            return {}
        return {line.source_ref: line.label for line in read_labelled_list(self.path.read_bytes(), where="")}

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A page of six images, and a list that has one line already."""
    path = tmp_path / "labels.csv"
    path.write_bytes(labelled_list_csv([LabelledLine("photos/6.jpg", "dog", note="from before")]))
    session = LabellingSession("photos", "", CLASSES, some_images(6), LabelFile(path))
    server = session.server(0)
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    found = Served(server, thread, path)
    yield found
    if thread.is_alive():
        found.stop()


def test_the_list_is_written_as_one_goes(browser: Browser, served: Served) -> None:
    """After each key. A reload shows what the list has, and undo changes it, too."""
    page = browser.open(served.server.url)
    assert page.run("location.href") == f"http://{served.host}/"
    before = {"photos/6.jpg": "dog"}
    page.press("ArrowLeft")
    page.wait_for("document.querySelector('#saving').textContent === 'Saved'")
    assert served.labels() == before | {"photos/1.jpg": "cat"}
    page.press("ArrowUp", "ArrowRight", "u")
    page.wait_for("document.querySelector('#saving').textContent === 'Saved'")
    assert served.labels() == before | {"photos/1.jpg": "cat", "photos/2.jpg": None}
    page.reload()
    assert page.text("#name") == "3.jpg"
    page.press("Shift ArrowLeft", "ArrowRight", "u")
    page.wait_for("document.querySelector('#saving').textContent === 'Saved'")
    assert served.labels() == before | {"photos/1.jpg": "cat", "photos/2.jpg": None}
    page.press("s")
    assert page.text("#said") == "labels.csv has all labels."
    assert page.run("localStorage.length") == 0
    assert page.problems == []


def test_a_label_that_cannot_be_saved_is_not_lost(browser: Browser, served: Served) -> None:
    """The page says why, and tries again."""
    page = browser.open(served.server.url)
    page.press("ArrowLeft")
    page.wait_for("document.querySelector('#saving').textContent === 'Saved'")
    saved = served.path.read_bytes()
    served.path.write_text("broken")
    page.press("ArrowRight")
    page.wait_for("!document.querySelector('#notice').hidden")
    assert re.match(r"Not saved\. .*labels\.csv has no column", page.text("#notice"))
    served.path.write_bytes(saved)
    page.wait_for("document.querySelector('#saving').textContent === 'Saved'")
    assert page.run("document.querySelector('#notice').hidden")
    assert served.labels() == {"photos/6.jpg": "dog", "photos/1.jpg": "cat", "photos/2.jpg": "dog"}


def test_the_address_works_once(served: Served) -> None:
    """For the browser that used it, the page stays open, and the address leads to it; for any other, it is used up."""
    assert served.ask("GET", "/").status == 403
    assert served.ask("GET", "/?token=wrong").status == 403
    served.enter()
    cookie = served.ask("GET", f"/?token={served.token}", Cookie=None)
    assert cookie.status == 403
    assert "has been used" in cookie.body  # type: ignore[attr-defined]
    assert served.ask("GET", f"/?token={served.token}").status == 303
    page = served.ask("GET", "/")
    assert page.status == 200
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert page.headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    assert served.ask("GET", "/labels.csv").status == 404


def test_of_many_that_use_the_address_at_once_one_gets_the_cookie(served: Served) -> None:
    """Whoever comes first."""
    cookies: list[str | None] = []
    threads = [threading.Thread(target=lambda: cookies.append(served.server.exchange(served.token))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([cookie for cookie in cookies if cookie]) == 1


def test_the_cookie_is_for_this_server_and_for_no_script(served: Served) -> None:
    """Nor is it sent along when another site links to the page."""
    set_cookie = served.ask("GET", f"/?token={served.token}").headers["Set-Cookie"]
    assert re.fullmatch(rf"twofold-{served.server.server_port}=\S{{43}}; Path=/; HttpOnly; SameSite=Strict", set_cookie)
    assert served.token not in set_cookie


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"Host": "evil.example:80"}, 421),
        ({"Host": "evil.example:80", "Origin": "http://evil.example:80"}, 421),
        ({"Host": "127.0.0.1"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": None}, 403),
        ({"Cookie": None}, 403),
        ({"Cookie": "twofold-1=x; a b=c"}, 403),
        ({"Content_Type": "text/plain"}, 403),
        ({"Content_Length": "99999999999"}, 413),
        ({"Content_Length": "-1"}, 413),
    ],
    ids=lambda value: "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else None,
)
def test_only_the_page_itself_can_save(changed: dict[str, str | None], status: int, served: Served) -> None:
    """Not another site, not one that lets its name point here, not another user of this machine."""
    served.enter()
    assert served.ask("POST", "/labels", [LINE], **changed).status == status
    assert served.labels() == {"photos/6.jpg": "dog"}
    assert served.ask("POST", "/labels", [LINE]).status == 204
    assert served.labels() == {"photos/6.jpg": "dog", "photos/1.jpg": "cat"}


@pytest.mark.parametrize(
    "body",
    [
        b"nonsense",
        b"\xff",
        {"photos/1.jpg": "cat"},
        [["elsewhere.jpg", *LINE[1:]]],
        [["photos/1.jpg", "bird", *LINE[2:]]],
        [["photos/1.jpg", "cat", "yesterday", "", ""]],
        [["photos/1.jpg", "cat"]],
        [["photos/1.jpg", 1, "", "", ""]],
        [LINE, ["elsewhere.jpg", None]],
    ],
    ids=repr,
)
def test_what_is_not_a_label_of_the_page_changes_nothing(body: object, served: Served) -> None:
    """A list has what the person saw, and nothing else."""
    served.enter()
    assert served.ask("POST", "/labels", body).status == 409
    assert served.labels() == {"photos/6.jpg": "dog"}


def test_it_listens_on_this_machine_only(served: Served) -> None:
    """Whatever the name of the machine is."""
    assert served.server.socket.getsockname()[0] == "127.0.0.1"


def test_a_port_that_is_taken_is_refused(served: Served, tmp_path: Path) -> None:
    """With the option that chooses another one."""
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(UserError, match="Choose another one with --port"),
    ):
        LabelServer(
            LabelFile(tmp_path / "b.csv"),
            lambda _: b"",
            refs=[],
            classes=CLASSES,
            port=other.getsockname()[1],
        )
