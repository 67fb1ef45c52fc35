"""The command line of the chaos harness. Exit status 0: nothing was lost, doubled or wrong, 1: something was."""

import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer
from moto.server import ThreadedMotoServer

from jobs.local.emulator import EmbeddedCloud
from jobs.local.sample import render_digits, train_sample
from jobs.progress import Reporter
from tests.chaos.forms import SCENARIOS, SEED, Form
from tests.chaos.ground import Sample
from tests.chaos.tally import Tally
from tests.chaos.workers import Template
from tests.conftest import open_bench

_COLUMNS: Final = ("asked", "lost", "doubled", "wrong", "recovered", "unclosed", "letters", "internal", "harm")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _known(names: list[str]) -> list[str]:
    if unknown := set(names) - SCENARIOS.keys():
        raise typer.BadParameter(f"no scenario is called {', '.join(unknown)}. There are {', '.join(SCENARIOS)}.")
    return names or list(SCENARIOS)


@app.command(epilog="Example: python -m tests.chaos kills faults --seed 7")
def chaos(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[SCENARIO]...", help=f"Any of {', '.join(SCENARIOS)}. Default: all.")
    ] = None,
    seed: Annotated[int, typer.Option(help="What is random depends on it.")] = SEED,
    form: Annotated[Form, typer.Option(help="How large the scenarios are.")] = Form.LONG,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,  # noqa: FBT002 - a flag
) -> None:
    """Do to workers what breaks them, and count what became of every image."""
    tallies: dict[str, Tally] = {}
    chosen = [(name, emulator) for name in _known(names or []) for emulator in SCENARIOS[name].on]
    if not as_json:
        print(f"seed {seed}")
        print(f"{'':20}", *(f"{name:>9}" for name in (*_COLUMNS, "seconds")))
    with _sample() as sample, _emulators() as urls:
        for name, emulator in chosen:
            logs = Path(tempfile.mkdtemp(prefix=f"chaos-{name}-{emulator}-"))
            tally = SCENARIOS[name].run(form, open_bench(urls[emulator]), sample, logs, seed=seed)
            tallies[f"{name}, {emulator}"] = tally
            if not as_json:
                _print(f"{name}, {emulator}", tally, logs)
            if tally.is_clean:
                shutil.rmtree(logs)
    if as_json:
        found = {name: asdict(tally) for name, tally in tallies.items()}
        print(json.dumps({"seed": seed, "form": form, "scenarios": found}, indent=2))
    raise typer.Exit(int(not all(tally.is_clean for tally in tallies.values())))


def _print(title: str, tally: Tally, logs: Path) -> None:
    counts = asdict(tally)
    print(f"{title:20}", *(f"{counts[name]:9,}" for name in _COLUMNS), f"{tally.wall_s:9.1f}", tally.remark, flush=True)
    for problem in tally.problems:
        print(f"    {problem}")
    if not tally.is_clean:
        print(f"    The logs of the workers are in {logs}")


@contextmanager
def _sample() -> Iterator[Sample]:
    """Trains the model of the scenarios."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as name, Template.of_workers() as template:
        models, images = Path(name, "models"), Path(name, "images")
        render_digits(images, Reporter(quiet=True))
        options = ["--version", "v1", "--image-size", "96"]
        quiet = Reporter(quiet=True)
        train_sample(images, str(models), *options, name="digits", environment={}, reporter=quiet)
        yield Sample(models, images, template)


@contextmanager
def _emulators() -> Iterator[dict[str, str]]:
    """Starts the emulators, and returns their endpoints by name."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    with EmbeddedCloud() as ministack:
        moto.start()
        yield {"ministack": ministack.endpoint_url, "moto": "http://{}:{}".format(*moto.get_host_and_port())}
        moto.stop()


if __name__ == "__main__":
    sys.exit(app())
