"""What is said of a threshold rule is what the test images show."""

from typing import Any

import numpy as np
import pytest

from jobs.metrics.classification import evaluate
from jobs.metrics.threshold_rule import RuleOutcome, outcome
from jobs.metrics.wilson import wilson


def _evaluation(rule: str | None, *, right: int, called: int, ones: int) -> dict[str, Any]:
    """An evaluation with ``called`` images predicted as class 1, of which ``right`` are, and ``ones`` of class 1."""
    truth = np.array([1] * right + [0] * (called - right) + [1] * (ones - right) + [0] * 50)
    scores = np.array([0.9] * called + [0.1] * (ones - right + 50))
    return evaluate(truth, scores, threshold=0.5) | ({} if rule is None else {"threshold_rule": rule})


def test_the_sentence_says_what_was_asked_for_and_what_was_found() -> None:
    """The interval is that of the evaluation, so that the terminal and the table of the report agree."""
    evaluation = _evaluation("precision>=0.99", right=184, called=187, ones=190)
    found = outcome(evaluation)
    assert found is not None
    low, high = evaluation["binary_classification_metrics"]["precision"]["interval_95"]
    assert str(found) == (
        f"asked for a precision of at least 0.99; on the test images 0.984, 95 % interval {low:.3f} to {high:.3f}"
    )
    assert (found.borne_out, found.may_be_chance) == (False, True)
    assert found.advice.startswith("That may be chance. To be safer, ask for more (precision>=0.995), or keep more")


def test_a_bound_beyond_the_interval_is_hardly_chance() -> None:
    """Half of the answers are wrong where one in a hundred was asked for."""
    found = outcome(_evaluation("precision>=0.99", right=50, called=100, ones=60))
    assert found is not None
    assert found.advice.startswith("Chance hardly explains that.")


def test_a_rule_that_holds_is_borne_out() -> None:
    """At the bound, too."""
    found = outcome(_evaluation("recall>=0.9", right=45, called=60, ones=50))
    assert found is not None
    assert (found.figure, found.found, found.borne_out) == ("recall", 0.9, True)


@pytest.mark.parametrize(("right", "called", "images"), [(20, 20, 20), (0, 20, 20)])
def test_where_a_bootstrap_has_nothing_to_draw_from_the_interval_is_wilsons(
    right: int, called: int, images: int
) -> None:
    """All answers are right, or none is: that is known no better than the number of images allows."""
    found = outcome(_evaluation("precision>=0.5", right=right, called=called, ones=30))
    assert found is not None
    assert found.interval_95 == wilson(right / called, images)


@pytest.mark.parametrize("rule", [None, "0.5", "max-f1"])
def test_a_rule_without_a_bound_has_no_outcome(rule: str | None) -> None:
    """Neither has an evaluation that is older than the rules."""
    assert outcome(_evaluation(rule, right=5, called=6, ones=7)) is None


def test_a_figure_just_below_its_bound_is_not_rounded_up_to_it() -> None:
    """0.99 would not be less than 0.99."""
    assert "images 0.98996," in str(RuleOutcome("recall", 0.99, 0.98996, (0.9, 1.0)))
    assert "images 0.900," in str(RuleOutcome("recall", 0.9, 0.9, (0.8, 1.0)))
    assert "ask for more" not in RuleOutcome("recall", 1.0, 0.99, (0.9, 1.0)).advice
