"""More versions of a trained model for tests, made instantly: the same graph with other test predictions."""

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
    """Returns the test images of a bundle with their scores."""
    return from_csv((bundle / FILE).read_bytes())


def with_mistakes(images: Iterable[ScoredImage], wrong: Iterable[int]) -> list[ScoredImage]:
    """Returns the same images, scored 0.9 for the right class, or for the other one at the ``wrong`` positions."""
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
    """Writes ``digits/<version>/`` with these test images and these ``changes`` to model.json.

    All digests match. Without ``graph``, the version has the bundle's graph, of 9 MB.
    """
    manifest = json.loads((bundle / "model.json").read_text())
    manifest["training_config"] |= {"data": "gone"}  # the scores may be invented, so nothing may be scored again
    manifest |= {"version": version} | changes
    evaluation = json.loads((bundle / "evaluation.json").read_text())
    evaluation["model"] = {key: value for key, value in manifest.items() if key != "files"}
    files = {
        "model.keras": b"not read by workers",
        "model.tflite": (bundle / "model.tflite").read_bytes() if graph is None else graph,
        "evaluation.json": json.dumps(evaluation).encode(),
        FILE: to_csv(images_of(bundle) if images is None else images),
        "quarantine.csv": (bundle / "quarantine.csv").read_bytes(),
    }
    manifest["files"] = {name: file.model_dump() for name, file in describe(files).items()}
    for name, body in (*files.items(), ("model.json", json.dumps(manifest).encode())):
        store.write(f"{manifest['name']}/{version}/{name}", body)


def state(store: Store) -> dict[str, str]:
    """Returns the digest of every stored file, by name."""
    return {name: hashlib.sha256(store.read(name) or b"").hexdigest() for name in store.names("")}
