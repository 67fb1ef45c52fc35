"""Headless Chromium, driven over a pipe by its DevTools protocol: keys, touches, downloads, screenshots.

    with Browser.start(folder) as browser:
        page = browser.open(path.as_uri(), width=390, height=844, dark=True)
        page.press("ArrowLeft")
        page.wait_for("document.title === 'saved'")
        page.screenshot(folder / "page.png")
        assert page.problems == []

The protocol (https://chromedevtools.github.io/devtools-protocol/) goes through ``--remote-debugging-pipe``: no port is
opened, and no library is needed. Everything that the browser writes is in the folder that it is given.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import pytest

#: How long a browser on a busy machine may take for anything.
_PATIENCE_S: Final = 60
_COMMAND: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--disable-extensions"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"),
    *("--disable-default-apps", "--disable-dev-shm-usage", "--remote-debugging-pipe", "--force-color-profile=srgb"),
)
#: Gives the pipe the numbers that the browser expects: it reads 3 and writes 4.
_LAUNCH: Final = (
    "import os, sys; [os.dup2(int(sys.argv[n]), n + 2) for n in (1, 2)]; os.execv(sys.argv[3], sys.argv[3:])"
)
#: The code and the text of keys that are not letters.
_KEYS: Final = {
    "ArrowLeft": (37, None),
    "ArrowUp": (38, None),
    "ArrowRight": (39, None),
    "ArrowDown": (40, None),
    "Backspace": (8, None),
    "Enter": (13, "\r"),
    "Escape": (27, None),
    "Tab": (9, None),
}
_SHIFT: Final = 8


@dataclass
class Browser:
    """A browser in a process group of its own."""

    process: "subprocess.Popen[bytes]"
    downloads: Path
    _to: int
    _from: int
    _buffer: bytes = b""
    _last: int = 0
    _answers: dict[int, dict[str, Any]] = field(default_factory=dict)
    _downloads: dict[str, str] = field(default_factory=dict)  # the names of those under way, by their files
    _downloaded: dict[str, Path] = field(default_factory=dict)
    _pages: dict[str, "Page"] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def start(cls, folder: Path) -> Iterator[Self]:
        """Starts Chromium with a new profile in ``folder``. Skips the test where there is none."""
        command = next(filter(None, map(shutil.which, _COMMAND)), None)
        if command is None:
            pytest.skip("there is no Chromium: apt-get install chromium")
        (folder / "downloads").mkdir(parents=True)
        their_in, our_out = _pipe()
        our_in, their_out = _pipe()
        start = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(their_in), str(their_out), command, *_FLAGS]
        process = subprocess.Popen(
            [*start, f"--user-data-dir={folder / 'profile'}"],
            pass_fds=(their_in, their_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(folder / "chromium.log").open("wb"),
            env=os.environ | {"HOME": str(folder)},
            start_new_session=True,
        )
        os.close(their_in)
        os.close(their_out)
        try:
            yield cls(process, folder / "downloads", our_out, our_in)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(our_out)
            os.close(our_in)

    def open(
        self, url: str, *, width: int = 1280, height: int = 800, dark: bool = False, touch: bool = False
    ) -> "Page":
        """Opens a page in a window with a storage of its own, and waits until it is loaded. Nothing on it moves."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        self.call(
            "Browser.setDownloadBehavior",
            behavior="allowAndName",
            browserContextId=context,
            downloadPath=str(self.downloads),
            eventsEnabled=True,
        )
        page = self._attach(context)
        page.call("Page.enable")
        page.call("Runtime.enable")
        page.call("Log.enable")
        page.resize(width, height, mobile=touch)
        page.call("Emulation.setTouchEmulationEnabled", enabled=touch)
        page.call("Emulation.setEmulatedMedia", features=_media(dark=dark))
        page.go(url)
        return page

    def _attach(self, context: str) -> "Page":
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session, target)
        return page

    def call(self, method: str, *, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Sends a command, and returns its result. Raises AssertionError if the browser refuses it."""
        number = self.post(method, session=session, **parameters)
        while number not in self._answers:
            message = self._receive()
            if "id" in message:
                self._answers[message["id"]] = message
            else:
                self._note(message)
        answer = self._answers.pop(number)
        assert "error" not in answer, (method, answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    def post(self, method: str, *, session: str | None = None, **parameters: Any) -> int:
        """Sends a command, and returns its number without waiting for the answer."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters} | (
            {"sessionId": session} if session else {}
        )
        self._send(json.dumps(message).encode() + b"\0")
        return self._last

    def has(self, target: str) -> bool:
        """Returns whether a window is open."""
        return any(info["targetId"] == target for info in self.call("Target.getTargets")["targetInfos"])

    def downloaded(self, name: str) -> bytes:
        """Waits for the next download of that name, and returns it."""
        deadline = time.monotonic() + _PATIENCE_S
        while name not in self._downloaded:
            assert time.monotonic() < deadline, f"{name} was not downloaded"
            self.call("Browser.getVersion")  # reads the events in between
        return self._downloaded.pop(name).read_bytes()

    def _send(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._to, data) :]

    def _receive(self) -> dict[str, Any]:
        pieces = [self._buffer]
        while b"\0" not in pieces[-1]:
            ready, _, _ = select.select([self._from], [], [], _PATIENCE_S)
            assert ready, "the browser does not answer"
            pieces.append(os.read(self._from, 1 << 20))
            assert pieces[-1], "the browser has ended"
        message, _, self._buffer = b"".join(pieces).partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def _note(self, event: dict[str, Any]) -> None:
        page, facts = self._pages.get(event.get("sessionId", "")), event["params"]
        if page:
            page.note(event)
        elif event["method"] == "Browser.downloadWillBegin":
            self._downloads[facts["guid"]] = facts["suggestedFilename"]
        elif event["method"] == "Browser.downloadProgress" and facts["state"] == "completed":
            self._downloaded[self._downloads.pop(facts["guid"])] = self.downloads / facts["guid"]


@dataclass
class Page:
    """A page in a window of its own."""

    browser: Browser
    session: str
    target: str
    problems: list[str] = field(default_factory=list)  #: errors, exceptions, and what the page's policy forbids
    dialogs: list[str] = field(default_factory=list)  #: the kinds of dialogs that it showed; each is accepted
    _loads: int = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command about this page."""
        return self.browser.call(method, session=self.session, **parameters)

    def resize(self, width: int, height: int, *, mobile: bool = False) -> None:
        """Gives the window another size, in pixels."""
        size: dict[str, Any] = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def go(self, url: str) -> None:
        """Opens an address, and waits until it is loaded."""
        self._and_loaded("Page.navigate", url=url)

    def reload(self) -> None:
        """Loads the page again."""
        self._and_loaded("Page.reload")

    def close(self) -> None:
        """Closes the window, and accepts what the page may ask before that."""
        self.call("Page.close")
        deadline = time.monotonic() + _PATIENCE_S
        while self.browser.has(self.target):
            assert time.monotonic() < deadline, "the window does not close"

    def run(self, script: str) -> Any:
        """Returns the value of an expression, or that of its promise. Raises AssertionError if it throws."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Waits until an expression is true."""
        deadline = time.monotonic() + _PATIENCE_S
        while not self.run(condition):
            assert time.monotonic() < deadline, f"{condition} is not true. The page: {self.text('body')}"
            time.sleep(0.01)

    def text(self, selector: str) -> str:
        """Returns the text of an element, as it is shown."""
        found: str = self.run(f"document.querySelector({json.dumps(selector)}).innerText")
        return found

    def press(self, *keys: str) -> None:
        """Presses keys, one after the other: "a", "Enter", "Shift ArrowLeft"."""
        for name in keys:
            *held, key = name.split(" ")
            code, text = _KEYS.get(key, (ord(key.upper()) if len(key) == 1 else 0, key))
            event: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": code}
            event |= {"modifiers": _SHIFT if held or key == "?" else 0}
            down = event | ({"text": text} if text else {})
            self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **down)
            self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def click(self, selector: str) -> None:
        """Clicks the middle of an element with the mouse."""
        x, y = self._middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def swipe(self, selector: str, *, right: int = 0, down: int = 0) -> None:
        """Moves a finger from the middle of an element, in a few steps."""
        x, y = self._middle(selector)
        self.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        for part in range(1, 6):
            point = {"x": x + right * part / 5, "y": y + down * part / 5}
            self.call("Input.dispatchTouchEvent", type="touchMove", touchPoints=[point])
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def screenshot(self, path: Path) -> None:
        """Writes what is in the window as a PNG file."""
        shot = self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    def note(self, event: dict[str, Any]) -> None:
        """Keeps what an event says about the page."""
        facts = event["params"]
        match event["method"]:
            case "Page.loadEventFired":
                self._loads += 1
            case "Runtime.exceptionThrown":
                self.problems.append(json.dumps(facts["exceptionDetails"]))
            case "Log.entryAdded" if facts["entry"]["level"] in {"error", "warning"}:
                self.problems.append(facts["entry"]["text"])
            case "Runtime.consoleAPICalled" if facts["type"] in {"error", "warning", "assert"}:
                self.problems.append(json.dumps(facts["args"]))
            case "Page.javascriptDialogOpening":
                self.dialogs.append(facts["type"])
                self.browser.post("Page.handleJavaScriptDialog", session=self.session, accept=True)

    def _and_loaded(self, method: str, **parameters: Any) -> None:
        before, deadline = self._loads, time.monotonic() + _PATIENCE_S
        answer = self.call(method, **parameters)
        assert "errorText" not in answer, answer
        while self._loads == before:
            assert time.monotonic() < deadline, "the page does not load"
            self.browser.call("Browser.getVersion")  # reads the events in between

    def _middle(self, selector: str) -> tuple[float, float]:
        box = self.run(
            f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        return box[0], box[1]


def _pipe() -> tuple[int, int]:
    """A pipe whose ends have numbers that are out of the way of those that the browser expects."""
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return moved[0], moved[1]


def _media(*, dark: bool) -> list[dict[str, str]]:
    return [
        {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
