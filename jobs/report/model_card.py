"""``README.md`` of a bundle: the model card, for people who meet the model away from its report.

It begins with the metadata that model hubs read: https://huggingface.co/docs/hub/model-cards
"""

import json
import re
from typing import Any, Final

from jobs.config import fixed_threshold
from jobs.data.dataset import describe_sources
from jobs.metrics import unsure_rule
from jobs.metrics.titles import title_of
from jobs.printable import printable
from worker.contract import ModelManifest

#: The metrics of the table: their keys in ``evaluation.json``, their names on a hub, and what they mean.
_METRICS: Final = (
    ("accuracy", "accuracy", "share of images with the right label"),
    ("precision", "precision", "share of the images labeled {1} that are in fact {1}"),
    ("recall", "recall", "share of the images of {1} that are labeled {1}"),
    ("f1", "f1", "harmonic mean of precision and recall"),
    ("auc", "roc_auc", "area under the ROC curve: the chance that an image of {1} has a higher score than one of {0}"),
    ("log_loss", "log_loss", "how wrong the scores are, confident mistakes above all; 0.69 is guessing"),
    ("brier_score", "brier_score", "how wrong the scores are, on average; 0.25 is guessing"),
    ("expected_calibration_error", "expected_calibration_error", "how far scores are from frequencies, on average"),
)


def render(manifest: ModelManifest, evaluation: dict[str, Any]) -> bytes:
    """Renders the card. ``evaluation`` is the content of ``evaluation.json``."""
    name = f"{manifest.name} {manifest.version}"
    sections = (
        _metadata(manifest, evaluation),
        f"# {_text(name)}\n\n{_intended_use(manifest)}",
        f"## Decision\n\n{_decision(manifest, evaluation)}",
        f"## Figures\n\n{_figures(manifest, evaluation)}",
        f"## Data\n\n{_data(manifest, evaluation)}",
        f"## Limits\n\n{_limits(manifest)}",
    )
    return "\n\n".join(sections).encode()


def _metadata(manifest: ModelManifest, evaluation: dict[str, Any]) -> str:
    """Returns the front matter. Each value is JSON, which YAML contains, so no name can break it."""
    figures = evaluation["binary_classification_metrics"]
    dataset = {"type": "image-folder", "name": "test images of the training run"}
    metrics = [{"type": hub, "value": round(figures[key]["value"], 4)} for key, hub, _ in _METRICS if key in figures]
    results = [{"task": {"type": "image-classification"}, "dataset": dataset, "metrics": metrics}]
    fields = {
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": ["twofold", "litert", "binary-classification"],
        "model-index": [{"name": f"{manifest.name} {manifest.version}", "results": results}],
    }
    return "\n".join(["---", *(f"{name}: {json.dumps(value)}" for name, value in fields.items()), "---"])


def _intended_use(manifest: ModelManifest) -> str:
    (zero, one), size = map(_text, manifest.labels), manifest.image_size
    return (
        f"This model sorts images into two classes, **{zero}** and **{one}**. It is meant for images like those that "
        f"it was trained on, where each shows one of the two. `model.tflite` is the model that is served, and "
        f"`model.keras` the same for further training. Both take `({size}, {size}, 3)` uint8 RGB pixels."
    )


def _decision(manifest: ModelManifest, evaluation: dict[str, Any]) -> str:
    zero, one = map(_text, manifest.labels)
    return (
        f"The score of an image is the probability of {one}, from 0 to 1. A score of at least {manifest.threshold:g} "
        f"means {one}, any other {zero}. {_origin(evaluation['threshold_rule'])}{_unsure(evaluation)}"
    )


def _unsure(evaluation: dict[str, Any]) -> str:
    """Returns the sentences on the band, or nothing where the model has none."""
    band = unsure_rule.of_evaluation(evaluation)
    if band is None:
        return ""
    found = (
        f" A score from {band.band[0]:g} up to, but not including, {band.band[1]:g} means unsure, by the rule "
        f"`{band.rule}`. Of the test images, {band.unsure.images:,} of {band.unsure.of:,} are unsure"
    )
    if band.right.value is None:
        return f"{found}."
    low, high = band.right.interval_95
    return (
        f"{found}, and of the others {band.right.value:.4f} are classified correctly "
        f"(95 % interval {low:.4f} to {high:.4f})."
    )


def _origin(rule: str) -> str:
    if fixed_threshold(rule) is not None:
        return "This threshold was set before training."
    return f"This threshold was chosen on the validation images, by the rule `{rule}`."


def _figures(manifest: ModelManifest, evaluation: dict[str, Any]) -> str:
    zero, one = map(_text, manifest.labels)
    figures = evaluation["binary_classification_metrics"]
    rows = ["| figure | value | 95 % interval | meaning |", "|---|---|---|---|"]
    for key, _, meaning in _METRICS:
        if key in figures:
            value, (low, high) = figures[key]["value"], figures[key]["interval_95"]
            rows.append(f"| {title_of(key)} | {value:.4f} | {low:.4f} to {high:.4f} | {meaning.format(zero, one)} |")
    return f"Measured on {evaluation['n']:,} test images, by the served file and its decoder.\n\n" + "\n".join(rows)


def _data(manifest: ModelManifest, evaluation: dict[str, Any]) -> str:
    counts = evaluation["images"]
    weights = re.sub(r"[^ ]*/", "", evaluation["weights"])  # without the folders of one machine
    named = [source | {"data": _last_part(source["data"])} for source in evaluation.get("sources", ())]
    sentences = (
        f"{counts['train']:,} images to train on, {counts['validation']:,} to validate, {counts['test']:,} to test.",
        _text(printable(describe_sources({"sources": named}))),
        f"{counts['quarantined']:,} were left out (`quarantine.csv`)." if counts["quarantined"] else "",
        f"Digest of the data set: `{manifest.dataset_digest}`.",
        f"The backbone is MobileNetV2; its weights: {_text(weights)}.",
    )
    return " ".join(filter(None, sentences))


def _last_part(source: str) -> str:
    return source.rstrip("/").rpartition("/")[2] or source


def _limits(manifest: ModelManifest) -> str:
    zero, one = map(_text, manifest.labels)
    return (
        f"- An image that shows neither {zero} nor {one}, or both, gets one of the two labels all the same.\n"
        "- The figures hold for images like the test images. Other cameras, seasons or places can change them: label a "
        "sample of your own images and compare.\n"
        "- The intervals describe the chance in the choice of test images, not a change of the images over time.\n"
        f"- Every image is resized to {manifest.image_size} by {manifest.image_size} pixels. What is not visible then "
        "cannot be recognized.\n"
    )


def _text(value: str) -> str:
    """Returns a name as Markdown text: labels come from folders, whose names can be anything."""
    # A hyphen means something only at the beginning of a line, where no name is.
    return re.sub(r"([\\`*_{}\[\]()<>#+!|~&])", r"\\\1", " ".join(value.split()))
