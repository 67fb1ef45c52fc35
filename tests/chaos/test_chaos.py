"""Every image that was asked for has exactly one row, whatever happens to the workers.

Each scenario runs in its short form here, and in its long form where it is marked ``slow``.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.forms import SCENARIOS, SEED, Form
from tests.chaos.ground import Sample
from tests.chaos.tally import Tally
from tests.conftest import Bench

#: Runs a scenario by name, and returns its count.
Chaos = Callable[[str], Tally]


@pytest.fixture
def chaos(form: Form, bench: Bench, sample: Sample, tmp_path: Path) -> Chaos:
    def run(name: str) -> Tally:
        tally = SCENARIOS[name].run(form, bench, sample, tmp_path)
        assert tally.is_clean, f"seed {SEED}, logs in {tmp_path}: {tally}"
        return tally

    return run


def forms_of(name: str) -> pytest.MarkDecorator:
    """The short form on the first emulator, and the long form on all of them."""
    scenario = SCENARIOS[name]
    forms = [pytest.param(Form.SHORT, scenario.on[0], id="short")] if scenario.short else []
    forms += [pytest.param(Form.LONG, on, id=f"long-{on}", marks=pytest.mark.slow) for on in scenario.on]
    return pytest.mark.parametrize(("form", "endpoint"), forms, indirect=["endpoint"])


@forms_of("kills")
def test_workers_killed_at_random_instants_answer_every_request_once(chaos: Chaos, form: Form) -> None:
    """SIGKILL to two workers and their children. A fifth of the requests is sent twice, a tenth is invalid."""
    tally = chaos("kills")
    assert form is Form.SHORT or tally.recovered > 0  # a few kills may all miss
    assert tally.unclosed == 0


@forms_of("points")
def test_a_worker_killed_at_any_point_of_its_work_loses_and_doubles_nothing(chaos: Chaos, form: Form) -> None:
    """Before and after each of its calls: after the part and before the delete, between the shards and job.json, …"""
    tally = chaos("points")
    assert tally.recovered > 0
    assert tally.unclosed == 0


@forms_of("plans")
def test_a_long_list_is_planned_and_answered_once_by_workers_that_are_killed(chaos: Chaos, form: Form) -> None:
    """The planner, and those that answer its shards."""
    tally = chaos("plans")
    assert tally.recovered > 0
    assert tally.unclosed == 0


@forms_of("freezes")
def test_a_worker_frozen_past_its_lease_corrupts_nothing(chaos: Chaos, form: Form) -> None:
    """After SIGSTOP another worker answers. After SIGCONT the first one finds the part, and exits with 0."""
    tally = chaos("freezes")
    assert tally.recovered > 0
    assert tally.unclosed == 0


@forms_of("stops")
def test_a_stop_signal_strands_no_message(chaos: Chaos, form: Form) -> None:
    """Whenever SIGTERM arrives, also with a message: each one is answered or waits. None is in flight at the exit."""
    chaos("stops")


@forms_of("faults")
def test_failing_calls_of_s3_and_sqs_lose_and_double_nothing(chaos: Chaos, form: Form) -> None:
    """Cut connections, lost answers, 500, 503, cut bodies and delays. None of them is taken for a bug."""
    assert chaos("faults").harm > 0


@forms_of("races")
def test_workers_that_write_at_the_same_instant_write_one_part_and_one_summary(chaos: Chaos, form: Form) -> None:
    """The same part, or all parts of a job, each of which may be the last."""
    assert chaos("races").unclosed == 0


@forms_of("submit")
def test_a_submit_that_is_killed_again_and_again_submits_each_image_once(chaos: Chaos, form: Form) -> None:
    """Typed again, the command finds what it has uploaded, written and sent."""
    assert chaos("submit").unclosed == 0


@forms_of("soak")
def test_the_memory_of_a_worker_does_not_grow(chaos: Chaos, form: Form) -> None:
    """Request after request."""
    print(chaos("soak").remark)
