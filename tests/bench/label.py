"""The page of ``twofold label`` with as many images as it may hold: how large it is, how fast it opens, its memory.

The page is opened as a file in headless Chromium, each time in a window of its own. The memory is that of the process
that shows the page, in pages that no other process shares.
"""

import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil  # type: ignore[import-untyped]
from rich.console import Console
from rich.table import Table

from jobs.labelling.images import ImageSource, choose
from jobs.labelling.page import PageImage, render_labelling_page
from jobs.labelling.thumbnails import make_thumbnails
from jobs.progress import Reporter
from jobs.user_error import UserError
from tests.bench.figures import machine
from tests.browser import Browser

_FIRST_IMAGE = "document.querySelector('#image').naturalWidth > 0"
_FIRST_TILES = "[...document.querySelectorAll('#tiles img')].slice(0, 20).every((image) => image.naturalWidth > 0)"
_DRAWN = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


@dataclass(frozen=True)
class PageFigures:
    """Medians of all runs, but for the first two."""

    file_mb: float
    thumbnails_s: float  #: making all of them
    open_s: float  #: until the first image is shown
    grid_s: float  #: until the first images of the grid are shown
    label_s: float  #: one label, with the next image
    memory_mb: float  #: with one image
    memory_grid_mb: float


def run(data: Path, *, images: int, runs: int, reporter: Reporter) -> PageFigures:
    """Makes a page and opens it several times, repeating the images if there are fewer."""
    source = ImageSource(data)
    found = list(islice(cycle(choose(source.find(str(data)), images, str(data))), images))
    started = time.perf_counter()
    with reporter.step("Making thumbnails", total=images) as advance:
        made = make_thumbnails(found, source.read, advance=advance)
    seconds = time.perf_counter() - started
    shown = [
        PageImage(f"{number}/{image.place}", image.name, thumbnail)
        for number, (image, thumbnail) in enumerate(zip(found, made, strict=True))
        if isinstance(thumbnail, bytes)
    ]
    if len(shown) < images:
        raise UserError(f"{images - len(shown)} images of {data} cannot be decoded.")
    page = render_labelling_page(shown, title="bench", classes=("cat", "dog"), key="bench", file_name="labels.csv")
    with TemporaryDirectory(prefix="twofold-bench-") as folder, Browser.start(Path(folder) / "browser") as browser:
        path = Path(folder) / "labels.html"
        path.write_bytes(page)
        with reporter.step(f"Opening the page {runs} times"):
            opened = [_open(browser, path) for _ in range(runs)]
    medians = [statistics.median(values) for values in zip(*opened, strict=True)]
    return PageFigures(len(page) / 1e6, seconds, *medians)


def _open(browser: Browser, path: Path) -> tuple[float, float, float, float, float]:
    with _clock() as opening:
        page = browser.open(path.as_uri())
        page.wait_for(_FIRST_IMAGE)
    memory = _memory_mb(browser)
    with _clock() as labelling:
        page.press("ArrowLeft")
        page.run(_DRAWN)
    with _clock() as turning:
        page.press("g")
        page.wait_for(_FIRST_TILES)
    in_grid = _memory_mb(browser)
    page.close()
    return opening[0], turning[0], labelling[0], memory, in_grid


@contextmanager
def _clock() -> Iterator[list[float]]:
    """Yields a list that holds the seconds when the block is done."""
    seconds: list[float] = []
    started = time.perf_counter()
    yield seconds
    seconds.append(time.perf_counter() - started)


def _memory_mb(browser: Browser) -> float:
    processes = psutil.Process(browser.process.pid).children(recursive=True)
    alive = [process for process in processes if process.status() != psutil.STATUS_ZOMBIE]
    pages = [process for process in alive if "--type=renderer" in process.cmdline()]
    return float(max(process.memory_full_info().uss for process in pages)) / 1e6


def show(figures: PageFigures, json_file: Path | None) -> None:
    """Prints the figures, and writes the file if one is given."""
    where = machine()
    if json_file is not None:
        json_file.write_text(json.dumps({"machine": where, **asdict(figures)}, indent=2) + "\n", encoding="utf-8")
    table = Table("figure", "", title="the page of twofold label")
    for name, value in asdict(figures).items():
        table.add_row(name, f"{value:.2f}")
    out = Console(highlight=False)
    out.print(table)
    out.print(f"{where['cores']} cores, {where['cpu']}, Python {where['python']}, {where['date']}", soft_wrap=True)
