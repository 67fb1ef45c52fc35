"""Submitting long lists: time and peak memory for 10,000 rows, 100,000 rows and a million.

Each list is submitted by its own process, ``twofold batch submit``, to the embedded cloud. The lists are CSV files with
two columns that repeat the same images.
"""

import csv
import io
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from jobs.local.emulator import EmbeddedCloud, create_queues
from jobs.progress import Reporter
from jobs.user_error import UserError
from tests.bench.figures import machine

BUCKET: Final = "twofold-bench"
_IMAGES: Final = 1000


@dataclass(frozen=True)
class SubmitRun:
    """One run of the command."""

    rows: int
    parts: int
    seconds: float  #: of the entire process
    peak_mb: float  #: resident, of the process
    messages: int  #: on the queue afterwards


def run(sizes: list[int], reporter: Reporter) -> list[SubmitRun]:
    """Submits a list of each size. Raises UserError if one is not submitted completely."""
    found = []
    with TemporaryDirectory(prefix="twofold-bench-") as folder, EmbeddedCloud() as cloud:
        cloud.s3().create_bucket(Bucket=BUCKET)
        for rows in sizes:
            path = Path(folder) / f"list-{rows}.csv"
            _write_list(path, rows)
            queue = create_queues(cloud.sqs(), f"requests-{rows}")
            settings = {"TWOFOLD_QUEUE_URL": queue.requests_url, "TWOFOLD_OUTPUT_URI": f"s3://{BUCKET}/out/"}
            with reporter.step(f"twofold batch submit, {rows:,} rows"):
                found.append(_submit(cloud, path, rows, settings))
    return found


def show(submissions: list[SubmitRun], json_file: Path | None) -> None:
    """Prints the table, and writes the file if one is given."""
    where = machine()
    if json_file is not None:
        figures: dict[str, Any] = {"machine": where, "submissions": [asdict(one) for one in submissions]}
        json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    table = Table(
        "rows", "parts", "seconds", "rows a second", "peak memory, MB", "messages", title="twofold batch submit"
    )
    for one in submissions:
        rate = one.rows / one.seconds
        table.add_row(
            f"{one.rows:,}",
            f"{one.parts:,}",
            f"{one.seconds:.1f}",
            f"{rate:,.0f}",
            f"{one.peak_mb:.0f}",
            f"{one.messages:,}",
        )
    out = Console(highlight=False)
    out.print(table)
    out.print(f"{where['cores']} cores, {where['cpu']}, Python {where['python']}, {where['date']}", soft_wrap=True)


def _write_list(path: Path, rows: int) -> None:
    images = [f"s3://{BUCKET}/photographs/intake/2026/{number:06}.jpg" for number in range(_IMAGES)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["source_ref", "name"])
        writer.writerows((uri, f"animal {number}") for number, uri in enumerate(islice(cycle(images), rows)))


def _submit(cloud: EmbeddedCloud, path: Path, rows: int, settings: dict[str, str]) -> SubmitRun:
    command = [sys.executable, "-c", _MEASURED, "batch", "submit", str(path), "--json"]
    started = time.monotonic()
    done = subprocess.run(
        command, env=os.environ | cloud.environment | settings, capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - started
    if done.returncode:
        raise UserError(f"twofold batch submit ended with exit status {done.returncode}: {done.stderr[-1000:]}")
    printed, peak = (json.loads(line) for line in io.StringIO(done.stdout))
    answer = cloud.sqs().get_queue_attributes(QueueUrl=settings["TWOFOLD_QUEUE_URL"], AttributeNames=["All"])
    messages = int(answer["Attributes"]["ApproximateNumberOfMessages"])
    if (printed["images"], messages) != (rows, printed["parts"]):
        raise UserError(f"{rows:,} rows became {printed['images']:,} images and {messages:,} messages.")
    return SubmitRun(rows, printed["parts"], seconds, peak["peak_kib"] * 1024 / 1e6, messages)


#: Runs the command, and prints the peak resident memory of its process. getrusage would include that of the parent.
_MEASURED: Final = """
import json, re, sys
from jobs.cli import main
try:
    status = main()
except SystemExit as ended:
    status = ended.code
kib = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
print(json.dumps({"peak_kib": kib}))
sys.exit(status)
"""
