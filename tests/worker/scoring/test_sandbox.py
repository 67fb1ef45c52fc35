"""The sandbox: what an image does to its process, and that nothing else notices."""

import contextlib
import dataclasses
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
from PIL import Image, TiffImagePlugin

from tests.conftest import REPOSITORY
from tests.worker.scoring import cursed
from worker.contract import ModelManifest
from worker.errors import Broken, ErrorCode, Reject, Retry
from worker.scoring import template
from worker.scoring.decoder import decode
from worker.scoring.limits import MIB, Budget, ImageLimits
from worker.scoring.litert import Scorer
from worker.scoring.models import MODEL_FILE
from worker.scoring.sandbox import ModelGraph, Sandbox


@pytest.fixture
def cursed_sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """Its children obey; their processor time and memory are short."""
    monkeypatch.setattr(template, "_PROGRAM", cursed.PROGRAM)
    with Sandbox(processes=2, limits=ImageLimits(cpu_s=0.5, wall_s=60, memory_bytes=128 * MIB)) as sandbox:
        yield sandbox


@pytest.fixture
def impatient_sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """Its children obey; their time on the clock is short."""
    monkeypatch.setattr(template, "_PROGRAM", cursed.PROGRAM)
    with Sandbox(processes=2, limits=ImageLimits(wall_s=2)) as sandbox:
        yield sandbox


@pytest.fixture
def graph(bundle: Path) -> ModelGraph:
    manifest = ModelManifest.model_validate_json((bundle / "model.json").read_bytes())
    return ModelGraph(manifest.files[MODEL_FILE].sha256, (bundle / MODEL_FILE).read_bytes(), manifest.image_size)


@pytest.fixture
def image(digit_images: Path) -> bytes:
    return next(digit_images.rglob("*.png")).read_bytes()


def _children(sandbox: Sandbox) -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process(_template(sandbox)).children()
    return found


def _template(sandbox: Sandbox) -> int:
    return sandbox._template._process.pid


@pytest.mark.parametrize(
    ("curse", "code", "words"),
    [
        (cursed.CRASH, ErrorCode.DECODER_CRASHED, "SIGSEGV"),
        (cursed.ABORT, ErrorCode.DECODER_CRASHED, "SIGABRT"),
        (cursed.LEAVE, ErrorCode.DECODER_CRASHED, "exit status 7"),
        (cursed.LIE, ErrorCode.DECODER_CRASHED, "nonsense"),
        (cursed.SLANDER, ErrorCode.DECODER_CRASHED, "nonsense"),
        (cursed.BOAST, ErrorCode.BAD_MODEL, "the score 1.01, not one within"),
        (cursed.HANG, ErrorCode.TOO_SLOW, "0.5 s of processor time"),
        (cursed.BLOAT, ErrorCode.TOO_MUCH_MEMORY, "128 MiB"),
    ],
    ids=["crash", "abort", "leave", "lie", "slander", "boast", "hang", "bloat"],
)
def test_an_image_that_harms_its_process_is_rejected_with_the_reason(
    cursed_sandbox: Sandbox, graph: ModelGraph, image: bytes, curse: bytes, code: ErrorCode, words: str
) -> None:
    """And the next image is scored."""
    with pytest.raises(Reject) as caught:
        cursed_sandbox.score(curse, graph)
    assert caught.value.code is code
    assert words in caught.value.message
    assert 0 <= cursed_sandbox.score(image, graph).score <= 1


def test_a_harmful_image_costs_its_own_thumbnail_only(cursed_sandbox: Sandbox, image: bytes) -> None:
    """Within the limits of scoring. No thumbnail is larger than was asked for."""
    crashed = ErrorCode.DECODER_CRASHED
    codes = {cursed.CRASH: crashed, cursed.HANG: ErrorCode.TOO_SLOW, cursed.LIE: crashed, cursed.STRETCH: crashed}
    for curse, code in codes.items():
        with pytest.raises(Reject) as caught:
            cursed_sandbox.thumbnail(curse, max_px=64)
        assert caught.value.code is code
        pixels, height = cursed_sandbox.thumbnail(image, max_px=64)
        assert len(pixels) == 3 * height * height  # the digits are square


def test_the_neighbours_of_harmful_images_are_scored(cursed_sandbox: Sandbox, graph: ModelGraph, image: bytes) -> None:
    """While some processes are killed, the others work on."""
    expected = cursed_sandbox.score(image, graph).score

    def score(data: bytes) -> float | ErrorCode:
        try:
            return cursed_sandbox.score(data, graph).score
        except Reject as error:
            return error.code

    asked = [image, cursed.CRASH, image, cursed.HANG, image, cursed.BLOAT, image]
    with ThreadPoolExecutor(4) as pool:
        crash, hang, bloat = ErrorCode.DECODER_CRASHED, ErrorCode.TOO_SLOW, ErrorCode.TOO_MUCH_MEMORY
        assert list(pool.map(score, asked)) == [expected, crash, expected, hang, expected, bloat, expected]


def test_the_score_is_that_of_the_decoder_and_the_graph(sandbox: Sandbox, graph: ModelGraph, image: bytes) -> None:
    """To the bit: training and serving differ only in the process."""
    pixels = decode(image, size_px=graph.image_size)
    assert sandbox.decode(image, size_px=graph.image_size) == pixels.tobytes()
    assert sandbox.score(memoryview(image), graph).score == Scorer(graph.content).score(pixels)


def test_a_process_that_is_killed_from_outside_costs_no_image(
    cursed_sandbox: Sandbox, graph: ModelGraph, image: bytes
) -> None:
    """Its image says nothing wrong: another process scores it."""
    with ThreadPoolExecutor(2) as pool:
        (expected,) = {scored.score for scored in pool.map(lambda _: cursed_sandbox.score(image, graph), range(20))}
    for process in _children(cursed_sandbox):
        process.kill()
    assert cursed_sandbox.score(image, graph).score == expected
    os.kill(_template(cursed_sandbox), signal.SIGKILL)
    assert cursed_sandbox.score(image, graph).score == expected


def test_after_a_kill_from_outside_no_process_that_was_idle_is_used(impatient_sandbox: Sandbox, image: bytes) -> None:
    """What has killed one may have signalled them all, and be about to take effect."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: impatient_sandbox.decode(image, size_px=32), range(20)))
        for process in _children(impatient_sandbox):
            process.suspend()
        decoded = pool.submit(impatient_sandbox.decode, image, size_px=32)
        while not (busy := list(impatient_sandbox._busy)):
            time.sleep(0.01)
        os.kill(busy[0]._pid, signal.SIGKILL)
        assert decoded.result()


def test_a_process_that_is_always_killed_from_outside_says_nothing_about_the_image(
    cursed_sandbox: Sandbox, graph: ModelGraph, image: bytes
) -> None:
    """As on a machine without memory: the request is tried again, and in the end the worker gives up."""
    ends = threading.Event()

    def kill() -> None:
        while not ends.wait(0.01):
            for process in _children(cursed_sandbox):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises((Retry, Broken)):
            cursed_sandbox.score(cursed.SLEEP, graph)  # ends only when it is killed
    finally:
        ends.set()
        killer.join()
    assert 0 <= cursed_sandbox.score(image, graph).score <= 1


def test_a_kill_that_comes_too_late_harms_nobody(sandbox: Sandbox, image: bytes) -> None:
    """The deadline and the end of a child can coincide, and its number may belong to somebody else by then."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        sandbox._template.kill(stranger.pid)
        assert sandbox._template.bury(stranger.pid) == 0
        assert stranger.poll() is None
        stranger.kill()
    assert sandbox.decode(image, size_px=32)


def test_an_image_is_rejected_at_its_deadline(impatient_sandbox: Sandbox, image: bytes) -> None:
    """A process that waits takes no processor time. Nor does a frozen one, which does not even read a large image."""
    for data in (cursed.SLEEP, image + bytes(10 * MIB)):
        with pytest.raises(Reject) as caught:
            impatient_sandbox.decode(data, size_px=32)
        assert caught.value.code is ErrorCode.TOO_SLOW
        assert caught.value.message == "not decoded within 2 s"
        assert impatient_sandbox.decode(image, size_px=32)
        for process in _children(impatient_sandbox):
            process.suspend()


def test_processes_that_die_without_an_image_end_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a reason, instead of forking forever."""
    monkeypatch.setattr(template, "_PROGRAM", "raise SystemExit(3)")
    with Sandbox(processes=1) as sandbox, pytest.raises(Broken, match="5 scoring processes in a row died"):
        sandbox.decode(b"", size_px=32)


def test_the_death_of_the_template_costs_no_busy_child_its_image(monkeypatch: pytest.MonkeyPatch, image: bytes) -> None:
    """All of its children die with it, however many there are. Their images are decoded by those of another one."""
    monkeypatch.setattr(template, "_PROGRAM", cursed.PROGRAM)
    with Sandbox(processes=8) as sandbox, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: sandbox.decode(image, size_px=32), range(80)))
        for process in _children(sandbox):
            process.suspend()
        decoded = [pool.submit(sandbox.decode, image, size_px=32) for _ in range(8)]
        deadline_s = time.monotonic() + 10
        while len(sandbox._busy) < 8 and time.monotonic() < deadline_s:
            time.sleep(0.01)
        os.kill(_template(sandbox), signal.SIGKILL)
        assert len({one.result() for one in decoded}) == 1


def test_a_kill_while_a_model_is_loaded_says_nothing_about_the_model(
    sandbox: Sandbox, graph: ModelGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without memory kills these processes first. Where it happens again, the request is tried later."""
    load = sandbox._load
    kills = iter([True, False, True, True])

    def killed(child: Any, graph: ModelGraph) -> Any:
        if next(kills):
            os.kill(child._pid, signal.SIGKILL)
        return load(child, graph)

    monkeypatch.setattr(sandbox, "_load", killed)
    assert len(sandbox.open(graph).probe_scores) > 1
    with pytest.raises(Retry, match="killed twice"):
        sandbox.open(graph)


def test_a_closed_sandbox_starts_no_more_processes(image: bytes) -> None:
    """A thread that is still at work is refused."""
    before = set(psutil.Process().children())
    sandbox = Sandbox(processes=1)
    sandbox.decode(image, size_px=32)
    sandbox.close()
    with pytest.raises(Broken, match="closed"):
        sandbox.decode(image, size_px=32)
    assert set(psutil.Process().children()) <= before


@pytest.mark.skipif(sys.platform != "linux", reason="/proc shows what a process has")
def test_a_child_has_no_credentials_no_descriptors_and_leaves_no_core(
    monkeypatch: pytest.MonkeyPatch, image: bytes
) -> None:
    """What it can reach if a hostile image takes it over: its own pipe, and what it prints."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    with Path("/dev/null").open("rb") as open_here, Sandbox(processes=1) as sandbox:
        os.set_inheritable(open_here.fileno(), True)
        sandbox.decode(image, size_px=32)
        (child,) = _children(sandbox)
        assert b"hush-hush" not in Path(f"/proc/{child.pid}/environ").read_bytes()
        opened = sorted(str(path.readlink()).partition(":")[0] for path in Path(f"/proc/{child.pid}/fd").iterdir())
        assert opened == ["/dev/null", "/dev/null", "/memfd", f"/proc/{child.pid}/statm", "socket"]
        assert child.rlimit(psutil.RLIMIT_CORE) == (0, 0)


def test_no_child_outlives_a_worker_that_is_killed() -> None:
    """Not even one that is busy."""
    program = (
        "import threading, time; from worker.scoring import template; from tests.worker.scoring import cursed;"
        "template._PROGRAM = cursed.PROGRAM; from worker.scoring.sandbox import Sandbox;"
        "s = Sandbox(processes=2);"
        "threading.Thread(target=s.decode, args=(cursed.SLEEP,), kwargs={'size_px': 32}, daemon=True).start();"
        "time.sleep(0.1); s._free.acquire(); print('busy', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        family = psutil.Process(worker.pid).children(recursive=True)
        assert family
        worker.kill()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert alive == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals a process when its parent dies")
def test_no_busy_child_outlives_its_template(cursed_sandbox: Sandbox) -> None:
    """A template that is killed can end nobody, and a busy child does not read that its pipe has ended."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(cursed_sandbox.decode, cursed.SLEEP, size_px=32)
        deadline_s = time.monotonic() + 30
        while not (family := _children(cursed_sandbox)) and time.monotonic() < deadline_s:
            time.sleep(0.01)
        time.sleep(0.1)
        os.kill(_template(cursed_sandbox), signal.SIGKILL)
        _, alive = psutil.wait_procs(family, timeout=10)
        for process in alive:
            process.kill()
        cursed_sandbox.close()  # which ends the second attempt
    assert family
    assert alive == []


def test_what_libraries_print_stays_in_the_child(
    sandbox: Sandbox, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Libtiff writes to standard error for every odd tag; here it is counted in the log."""
    caplog.set_level("DEBUG", "worker")
    file = io.BytesIO()
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    directory[65_000] = "odd"
    Image.new("RGB", (64, 64)).save(file, "TIFF", compression="tiff_lzw", tiffinfo=directory)
    damaged = bytearray(file.getvalue())
    damaged[8:40] = b"\xff" * 32
    with pytest.raises(Reject):
        sandbox.decode(bytes(damaged), size_px=32)
    assert capfd.readouterr().err == ""
    assert "a library printed" in caplog.text


def test_a_budget_is_shared_in_order_and_never_exceeded() -> None:
    """What is larger than all of it is granted when nothing else is taken."""
    budget, order = Budget(10), []
    assert budget.try_take(6)
    assert not budget.try_take(5)

    def take(name: str, size: int) -> None:
        with budget.taken(size):
            order.append(name)

    large = threading.Thread(target=take, args=("large", 1000))
    large.start()
    time.sleep(0.1)
    small = threading.Thread(target=take, args=("small", 1))
    small.start()
    small.join(0.2)
    assert order == []
    budget.give_back(6)
    for thread in (large, small):
        thread.join(30)
    assert order == ["large", "small"]


def test_no_child_holds_more_models_than_it_may(sandbox: Sandbox, graph: ModelGraph, image: bytes) -> None:
    """A worker that is asked for one model after another does not grow."""
    for number in range(5):
        named = dataclasses.replace(graph, sha256=f"{number:064}")
        sandbox.open(named)
        sandbox.score(image, named)
        assert all(len(child.models) <= 2 for child in sandbox._idle)
