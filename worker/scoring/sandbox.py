"""The sandbox: images are decoded and scored in processes of their own, so that none can harm the worker.

    with Sandbox(processes=2) as sandbox:
        sandbox.open(graph)                       loads a model, or raises Reject bad_model
        sandbox.score(data, graph)         ->     0.98, or raises Reject
        sandbox.decode(data, size_px=160)  ->     pixels, or raises Reject

A hostile image can crash a decoder, keep it busy for hours, or make it allocate gigabytes. Here that ends one process:
the image is rejected with the reason, another process is forked, and no other image notices. The processes themselves
limit their processor time and memory (``worker.scoring.child``). Their time on the clock is limited here.
"""

import json
import logging
import math
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Self

from worker.errors import Broken, ErrorCode, Reject, Retry
from worker.scoring.limits import MIB, Budget, ImageLimits
from worker.scoring.template import Template

log = logging.getLogger(__name__)

#: Memory for the pixels of large images: for each process, and at least. 30 million pixels take 240 MB in most formats.
_PIXELS_BYTES: Final = 96 * MIB
_MIN_PIXELS_BYTES: Final = 256 * MIB
#: Models in one process. Each takes tens of megabytes.
_MODELS: Final = 2
#: For forking a process, or for loading a model and trying it on the probe images. Both take a fraction of a second.
_READY_S: Final = 30
#: How many processes in a row may die without an image to blame.
_MAX_STRAYS: Final = 3
_TICK_S: Final = 0.25
_FROZEN_S: Final = 5

#: Most images are smaller. Larger ones are not copied once more.
_JOINED_BYTES: Final = 256 * 1024
_MAX_ANSWER_BYTES: Final = 64 * 1024
_MAX_MESSAGE: Final = 1000
#: More than an image of any size needs.
_MAX_SIZE_BYTES: Final = 4 * 1024 * MIB

#: What a child may say about an image, and be used again.
_IMAGE_CODES: Final = frozenset(
    {
        ErrorCode.BAD_MODEL,
        ErrorCode.DAMAGED,
        ErrorCode.EMPTY,
        ErrorCode.NOT_AN_IMAGE,
        ErrorCode.TOO_MANY_BYTES,
        ErrorCode.TOO_MANY_PIXELS,
        ErrorCode.UNSUPPORTED_PIXELS,
    }
)


@dataclass(frozen=True)
class ModelGraph:
    """A LiteRT graph, known by its digest."""

    sha256: str
    content: bytes
    image_size: int  #: the width and height of its input, in pixels


@dataclass(frozen=True)
class Opened:
    """What a graph makes of the probe images, and which decoder it will be given images by."""

    probe_scores: tuple[float, ...]
    decoder_fingerprint: str


@dataclass(frozen=True)
class Scored:
    """A score, and how long it took."""

    score: float  #: P(class 1), in [0, 1]
    decode_ms: float
    score_ms: float


class _Died(Exception):
    """A child ended before it had answered."""


class _Child:
    """The worker's view of a child. One thread at a time uses it, and another one watches its deadline."""

    def __init__(self, template: Template) -> None:
        self.models: set[str] = set()
        self.usable = False  #: it is alive, and waits for a request
        self.overdue = False  #: it was killed at its deadline
        self._template = template
        self._deadline_s = math.inf
        self._lock = threading.Lock()
        self._died_of: str | None = None
        self._pid, self._pipe = template.fork()
        self._end = select.poll()  # a tenth of the time of Connection.poll
        self._end.register(self._pipe, select.POLLIN)

    def wait_until_ready(self) -> None:
        """Raises _Died."""
        with self._exchange(_READY_S):
            self._receive()

    def ask(
        self, request: dict[str, Any], data: bytes | memoryview, *, limit_s: float, pixels: Budget
    ) -> tuple[dict[str, Any], bytes]:
        """Sends a request, and returns the answer with what follows it. Raises _Died, or Reject for nonsense."""
        with ExitStack() as stack, self._exchange(limit_s):
            header = json.dumps(request).encode()
            if len(data) <= _JOINED_BYTES:  # one message instead of two: each call of the system lets other threads in
                self._pipe.send_bytes(b"".join((header, b"\n", data)))
            else:
                self._pipe.send_bytes(header)
                self._pipe.send_bytes(data)
            answer = self._receive()
            if "needs" in answer:
                self._set_deadline(math.inf)  # others may take as long as they are allowed to
                stack.enter_context(pixels.taken(_int(answer["needs"])))
                self._set_deadline(limit_s)
                self._pipe.send_bytes(b"")
                answer = self._receive()
            following = self._pipe.recv_bytes(_int(answer["bytes"])) if "bytes" in answer else b""
        return answer, following

    def is_alive(self) -> bool:
        """Returns False if the child has died while it was idle: then its pipe has an end to read."""
        return not self._end.poll(0)

    def can_hold(self, graph: ModelGraph | None) -> bool:
        """Returns whether it has loaded ``graph``, or may."""
        return graph is None or graph.sha256 in self.models or len(self.models) < _MODELS

    def kill_if_overdue(self, now_s: float) -> None:
        """Kills the child when its deadline has passed. Its pipe then ends, which wakes the thread that waits."""
        with self._lock:
            if now_s < self._deadline_s:
                return
            self._deadline_s, self.overdue = math.inf, True
        try:
            self._template.kill(self._pid)
        except Broken:  # on Linux its children die with it; elsewhere, this at least wakes the thread that waits
            with socket.socket(fileno=os.dup(self._pipe.fileno())) as pipe:
                pipe.shutdown(socket.SHUT_RDWR)

    def extend(self, seconds: float) -> None:
        """Moves the deadline, for a time in which nothing ran at all."""
        with self._lock:
            self._deadline_s += seconds

    def bury(self) -> str:
        """Ends the child and returns what it died of: the name of a signal, or ``exit status 1``."""
        if self._died_of is None:
            self.usable = False
            self._pipe.close()
            try:
                status = self._template.bury(self._pid)
                self._died_of = signal.Signals(-status).name if status < 0 else f"exit status {status}"
            except Broken:  # the children of a template are killed when it dies
                self._died_of = signal.SIGKILL.name
        return self._died_of

    @contextmanager
    def _exchange(self, limit_s: float) -> Iterator[None]:
        self.usable = False
        self._set_deadline(limit_s)
        try:
            yield
        except (EOFError, OSError) as error:
            if isinstance(error, OSError) and error.errno is None:  # of ``recv_bytes``: longer than an answer may be
                raise _nonsense() from error
            raise _Died from error
        finally:
            self._set_deadline(math.inf)
        self.usable = not self.overdue

    def _set_deadline(self, limit_s: float) -> None:
        with self._lock:
            self._deadline_s = time.monotonic() + limit_s

    def _receive(self) -> dict[str, Any]:
        try:
            answer = json.loads(self._pipe.recv_bytes(_MAX_ANSWER_BYTES))
        except (ValueError, RecursionError) as error:
            raise _nonsense() from error
        if not isinstance(answer, dict):
            raise _nonsense()
        if answer.get("lines"):
            log.debug("a library printed %s lines about an image: %.200r", answer["lines"], answer.get("first"))
        return answer


def _int(number: object) -> int:
    """Returns a size that a child has sent. Raises Reject unless it is one."""
    if not isinstance(number, int) or not 0 <= number <= _MAX_SIZE_BYTES:
        raise _nonsense()
    return number


def _float(number: object) -> float:
    if not isinstance(number, float):
        raise _nonsense()
    return number


def _nonsense() -> Reject:
    return Reject(ErrorCode.DECODER_CRASHED, "its decoder answers nonsense")


def _killed_twice() -> Retry:
    return Retry(ErrorCode.UNAVAILABLE, "its process was killed twice: is the machine out of memory?")


class Sandbox:
    """Child processes that decode and score. Safe to share between threads: ``processes`` of them work at once."""

    def __init__(self, *, processes: int, limits: ImageLimits | None = None, template: Template | None = None) -> None:
        self.processes = processes
        self.limits = limits or ImageLimits()  #: of each image
        self._template = template or Template()
        self._pixels = Budget(max(_MIN_PIXELS_BYTES, processes * _PIXELS_BYTES))
        self._free = threading.Semaphore(processes)
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        self._busy: set[_Child] = set()
        self._strays = 0
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="deadlines", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all processes."""
        with self._lock:
            self._closed.set()
        self._template.close()

    def open(self, graph: ModelGraph) -> Opened:
        """Loads a model and scores the probe images. Raises Reject ``bad_model`` where that cannot be done."""
        answer = self._opened(graph)
        scores = answer.get("probe")
        if not isinstance(scores, list):
            raise _nonsense()
        return Opened(tuple(map(_float, scores)), str(answer.get("fingerprint")))

    def score(self, data: bytes | memoryview, graph: ModelGraph, *, cpu_s: float = math.inf) -> Scored:
        """Returns P(class 1) of an image file. Raises Reject with the code of an image, or ``bad_model``.

        ``cpu_s`` counts where it is less than the limit of all images. Raises Broken when process after process dies
        without an image to blame.
        """
        answer, _ = self._ask({"do": "score", "sha256": graph.sha256}, data, graph, cpu_s=cpu_s)
        return Scored(*(_float(answer.get(name)) for name in ("score", "decode_ms", "score_ms")))

    def decode(self, data: bytes | memoryview, *, size_px: int) -> bytes:
        """Returns the ``(size_px, size_px, 3)`` uint8 RGB pixels of an image file. Raises Reject, or Broken."""
        return self._ask({"do": "decode", "size_px": size_px}, data)[1]

    def thumbnail(self, data: bytes | memoryview, *, max_px: int) -> tuple[bytes, int]:
        """Returns the ``(H, W, 3)`` uint8 RGB pixels of an image file in its proportions, and H. Raises as ``decode``.

        Neither side has more than ``max_px`` pixels.
        """
        answer, pixels = self._ask({"do": "thumbnail", "max_px": max_px}, data)
        height = _int(answer.get("height"))
        width, rest = divmod(len(pixels), 3 * height) if height else (0, 0)
        if rest or not (1 <= width <= max_px and height <= max_px):
            raise _nonsense()
        return pixels, height

    def _ask(
        self,
        request: dict[str, Any],
        data: bytes | memoryview,
        graph: ModelGraph | None = None,
        *,
        cpu_s: float = math.inf,
    ) -> tuple[dict[str, Any], bytes]:
        cpu_s = min(cpu_s, self.limits.cpu_s)
        request |= {"cpu_s": cpu_s, "memory_bytes": self.limits.memory_bytes}
        for _ in range(2):  # a process that is killed from outside says nothing about its image
            with self._child(graph) as child:
                try:
                    answer, following = child.ask(request, data, limit_s=self.limits.wall_s, pixels=self._pixels)
                except _Died:
                    verdict = self._verdict(child, cpu_s)
                    if verdict is None:
                        self._recover()
                        continue
                    raise verdict from None
                self._strays = 0
                self._check(child, answer)
                return answer, following
        raise _killed_twice()

    def _opened(self, graph: ModelGraph) -> dict[str, Any]:
        for _ in range(2):  # as for an image
            with self._child(graph, load=False) as child:
                try:
                    return self._load(child, graph)
                except _Died:
                    reason = f"over {_READY_S} s" if child.overdue else child.bury()
                    if reason != signal.SIGKILL.name:
                        what = f"LiteRT fails to load the graph: {reason}"
                        raise Reject(ErrorCode.BAD_MODEL, what) from None
                    self._recover()
        raise _killed_twice()

    def _recover(self) -> None:
        """Ends all children that wait: what has killed one may have killed them, and be about to take effect."""
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            child.bury()
        self._count_stray(signal.SIGKILL.name)

    def _verdict(self, child: _Child, cpu_s: float) -> Reject | None:
        """Returns what an image did to its process, or None where something else has killed the process."""
        reason = child.bury()
        if child.overdue:
            return Reject(ErrorCode.TOO_SLOW, f"not decoded within {self.limits.wall_s:g} s")
        if reason == signal.SIGPROF.name:
            shorter = ", after slow images in the same request" if cpu_s < self.limits.cpu_s else ""
            return Reject(ErrorCode.TOO_SLOW, f"not decoded within {cpu_s:g} s of processor time{shorter}")
        if reason == signal.SIGKILL.name:
            return None
        return Reject(ErrorCode.DECODER_CRASHED, f"its decoder died of {reason}")

    def _check(self, child: _Child, answer: dict[str, Any]) -> None:
        """Raises Reject if the child answers so. A child that may be out of order is not used again."""
        code, score = answer.get("code"), answer.get("score", 0.0)
        if isinstance(code, str) and code in _IMAGE_CODES:
            raise Reject(ErrorCode(code), str(answer.get("message"))[:_MAX_MESSAGE])
        if code is None and isinstance(score, float) and 0.0 <= score <= 1.0:  # false for NaN, too
            return
        child.usable = False  # who knows what could not be allocated, or what an image has done to it
        if code is None:
            raise Reject(ErrorCode.BAD_MODEL, f"the model gives an image the score {score!r}, not one within [0, 1]")
        if code == ErrorCode.TOO_MUCH_MEMORY:
            limit = f"{self.limits.memory_bytes // MIB} MiB"
            raise Reject(ErrorCode.TOO_MUCH_MEMORY, f"decoding takes over {limit}, or far more than its size suggests")
        raise _nonsense()

    def _load(self, child: _Child, graph: ModelGraph) -> dict[str, Any]:
        request = {"do": "load", "sha256": graph.sha256, "image_size": graph.image_size}
        answer, _ = child.ask(request, graph.content, limit_s=_READY_S, pixels=self._pixels)
        if answer.get("code") == ErrorCode.TOO_MUCH_MEMORY:
            child.usable = False
            raise Retry(ErrorCode.UNAVAILABLE, "there is not enough memory to load the model")
        if "code" in answer:
            raise Reject(ErrorCode.BAD_MODEL, str(answer.get("message"))[:_MAX_MESSAGE])
        child.models.add(graph.sha256)
        return answer

    @contextmanager
    def _child(self, graph: ModelGraph | None, *, load: bool = True) -> Iterator[_Child]:
        """Lends a child that has loaded ``graph``, or may. Waits while all children are busy."""
        with self._free:
            child = self._take(graph, load=load)
            try:
                yield child
            finally:
                self._give_back(child)

    def _take(self, graph: ModelGraph | None, *, load: bool) -> _Child:
        while True:
            child = self._idle_or_new(graph)
            try:
                if not child.usable:
                    child.wait_until_ready()
                if load and graph is not None and graph.sha256 not in child.models:
                    self._load(child, graph)
            except _Died:
                self._give_back(child)
                self._count_stray(child.bury())
            except BaseException:
                self._give_back(child)
                raise
            else:
                return child

    def _idle_or_new(self, graph: ModelGraph | None) -> _Child:
        while True:
            with self._lock:
                # The one that was used last, whose memory is still in the processor's cache.
                child = self._idle.pop() if self._idle else None
                template = self._template
            if child is not None and not (child.is_alive() and child.can_hold(graph)):
                child.bury()
                continue
            try:
                child = child or _Child(template)
            except Broken as error:
                self._replace(template, str(error))
                continue
            with self._lock:
                self._busy.add(child)
            return child

    def _give_back(self, child: _Child) -> None:
        with self._lock:
            self._busy.discard(child)
            if child.usable:
                self._idle.append(child)
        if not child.usable:
            child.bury()

    def _count_stray(self, reason: str) -> None:
        with self._lock:
            self._strays += 1
        log.warning("a scoring process died without an image to blame: %s", reason)
        if self._strays > _MAX_STRAYS + self.processes:  # all of them die with their template
            raise Broken(f"{self._strays} scoring processes in a row died without an image to blame: {reason}")

    def _replace(self, template: Template, reason: str) -> None:
        """Starts another template, unless another thread has done so."""
        with self._lock:
            if self._template is not template:
                return
            if self._closed.is_set():
                raise Broken("the scoring processes are closed")
            self._template = Template()
        template.close()
        self._count_stray(reason)

    def _watch(self) -> None:
        then_s = time.monotonic()
        while not self._closed.wait(_TICK_S):
            now_s = time.monotonic()
            with self._lock:
                busy = list(self._busy)
            for child in busy:
                if now_s - then_s > _FROZEN_S:  # this process was stopped, as in a paused container
                    child.extend(now_s - then_s)
                with suppress(Exception):  # without this thread there are no deadlines
                    child.kill_if_overdue(now_s)
            then_s = now_s
