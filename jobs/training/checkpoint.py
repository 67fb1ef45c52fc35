"""Checkpoints: the finished work of a job, saved where the next run of the same command finds it.

features/<what they depend on>/…     shared by all jobs, so that one with another head computes none
jobs/<digest of the job>/…           of one job, until its bundle is written
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Final, Self

import keras

from jobs.config import TrainConfig
from jobs.data.cache import ArrayCache
from jobs.data.dataset import Dataset
from jobs.store import open_store
from worker.scoring.decoder import fingerprint

#: Their versions change a result, as do the configuration and the images.
_LIBRARIES: Final = ("twofold", "keras", "tensorflow", "numpy", "scikit-learn", "ai-edge-litert")


@dataclass(frozen=True)
class Checkpoint:
    """The caches of a job, and what its first run decided for all later ones."""

    version: str
    created_at: datetime  #: UTC
    resumed: bool  #: whether an earlier run began this job
    features: ArrayCache
    job: ArrayCache

    @classmethod
    def open(cls, config: TrainConfig, dataset: Dataset) -> Self:
        """Opens the checkpoint of a job, or a new one if it has never run. Configuration and images identify it."""
        store = open_store(config.checkpoint or str(config.cache))
        job = ArrayCache(store, f"jobs/{_digest(config, dataset)}")
        begun = job.get_bytes("begun")
        if begun is None:
            now = datetime.now(UTC)
            begun = json.dumps([config.version or now.strftime("%Y%m%dT%H%M%SZ"), now.isoformat()]).encode()
            job.put_bytes("begun", begun)
            resumed = False
        else:
            resumed = True
        version, created_at = json.loads(begun)
        return cls(version, datetime.fromisoformat(created_at), resumed, ArrayCache(store, "features"), job)

    def files(self) -> dict[str, bytes] | None:
        """Returns the files of the bundle, or None unless all of them are complete."""
        names = self.job.get_bytes("files")
        if names is None:
            return None
        found = {name: self.job.get_bytes(f"files/{name}") for name in json.loads(names)}
        complete = {name: body for name, body in found.items() if body is not None}
        return complete if len(complete) == len(found) else None

    def save_files(self, files: Mapping[str, bytes]) -> None:
        """Saves the files of the bundle, so that an interrupted upload continues with the same bytes."""
        for name, body in files.items():
            self.job.put_bytes(f"files/{name}", body)
        self.job.put_bytes("files", json.dumps(list(files)).encode())

    def clear(self) -> None:
        """Removes everything but the features, once the bundle is written. The next job can use those."""
        self.job.clear()


def libraries() -> dict[str, str]:
    """Returns the versions of the libraries, by distribution name."""
    return {name: metadata.version(name) for name in (*_LIBRARIES, "pillow")}


def _digest(config: TrainConfig, dataset: Dataset) -> str:
    job = {
        "config": config.model_dump(mode="json"),
        "dataset": dataset.digest,
        "decoder": fingerprint(),
        "backend": keras.backend.backend(),
        "libraries": {name: metadata.version(name) for name in _LIBRARIES},
    }
    return hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:32]
