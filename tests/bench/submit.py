"""Planning and submitting long lists: time and peak memory, 10,000 rows beside 100,000, and a million planned.

Each is a process of its own, ``twofold batch submit``, against the embedded cloud. The list names the same pictures
over and over, as rows of a CSV with two columns.
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
_PICTURES: Final = 1000


@dataclass(frozen=True)
class Submission:
    """One run of the command."""

    rows: int
    parts: int
    seconds: float  #: of the whole process
    peak_mb: float  #: resident, of the process
    messages: int  #: on the queue afterwards


def run(sizes: list[int], reporter: Reporter) -> list[Submission]:
    """Submits a list of each size. Raises UserError when one is not taken whole."""
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


def show(submissions: list[Submission], json_file: Path | None) -> None:
    """Prints the table, and writes the file if one is asked for."""
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
    pictures = [f"s3://{BUCKET}/photographs/intake/2026/{number:06}.jpg" for number in range(_PICTURES)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["source_ref", "name"])
        writer.writerows((uri, f"animal {number}") for number, uri in enumerate(islice(cycle(pictures), rows)))


def _submit(cloud: EmbeddedCloud, path: Path, rows: int, settings: dict[str, str]) -> Submission:
    command = [sys.executable, "-c", _MEASURED, "batch", "submit", str(path), "--json"]
    started = time.monotonic()
    done = subprocess.run(
        command, env=os.environ | cloud.environment | settings, capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - started
    if done.returncode:
        raise UserError(f"twofold batch submit ended with exit status {done.returncode}: {done.stderr[-1000:]}")
    said, peak = (json.loads(line) for line in io.StringIO(done.stdout))
    answer = cloud.sqs().get_queue_attributes(QueueUrl=settings["TWOFOLD_QUEUE_URL"], AttributeNames=["All"])
    messages = int(answer["Attributes"]["ApproximateNumberOfMessages"])
    if (said["images"], messages) != (rows, said["parts"]):
        raise UserError(f"{rows:,} rows became {said['images']:,} images and {messages:,} messages.")
    return Submission(rows, said["parts"], seconds, peak["peak_kib"] * 1024 / 1e6, messages)


#: The command, and then the most memory that its process was resident with; getrusage would tell its parent's.
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
