"""``python -m tests.chaos``."""

import json
from contextlib import nullcontext

import pytest
from typer.testing import CliRunner

from tests.chaos import __main__ as command
from tests.chaos.ground import Sample


@pytest.mark.slow
def test_it_prints_the_seed_and_a_count_and_ends_with_0_when_all_is_well(
    sample: Sample, ministack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a table and as JSON."""
    monkeypatch.setattr(command, "_sample", lambda: nullcontext(sample))  # which it would train first
    monkeypatch.setattr(command, "_emulators", lambda: nullcontext({"ministack": ministack}))
    options = ["stops", "--form", "short", "--seed", "7"]
    printed = CliRunner().invoke(command.app, options)
    assert (printed.exit_code, printed.stdout.splitlines()[0]) == (0, "seed 7")
    found = json.loads(CliRunner().invoke(command.app, [*options, "--json"]).stdout)
    tally = found["scenarios"]["stops, ministack"]
    assert (found["seed"], tally["harm"], tally["lost"], tally["doubled"], tally["wrong"]) == (7, 2, 0, 0, 0)


def test_it_says_which_scenarios_there_are() -> None:
    """Where the name of one is wrong."""
    refused = CliRunner().invoke(command.app, ["kill"])
    assert refused.exit_code == 2
    assert "faults" in refused.stderr
