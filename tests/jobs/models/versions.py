"""More versions of a trained model, for tests: its graph with other test predictions, made in no time."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jobs.metrics.scored_images import FILE, ScoredImage, from_csv, to_csv
from jobs.models.bundle import describe
from jobs.store import Store
from worker.predictions import Rule

FILES = ("model.keras", "model.tflite", "evaluation.json", FILE, "quarantine.csv", "model.json")


def images_of(bundle: Path) -> list[ScoredImage]:
    """The test images of a bundle, with what it scored."""
    return from_csv((bundle / FILE).read_bytes())


def with_mistakes(images: Iterable[ScoredImage], wrong: Iterable[int]) -> list[ScoredImage]:
    """The same images, scored 0.9 for the right class, and for the other where the position is among the ``wrong``."""
    wrong = set(wrong)
    rule = Rule(labels=("eight", "three"), threshold=0.5, model_version="made")
    answers = []
    for position, image in enumerate(images):
        three = (image.true_label == "three") != (position in wrong)
        row = rule.scored(position, image.source_ref, 0.9 if three else 0.1)
        answers.append(ScoredImage.of(row, true_label=image.true_label, sha256=image.sha256))
    return answers


def add_version(
    store: Store,
    bundle: Path,
    version: str,
    *,
    images: list[ScoredImage] | None = None,
    graph: bytes | None = None,
    **changes: Any,
) -> None:
    """Writes ``<name>/<version>/``, of the name ``digits``, with these test images and ``changes`` of model.json.

    All digests fit. Without a ``graph`` it is the bundle's, of 9 MB.
    """
    told = json.loads((bundle / "model.json").read_text())
    # Not where it was trained from: the scores may be made up.
    told["training_config"] |= {"data": "gone"}
    told |= {"version": version} | changes
    evaluation = json.loads((bundle / "evaluation.json").read_text())
    evaluation["model"] = {key: value for key, value in told.items() if key != "files"}
    files = {
        "model.keras": b"no worker reads it",
        "model.tflite": (bundle / "model.tflite").read_bytes() if graph is None else graph,
        "evaluation.json": json.dumps(evaluation).encode(),
        FILE: to_csv(images_of(bundle) if images is None else images),
        "quarantine.csv": (bundle / "quarantine.csv").read_bytes(),
    }
    told["files"] = {name: file.model_dump() for name, file in describe(files).items()}
    for name, body in (*files.items(), ("model.json", json.dumps(told).encode())):
        store.write(f"{told['name']}/{version}/{name}", body)


def state(store: Store) -> dict[str, str]:
    """The digest of everything that is stored, by name."""
    return {name: hashlib.sha256(store.read(name) or b"").hexdigest() for name in store.names("")}
