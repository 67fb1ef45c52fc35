"""Workers that are started and killed. They are copies of a template process: see tests/chaos/template.py."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final, Self

import psutil  # type: ignore[import-untyped]

from tests.chaos.fault_proxy import LIMIT_S
from tests.conftest import REPOSITORY

_LOOK_S: Final = 0.01


class Template:
    """A process that runs modules in copies of itself. A context manager; safe to share between threads."""

    def __init__(self, *loaded: str) -> None:
        """``loaded`` are the modules that take the time to import."""
        self._loaded = loaded
        self._lock = threading.Lock()

    @classmethod
    def of_workers(cls) -> Self:
        """Returns a template of workers. ``worker.__main__`` itself runs anew in each copy."""
        return cls("worker.bootstrap", "worker.consumer", "worker.health")

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.template", *self._loaded],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # it ends when its input does

    def start(self, module: str, *arguments: str, environment: Mapping[str, str], log: Path) -> "Started":
        """Runs ``python -m <module> <arguments>`` with exactly this environment. All its output goes to ``log``."""
        log.touch()
        start = {"module": module, "arguments": arguments, "environment": dict(environment), "log": str(log)}
        return Started(self, int(self.ask({"start": start})), log)

    def ask(self, request: dict[str, Any]) -> Any:
        """Sends a request to the process and returns its answer."""
        with self._lock:
            assert self._process.stdin
            assert self._process.stdout
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())


@dataclass(frozen=True)
class Started:
    """A process that a template has started. It leads a session, to which its own children belong."""

    template: Template
    pid: int
    log: Path

    def text(self) -> str:
        """Returns what it has logged."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, text: str) -> None:
        """Waits until it has logged this text. Raises AssertionError when it ends before."""
        wait_until(lambda: text in self.text() or self.status() is not None, what=f"{text!r} in the log")
        assert text in self.text(), f"it ended without {text!r}:\n{self.text()[-2000:]}"

    def received(self) -> int:
        """Returns how many messages it has received."""
        return self.text().count(": receive ")

    def members(self) -> list[int]:
        """Returns the process ids of it and its descendants."""
        try:
            below = psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            below = []
        return [self.pid, *(process.pid for process in below)]

    def rss_mb(self) -> float:
        """Returns the resident memory of it and its descendants, in MB."""
        return float(sum(psutil.Process(pid).memory_info().rss for pid in self.members()) / 1e6)

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it with SIGKILL, and returns once it is gone."""
        if self.status() is None:
            self.send(signal.SIGKILL)
        self.wait()

    def kill_one(self, luck: Random) -> None:
        """Ends it or, as often if it has any, one of its descendants, with SIGKILL."""
        below = self.members()[1:]
        if not below or luck.random() < 0.5:
            self.kill()
        else:
            with suppress(ProcessLookupError):
                os.kill(luck.choice(below), signal.SIGKILL)

    def status(self) -> int | None:
        """Returns its exit status, or None while it runs; negative: the signal that ended it."""
        status: int | None = self.template.ask({"poll": self.pid})
        return status

    def wait(self, *, limit_s: float = LIMIT_S) -> int:
        """Returns its exit status once it has ended."""
        wait_until(lambda: self.status() is not None, what=f"the end of {self.log.name}", limit_s=limit_s)
        status = self.status()
        assert status is not None
        return status


class Crew:
    """The workers of one scenario, as a context manager that leaves none behind."""

    def __init__(self, template: Template, environment: Mapping[str, str], folder: Path) -> None:
        """``folder`` gets the logs."""
        self._template = template
        self._environment = environment
        self._folder = folder
        self._started: list[Started] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._started:
            worker.kill()
        for pid in self.left_behind():
            os.kill(pid, signal.SIGKILL)

    def start(self, *arguments: str, **settings: str) -> Started:
        """Starts a worker; ``settings`` are further environment variables. It may still be loading its model."""
        with self._lock:
            log = self._folder / f"worker-{len(self._started):03}.log"
            environment = {**os.environ, **self._environment, **settings}
            worker = self._template.start("worker", *arguments, environment=environment, log=log)
            self._started.append(worker)
        return worker

    def logs(self) -> list[str]:
        """Returns what each of them has logged."""
        return [worker.text() for worker in self._started]

    def left_behind(self) -> list[int]:
        """Returns the process ids of children whose worker has ended, after a while in which they may end too."""
        return left_behind([worker for worker in self._started if worker.status() is not None])


def wait_until(done: Callable[[], bool], *, what: str, limit_s: float = LIMIT_S, look_s: float = _LOOK_S) -> None:
    """Waits for something that must come. Raises TimeoutError when it does not."""
    deadline = time.monotonic() + limit_s
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} within {limit_s:.0f} s")
        time.sleep(look_s)


def left_behind(ended: Sequence[Started], *, patience_s: float = 10.0) -> list[int]:
    """Returns the process ids of what still runs in the sessions of processes that have ended."""
    deadline = time.monotonic() + patience_s
    leaders = {one.pid for one in ended}
    while (found := _members(leaders)) and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
    return found


def _members(leaders: set[int]) -> list[int]:
    """Returns the processes of these sessions. Zombies have ended."""
    found = []
    for process in psutil.process_iter(["pid", "status"]):
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(process.pid) in leaders and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found
