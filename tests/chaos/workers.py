"""Workers that are started and killed.

A template process loads the worker's code once and forks a copy of itself for each start, which then runs
``python -m worker`` from its first line. So a worker is ready in 0.2 s instead of 0.9 s, and hundreds can be killed.
"""

import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
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
            [sys.executable, "-m", __name__, *self._loaded],
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
        ended = {worker.pid for worker in self._started if worker.status() is not None}
        deadline = time.monotonic() + 10
        while (found := _sessions(ended)) and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        return found


def wait_until(done: Callable[[], bool], *, what: str, limit_s: float = LIMIT_S, look_s: float = _LOOK_S) -> None:
    """Waits for something that must come. Raises TimeoutError when it does not."""
    deadline = time.monotonic() + limit_s
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} within {limit_s:.0f} s")
        time.sleep(look_s)


def _sessions(leaders: set[int]) -> list[int]:
    """Returns the processes that belong to the sessions of these leaders, zombies excluded."""
    found = []
    for process in psutil.process_iter(["pid", "status"]):
        try:
            is_member = os.getsid(process.pid) in leaders and process.info["status"] != psutil.STATUS_ZOMBIE
        except (ProcessLookupError, PermissionError):
            continue
        if is_member:
            found.append(process.pid)
    return found


def _fork(module: str, arguments: list[str], environment: dict[str, str], log: str) -> int:
    """Returns the process id of a copy that runs the module."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for descriptor in (1, 2):
            os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), descriptor)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter does at its end
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        os._exit(status)


def _serve(loaded: list[str]) -> None:
    """Answers requests on standard input, each a line of JSON, until it ends."""
    for module in loaded:
        __import__(module)
    statuses: dict[int, int | None] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            answer: int | None = _fork(**request["start"])
        else:
            pid = request["poll"]
            if statuses.get(pid) is None:
                statuses[pid] = _status(pid)
            answer = statuses[pid]
        print(json.dumps(answer), flush=True)


def _status(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


if __name__ == "__main__":
    _serve(sys.argv[1:])
