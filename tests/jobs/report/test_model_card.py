"""The model card of a bundle."""

import json
from pathlib import Path

import numpy as np
import yaml  # type: ignore[import-untyped]

from jobs.metrics.unsure_rule import BandFigures
from jobs.report import model_card
from worker.contract import ModelManifest


def _bundle(bundle: Path) -> tuple[ModelManifest, dict[str, object]]:
    manifest = ModelManifest.model_validate_json((bundle / "model.json").read_bytes())
    return manifest, json.loads((bundle / "evaluation.json").read_bytes())


def test_every_bundle_has_a_card_with_the_figures_of_its_evaluation(bundle: Path) -> None:
    """Intended use, decision, figures with intervals, data and limits, and the metadata that model hubs read."""
    manifest, evaluation = _bundle(bundle)
    text = (bundle / "README.md").read_text()
    _, metadata, body = text.split("---\n", 2)
    fields = yaml.safe_load(metadata)
    assert (fields["library_name"], fields["pipeline_tag"]) == ("keras", "image-classification")
    (model,) = fields["model-index"]
    (result,) = model["results"]
    metrics = {metric["type"]: metric["value"] for metric in result["metrics"]}
    figures = evaluation["binary_classification_metrics"]
    assert isinstance(figures, dict)
    assert metrics["accuracy"] == round(figures["accuracy"]["value"], 4)
    low, high = figures["accuracy"]["interval_95"]
    assert f"| accuracy | {figures['accuracy']['value']:.4f} | {low:.4f} to {high:.4f} |" in body
    assert f"A score of at least {manifest.threshold:g} means {manifest.labels[1]}" in body
    assert [line for line in body.splitlines() if line.startswith("#")] == [
        f"# {manifest.name} {manifest.version}",
        "## Decision",
        "## Figures",
        "## Data",
        "## Limits",
    ]
    assert manifest.dataset_digest in body
    for name in ("log loss", "Brier score", "AUC", "F1"):
        assert f"| {name} |" in body
    assert "\\-" not in body


def test_a_card_says_where_the_threshold_comes_from(bundle: Path) -> None:
    """A number is no rule, and is applied to nothing."""
    manifest, evaluation = _bundle(bundle)
    fixed = model_card.render(manifest, evaluation | {"threshold_rule": "0.5"}).decode()
    assert "any other eight. This threshold was set before training." in fixed
    chosen = model_card.render(manifest, evaluation | {"threshold_rule": "max-f1"}).decode()
    assert "This threshold was chosen on the validation images, by the rule `max-f1`." in chosen


def test_labels_of_any_folder_cannot_break_the_card(bundle: Path) -> None:
    """They come from the names of folders."""
    manifest, evaluation = _bundle(bundle)
    hostile = ("cats | <script>alert(1)</script>", "---\n# dogs: *[x](http://x)")
    text = model_card.render(manifest.model_copy(update={"labels": hostile}), evaluation).decode()
    _, metadata, body = text.split("---\n", 2)
    assert yaml.safe_load(metadata)["tags"] == ["twofold", "litert", "binary-classification"]
    assert "<script" not in body.replace(r"\<script", "")
    assert "\n# dogs" not in body
    rows = [line for line in body.splitlines() if line.startswith("|")]
    assert {line.replace(r"\|", "").count("|") for line in rows} == {5}


def test_the_card_states_the_band(bundle: Path) -> None:
    """With its rule, and what it does on the test images. A model without one has no word about it."""
    manifest, evaluation = _bundle(bundle)
    assert "unsure" not in (bundle / "README.md").read_text()
    figures = BandFigures.of(
        np.array([0, 1, 1, 0]), np.array([0.1, 0.9, 0.5, 0.8]), threshold=0.5, band=(0.4, 0.6), rule="0.4:0.6"
    )
    text = model_card.render(manifest, evaluation | {"unsure": figures.as_json(("eight", "three"))}).decode()
    assert (
        "A score from 0.4 up to, but not including, 0.6 means unsure, by the rule `0.4:0.6`. Of the test images, 1 of "
        "4 are unsure, and of the others 0.6667 are classified correctly (95 % interval 0.2077 to 0.9385)."
    ) in text
