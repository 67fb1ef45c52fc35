"""The names of figures as people read them, in tables, reports and model cards alike."""

from typing import Final

_TITLES: Final = {"f1": "F1", "auc": "AUC", "brier_score": "Brier score"}


def title_of(name: str) -> str:
    """Returns a key of evaluation.json as a title: ``log_loss`` is log loss."""
    return _TITLES.get(name, name.replace("_", " "))
