"""A child process: it decodes and scores one image at a time, within its limits, and answers through a pipe.

    {"do": "load", "sha256": …, "image_size": 160} and a graph  ->  {"probe": [0.98, …], "fingerprint": …}
    {"do": "score", "sha256": …, limits} and an image           ->  {"score": 0.98, "decode_ms": …, "score_ms": …}
    {"do": "decode", "size_px": 160, limits} and an image       ->  {"bytes": 76800} and the pixels
    {"do": "thumbnail", "max_px": 160, limits} and an image     ->  {"bytes": 57600, "height": 120} and the pixels
    any of them                                                 ->  {"code": "damaged", "message": …}

Before it decodes a large image it sends ``{"needs": bytes}`` and waits for an empty message, since the large images of
all processes share a budget of memory. It trusts everything it is sent except images. The worker trusts no answer.
"""

import contextlib
import ctypes
import functools
import gc
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

from worker.errors import ErrorCode, Reject
from worker.scoring.decoder import Pixels, decode, fingerprint, thumbnail
from worker.scoring.limits import MIB
from worker.scoring.litert import Scorer
from worker.scoring.probes import probes

_STDERR: Final = 2
_LIBC: Final = ctypes.CDLL(None)
#: "Signal me when my parent dies", see prctl(2).
_PR_SET_PDEATHSIG: Final = 1
#: Images that need less memory than this are decoded without asking.
_SMALL_BYTES: Final = 16 * MIB
#: Memory for opening an image, next to what its pixels need. Pillow unpacks up to 64 MiB of text and profiles.
_OPEN_BYTES: Final = 64 * MIB
#: What libraries may print while they decode one image. libtiff prints a line for every odd tag.
_MAX_PRINTED: Final = MIB
_FIRST_LINE: Final = 200


def load() -> None:
    """Loads everything that children will need, so that they share its memory."""
    fingerprint()
    gc.collect()
    gc.freeze()  # the collector would write to the objects, and so copy the pages they are on


def run(descriptor: int) -> NoReturn:
    """Answers until the worker closes the pipe, and ends the process."""
    _confine()
    with Connection(descriptor) as pipe:
        _Child(pipe).serve()
    os._exit(0)


def _confine() -> None:
    """Makes sure that the process leaves no core dump, does not outlive the template, and is the first to be killed."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MAX_PRINTED, _MAX_PRINTED))
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        with contextlib.suppress(OSError):  # when the machine is out of memory: this process, not the worker
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


class _Child:
    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._scorers: dict[str, tuple[Scorer, int]] = {}
        with _in_memory() as printed:
            os.dup2(printed.fileno(), _STDERR)

    def serve(self) -> None:
        self._answer({})  # ready
        while True:
            try:
                header, joined, data = self._pipe.recv_bytes().partition(b"\n")
                request = json.loads(header)
                data = data if joined else self._pipe.recv_bytes()
            except (EOFError, OSError):
                return
            try:
                pixels = None
                match request["do"]:
                    case "load":
                        answer = self._load(request, data)
                    case "score":
                        answer = self._score(request, data)
                    case "thumbnail":
                        pixels = self._decode(request, data, functools.partial(thumbnail, max_px=request["max_px"]))
                        answer = {"bytes": pixels.nbytes, "height": len(pixels)}
                    case _:
                        pixels = self._decode(request, data, functools.partial(decode, size_px=request["size_px"]))
                        answer = {"bytes": pixels.nbytes}
            except Reject as error:
                answer = {"code": error.code.value, "message": error.message}
            except MemoryError:
                answer = {"code": ErrorCode.TOO_MUCH_MEMORY.value, "message": ""}
            self._answer(answer)
            if pixels is not None:
                self._pipe.send_bytes(pixels.tobytes())
            del data

    def _answer(self, answer: dict[str, Any]) -> None:
        self._pipe.send_bytes(json.dumps(answer | self._take_printed()).encode())

    def _load(self, request: dict[str, Any], graph: bytes) -> dict[str, Any]:
        image_size = request["image_size"]
        scorer = Scorer(graph)
        scorer.check(image_size=image_size)
        self._scorers[request["sha256"]] = scorer, image_size
        scores = [scorer.score(pixels) for pixels in probes(image_size)]
        _trim()
        return {"probe": scores, "fingerprint": fingerprint()}

    def _score(self, request: dict[str, Any], data: bytes) -> dict[str, Any]:
        scorer, image_size = self._scorers[request["sha256"]]
        started_s = time.perf_counter()
        pixels = self._decode(request, data, functools.partial(decode, size_px=image_size))
        decoded_s = time.perf_counter()
        try:
            score = scorer.score(pixels)
        except (RuntimeError, ValueError) as error:
            raise Reject(ErrorCode.BAD_MODEL, f"LiteRT cannot run the graph: {error}") from error
        scored_s = time.perf_counter()
        return {"score": score, "decode_ms": (decoded_s - started_s) * 1000, "score_ms": (scored_s - decoded_s) * 1000}

    def _decode(self, request: dict[str, Any], data: bytes, decoder: Callable[..., Pixels]) -> Pixels:
        large = len(data) > _SMALL_BYTES

        def admit(needed_bytes: int) -> None:
            nonlocal large
            if needed_bytes > request["memory_bytes"]:
                raise MemoryError
            if needed_bytes > _SMALL_BYTES:
                self._answer({"needs": needed_bytes})
                self._pipe.recv_bytes()
                large = True
            allowed_bytes = _OPEN_BYTES + needed_bytes + needed_bytes // 4
            _limit_memory(min(allowed_bytes, request["memory_bytes"]))

        signal.setitimer(signal.ITIMER_PROF, request["cpu_s"])  # SIGPROF ends the process, whatever it is doing
        _limit_memory(min(_OPEN_BYTES + len(data), request["memory_bytes"]))
        try:
            return decoder(data, admit=admit)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            _limit_memory(None)
            if large:
                _trim()

    def _take_printed(self) -> dict[str, Any]:
        """Returns what libraries have printed since the last answer, as the number of lines and the first one."""
        size = os.lseek(_STDERR, 0, os.SEEK_END)
        if not size:
            return {}
        os.lseek(_STDERR, 0, os.SEEK_SET)
        lines = os.read(_STDERR, size).splitlines() or [b""]
        os.ftruncate(_STDERR, 0)
        os.lseek(_STDERR, 0, os.SEEK_SET)
        return {"lines": len(lines), "first": lines[0][:_FIRST_LINE].decode(errors="replace")}


@functools.cache
def _own_statm() -> int:
    """Opens the sizes of this process, see proc(5). They are read twice for each image."""
    return os.open("/proc/self/statm", os.O_RDONLY)


def _in_memory() -> BinaryIO:
    """Opens a file that is in no folder: a container may not be able to write to any."""
    return os.fdopen(os.memfd_create("printed"), "wb") if sys.platform == "linux" else tempfile.TemporaryFile()


def _trim() -> None:
    """Returns free memory to the system: glibc keeps some of what is freed."""
    if sys.platform == "linux":
        _LIBC.malloc_trim(0)


def _limit_memory(more_bytes: int | None) -> None:
    """Makes allocations of over ``more_bytes`` from now on fail. Only Linux enforces RLIMIT_DATA."""
    _, highest = resource.getrlimit(resource.RLIMIT_DATA)
    limit = highest
    if more_bytes is not None and sys.platform == "linux":
        pages = int(os.pread(_own_statm(), 100, 0).split()[5])
        limit = pages * resource.getpagesize() + more_bytes
        limit = limit if highest == resource.RLIM_INFINITY else min(limit, highest)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, highest))
