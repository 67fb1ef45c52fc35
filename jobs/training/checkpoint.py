"""What a job has done so far, kept where the next run of the same command finds it.

features/<what they depend on>/…     of every job, and of the next one with another head
jobs/<digest of the job>/…           of this job, until its bundle is written
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
from jobs.data.cache import Shelf
from jobs.data.dataset import Dataset
from jobs.store import open_store
from worker.scoring.decoder import fingerprint

#: What a result depends on besides the configuration and the pictures.
_LIBRARIES: Final = ("twofold", "keras", "tensorflow", "numpy", "scikit-learn", "ai-edge-litert")


@dataclass(frozen=True)
class Checkpoint:
    """The shelves of a job, and what its first run decided for all."""

    version: str
    created_at: datetime  #: UTC
    resumed: bool  #: an earlier run began this job
    features: Shelf
    job: Shelf

    @classmethod
    def open(cls, config: TrainConfig, dataset: Dataset) -> Self:
        """The checkpoint of the job that ``config`` and the pictures make; a new one where it never ran."""
        store = open_store(config.checkpoint or str(config.cache))
        job = Shelf(store, f"jobs/{_digest(config, dataset)}")
        begun = job.get_bytes("begun")
        if begun is None:
            now = datetime.now(UTC)
            begun = json.dumps([config.version or now.strftime("%Y%m%dT%H%M%SZ"), now.isoformat()]).encode()
            job.put_bytes("begun", begun)
            resumed = False
        else:
            resumed = True
        version, created_at = json.loads(begun)
        return cls(version, datetime.fromisoformat(created_at), resumed, Shelf(store, "features"), job)

    def files(self) -> dict[str, bytes] | None:
        """The files of the bundle, if all of them were made."""
        names = self.job.get_bytes("files")
        if names is None:
            return None
        found = {name: self.job.get_bytes(f"files/{name}") for name in json.loads(names)}
        whole = {name: body for name, body in found.items() if body is not None}
        return whole if len(whole) == len(found) else None

    def keep_files(self, files: Mapping[str, bytes]) -> None:
        """Keeps them: an upload that is cut short goes on with the same bytes."""
        for name, body in files.items():
            self.job.put_bytes(f"files/{name}", body)
        self.job.put_bytes("files", json.dumps(list(files)).encode())

    def clear(self) -> None:
        """The bundle is written: only features, which the next job can use, are kept."""
        self.job.clear()


def libraries() -> dict[str, str]:
    """Versions, by distribution name."""
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
