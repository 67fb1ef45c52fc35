"""Scores to figures. Numpy and scikit-learn only."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics


def evaluate(truth: NDArray[np.int64], scores: NDArray[np.float64], *, threshold: float) -> dict[str, Any]:
    """Figures of ``(N,)`` true classes (0 or 1) and ``(N,)`` scores, P(class 1); score >= threshold is class 1.

    Named as SageMaker Model Monitor names them (``binary_classification_metrics``). Precision, recall and F1 are those
    of class 1; AUC and log loss are of the scores, never of rounded predictions.
    """
    given = (scores >= threshold).astype(np.int64)
    matrix = metrics.confusion_matrix(truth, given, labels=[0, 1])
    values = {
        "accuracy": metrics.accuracy_score(truth, given),
        "precision": metrics.precision_score(truth, given, zero_division=0.0),
        "recall": metrics.recall_score(truth, given, zero_division=0.0),
        "f1": metrics.f1_score(truth, given, zero_division=0.0),
        "auc": metrics.roc_auc_score(truth, scores),
        "log_loss": metrics.log_loss(truth, scores, labels=[0, 1]),
    }
    return {
        "n": len(truth),
        "threshold": threshold,
        "binary_classification_metrics": {
            #: confusion_matrix[true class][class given]
            "confusion_matrix": {str(t): {str(g): int(matrix[t, g]) for g in (0, 1)} for t in (0, 1)},
            **{name: {"value": float(value)} for name, value in values.items()},
        },
    }


def headline(evaluation: dict[str, Any]) -> dict[str, float]:
    """The single figures of an evaluation, by name."""
    figures = evaluation["binary_classification_metrics"]
    return {name: figure["value"] for name, figure in figures.items() if "value" in figure}
