"""The metrics, compared with hand-computed values and with scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.metrics.classification import _FIGURES, _reference, _Sample, evaluate, headline
from jobs.metrics.wilson import wilson


def test_the_metrics_of_six_images_match_a_hand_computation() -> None:
    """Class 1 is the positive class, and a score equal to the threshold is class 1."""
    truth = np.array([0, 0, 0, 1, 1, 1])
    scores = np.array([0.1, 0.5, 0.2, 0.9, 0.4, 0.8])
    evaluation = evaluate(truth, scores, threshold=0.5)
    assert evaluation["n"] == 6
    assert evaluation["binary_classification_metrics"]["confusion_matrix"] == {
        "0": {"0": 2, "1": 1},
        "1": {"0": 1, "1": 2},
    }
    assert headline(evaluation) == pytest.approx(
        {
            "accuracy": 4 / 6,
            "precision": 2 / 3,
            "recall": 2 / 3,
            "f1": 2 / 3,
            "auc": 8 / 9,
            "log_loss": -np.log([0.9, 0.5, 0.8, 0.9, 0.4, 0.8]).mean(),
            "brier_score": (0.01 + 0.25 + 0.04 + 0.01 + 0.36 + 0.04) / 6,
            # Each score is the only one in its bin of width 1/15.
            "expected_calibration_error": (0.1 + 0.5 + 0.2 + 0.1 + 0.6 + 0.2) / 6,
        }
    )


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7, 1.0])), max_size=40),
    st.sampled_from([0.1, 0.5, 0.9]),
)
def test_the_resampled_metrics_are_those_of_scikit_learn(pairs: list[tuple[int, float]], threshold: float) -> None:
    """With ties, with scores of exactly 0 and 1, and with a class that is never predicted."""
    truth, scores = np.array([0, 1] + [p[0] for p in pairs]), np.array([0.3, 0.6] + [p[1] for p in pairs])
    sample = _Sample.of(truth, scores, threshold)
    ours = {name: figure(sample, np.ones(len(truth))) for name, figure in _FIGURES.items()}
    reference = _reference(truth, scores, sample.predicted)
    assert {name: ours[name] for name in reference} == pytest.approx(reference)


def test_where_all_answers_are_right_the_intervals_are_wilsons() -> None:
    """20 right answers do not mean that no other one is wrong. Accuracy, precision and recall are shares of images."""
    figures = evaluate(np.array([0] * 12 + [1] * 8), np.array([0.1] * 12 + [0.9] * 8), threshold=0.5)[
        "binary_classification_metrics"
    ]
    for name, images in (("accuracy", 20), ("precision", 8), ("recall", 8)):
        assert (figures[name]["value"], figures[name]["interval_95"]) == (1.0, list(wilson(1.0, images)))
        assert figures[name]["interval_95"][0] < 0.9


def test_the_auc_uses_scores_and_not_predicted_classes() -> None:
    """Scores that rank perfectly have an AUC of 1 with any threshold."""
    figures = headline(evaluate(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.4]), threshold=0.5))
    assert (figures["auc"], figures["accuracy"]) == (1.0, 0.5)


def test_a_model_that_never_predicts_class_1_has_precision_0() -> None:
    """And not NaN, which JSON cannot represent."""
    figures = headline(evaluate(np.array([0, 1]), np.array([0.1, 0.2]), threshold=0.5))
    assert (figures["precision"], figures["recall"], figures["f1"]) == (0.0, 0.0, 0.0)


def test_a_calibrated_model_has_no_calibration_error() -> None:
    """Of the images with a score of 0.7, 7 in 10 are class 1."""
    truth, scores = np.array([1] * 7 + [0] * 3), np.full(10, 0.7)
    assert headline(evaluate(truth, scores, threshold=0.5))["expected_calibration_error"] == pytest.approx(0.0)


def test_the_interval_of_an_accuracy_is_the_binomial_one() -> None:
    """900 of 1,000 correct: 0.9 ± 1.96 · sqrt(0.9 · 0.1 / 1000), to the precision of 1,000 resamples."""
    truth = np.array([0, 1] * 500)
    right = np.arange(1000) < 900
    evaluation = evaluate(truth, np.where(right, truth, 1 - truth).astype(np.float64), threshold=0.5)
    accuracy = evaluation["binary_classification_metrics"]["accuracy"]
    assert accuracy["value"] == 0.9
    assert accuracy["interval_95"] == pytest.approx([0.8814, 0.9186], abs=0.003)
    assert accuracy["standard_deviation"] == pytest.approx(0.0095, abs=0.001)


def test_the_same_seed_gives_the_same_intervals() -> None:
    """Two runs of a job write the same evaluation."""
    truth, scores = np.array([0, 1] * 20), np.linspace(0, 1, 40)
    assert evaluate(truth, scores, threshold=0.5) == evaluate(truth, scores, threshold=0.5)
