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
from dataclasses import dataclass, field
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
            env=_inherited(),
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
    """A process that a template has started."""

    template: Template
    pid: int
    log: Path
    family: set[psutil.Process] = field(default_factory=set)  #: its descendants, as far as they were seen

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

    def descendants(self) -> list[psutil.Process]:
        """Returns the processes that it and its children have started."""
        try:
            found: list[psutil.Process] = psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            found = []
        self.family.update(found)
        return found

    def rss_mb(self) -> float:
        """Returns the resident memory of it and its descendants, in MB."""
        members = [psutil.Process(self.pid), *self.descendants()]
        return float(sum(process.memory_info().rss for process in members) / 1e6)

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        self.descendants()
        os.kill(self.pid, number)

    def send_to_all(self, number: signal.Signals) -> None:
        """Sends a signal to it and its descendants."""
        self.send(number)
        for process in self.descendants():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def kill(self) -> None:
        """Ends it with SIGKILL, and returns once it is gone."""
        if self.status() is None:
            self.send(signal.SIGKILL)
        self.wait()

    def kill_one(self, luck: Random) -> None:
        """Ends it or, as often if it has any, one of its descendants, with SIGKILL."""
        below = self.descendants()
        if not below or luck.random() < 0.5:
            self.kill()
        else:
            with suppress(psutil.NoSuchProcess):
                luck.choice(below).kill()

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
        self._environment = dict(environment)
        self._folder = folder
        self._started: list[Started] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._started:
            worker.kill()
        for process in self.left_behind():
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def start(self, *arguments: str, **settings: str) -> Started:
        """Starts a worker; ``settings`` are further environment variables. It may still be loading its model."""
        with self._lock:
            log = self._folder / f"worker-{len(self._started):03}.log"
            environment = _inherited() | self._environment | settings
            worker = self._template.start("worker", *arguments, environment=environment, log=log)
            self._started.append(worker)
        return worker

    def logs(self) -> list[str]:
        """Returns what each of them has logged."""
        return [worker.text() for worker in self._started]

    def left_behind(self) -> list[psutil.Process]:
        """Returns children whose worker has ended, after a while in which they may end too."""
        return left_behind([worker for worker in self._started if worker.status() is not None])


def _inherited() -> dict[str, str]:
    """Returns the environment with bytecode caching enabled: a worker starts a program that loads libraries anew."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def wait_until(done: Callable[[], object], *, what: str, limit_s: float = LIMIT_S, look_s: float = _LOOK_S) -> None:
    """Waits for something that must come. Raises TimeoutError when it does not."""
    deadline = time.monotonic() + limit_s
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} within {limit_s:.0f} s")
        time.sleep(look_s)


def left_behind(ended: Sequence[Started], *, patience_s: float = 10.0) -> list[psutil.Process]:
    """Returns the descendants of processes that have ended which still run after a while."""
    deadline = time.monotonic() + patience_s
    family = {process for one in ended for process in one.family}
    while (found := [process for process in family if _runs(process)]) and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
    return found


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
