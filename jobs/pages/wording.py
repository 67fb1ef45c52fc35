"""What evaluation.json records, in the words of a report."""

from typing import Final

from jobs.config import fixed_threshold

_MEANINGS: Final = {
    "accuracy": "images told right",
    "precision": "of those told class 1, how many are",
    "recall": "of class 1, how many are told so",
    "f1": "harmonic mean of precision and recall",
    "auc": "chance that an image of class 1 has a higher score than one of class 0; 0.5 is guessing",
    "log_loss": "how surprising the classes are, given the scores (nats an image); lower is better, 0.69 is guessing",
    "brier_score": "mean squared distance of score and class; lower is better, 0.25 is guessing",
    "expected_calibration_error": "mean distance between a score and what comes true; lower is better",
}
_TITLES: Final = {"f1": "F1", "auc": "AUC", "brier_score": "Brier score"}


def title(name: str) -> str:
    """A name of the file as people write it: ``log_loss`` is log loss."""
    return _TITLES.get(name, name.replace("_", " ").replace(".", " "))


def meaning(name: str) -> str:
    """What a figure says; empty for one that is new here."""
    return _MEANINGS.get(name, "")


def rule(text: str) -> str:
    """Where a threshold comes from."""
    if fixed_threshold(text) is not None:
        return "a number that was given"
    if text == "max-f1":
        return "max-f1, where F1 is highest on the validation images"
    which = "lowest" if text.startswith("precision") else "highest"
    return f"{text}, the {which} that keeps this on the validation images"
