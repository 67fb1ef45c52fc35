"""The forms of each scenario: of seconds, for every test run; of minutes, for CI; and longer ones, by hand."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

from tests.chaos import scenarios
from tests.chaos.ground import Ground, Sample, ground_on
from tests.chaos.tally import Tally
from tests.conftest import Bench

#: Printed with every result. Another one is given with ``--seed``.
SEED: Final = 20261124

Run = Callable[[Ground, Random], Tally]


class Form(StrEnum):
    """How large a scenario is."""

    SHORT = "short"
    LONG = "long"
    LONGEST = "longest"


@dataclass(frozen=True)
class Scenario:
    """A scenario in its forms."""

    long: Run
    short: Run | None = None
    longest: Run | None = None
    on: tuple[str, ...] = ("ministack", "moto")
    receives: int | None = None  #: how often the queue delivers a message; None: as in infra/worker.yaml

    def run(self, form: Form, bench: Bench, sample: Sample, folder: Path, *, seed: int = SEED) -> Tally:
        """Runs it on fresh ground, in this form or else in the next smaller one. ``folder`` gets the logs."""
        chosen = {Form.SHORT: self.short, Form.LONG: self.long, Form.LONGEST: self.longest}[form] or self.long
        started_s = time.monotonic()
        with ground_on(bench, sample, folder, receives=self.receives, hurried=form is Form.SHORT) as ground:
            tally = chosen(ground, Random(seed))
            left = ground.crew.left_behind()
        if left:
            tally.wrong += tally.note(f"{len(left)} processes of workers that have ended")
        tally.wall_s = time.monotonic() - started_s
        return tally


SCENARIOS: Final = {
    "kills": Scenario(
        short=partial(scenarios.kills, requests=5, kills=2, messages=1),
        long=partial(scenarios.kills, requests=300, kills=200, messages=4),
    ),
    "points": Scenario(
        short=partial(scenarios.points, deaths=scenarios.TELLING_DEATHS),
        long=partial(scenarios.points, deaths=scenarios.EVERY_DEATH),
    ),
    "freezes": Scenario(
        short=partial(scenarios.freezes, freezes=1),
        long=partial(scenarios.freezes, freezes=10),
        on=("ministack",),
    ),
    "stops": Scenario(
        short=partial(scenarios.stops, stops=2, image_s=0.0, stop_s=20),
        long=partial(scenarios.stops, stops=50, image_s=0.03, stop_s=1),
        on=("ministack",),
        receives=3,
    ),
    "faults": Scenario(
        short=partial(scenarios.faults, requests=2, workers=2, share=0.1),
        long=partial(scenarios.faults, requests=500, workers=8),
    ),
    "races": Scenario(
        short=partial(scenarios.races, writers=2, rounds=2),
        long=partial(scenarios.races, writers=8, rounds=20),
    ),
    "plans": Scenario(
        long=partial(scenarios.plans, lists=3, images=3_000, kills=12),
        longest=partial(scenarios.plans, lists=4, images=5_000, kills=36),
        on=("ministack",),
    ),
    "submit": Scenario(long=partial(scenarios.submit, images=6_000, kills=20), on=("ministack",)),
    "soak": Scenario(
        long=partial(scenarios.soak, images=4_000),
        longest=partial(scenarios.soak, images=20_000),
        on=("ministack",),
    ),
}
