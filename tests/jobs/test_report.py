"""Figures, against numbers worked out by hand."""

import numpy as np
import pytest

from jobs.report import evaluate, headline


def test_figures_of_six_images_by_hand() -> None:
    """Class 1 is the positive one, and a score on the threshold is class 1."""
    truth = np.array([0, 0, 0, 1, 1, 1])
    scores = np.array([0.1, 0.5, 0.2, 0.9, 0.4, 0.8])
    evaluation = evaluate(truth, scores, threshold=0.5)
    assert evaluation["n"] == 6
    assert evaluation["binary_classification_metrics"]["confusion_matrix"] == {
        "0": {"0": 2, "1": 1},
        "1": {"0": 1, "1": 2},
    }
    log_loss = -np.log([0.9, 0.5, 0.8, 0.9, 0.4, 0.8]).mean()
    expected = {"accuracy": 4 / 6, "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "auc": 8 / 9, "log_loss": log_loss}
    assert headline(evaluation) == pytest.approx(expected)


def test_auc_is_of_the_scores_not_of_rounded_predictions() -> None:
    """Scores that rank perfectly have an AUC of 1, wherever the threshold is."""
    evaluation = evaluate(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.4]), threshold=0.5)
    assert headline(evaluation)["auc"] == 1.0
    assert headline(evaluation)["accuracy"] == 0.5


def test_a_model_that_never_says_class_1_has_precision_0() -> None:
    """And no warning, and no NaN that JSON could not hold."""
    figures = headline(evaluate(np.array([0, 1]), np.array([0.1, 0.2]), threshold=0.5))
    assert (figures["precision"], figures["recall"], figures["f1"]) == (0.0, 0.0, 0.0)
