"""What becomes of the catalogue's models and datasets, which are opened without a worker or a training job."""

import time
from pathlib import Path
from typing import cast

from jobs.config import TrainConfig
from jobs.data.loader import ImageLoader
from jobs.data.prepare import open_dataset
from jobs.decoding import sandbox
from jobs.progress import Reporter
from jobs.user_error import UserError
from tests.hostile.bundles import GRAPH, MODEL_JSON
from tests.hostile.catalogue import Entry
from tests.hostile.trial import Became
from worker.aws.storage import Storage
from worker.errors import TwofoldError
from worker.scoring.models import Models


def of_model(entry: Entry, bundle: Path, folder: Path) -> Became:
    """Opens a changed copy of a sound bundle as a worker does at its start. ``folder`` is empty."""
    for name, body in entry.make()({name: (bundle / name).read_bytes() for name in (MODEL_JSON, GRAPH)}).items():
        (folder / name).write_bytes(body)
    started_s = time.monotonic()
    try:
        # A local folder needs no storage.
        Models(storage=cast("Storage", None), sandbox=sandbox()).get(str(folder))
        step = "opened"
    except TwofoldError as error:
        named = [name for name in (GRAPH, MODEL_JSON) if name in error.message]
        step = f"{error.code.value}: {named[0] if named else error.message.replace(str(folder), folder.name)}"
    return Became((step,), time.monotonic() - started_s)


def of_dataset(entry: Entry, folder: Path) -> Became:
    """Opens a dataset and decodes its images as a training job does. ``folder`` is empty."""
    data, product = folder / "data", entry.make()
    if isinstance(product, bytes):
        data.write_bytes(product)
    else:
        for name, body in product.items():
            (data / name).parent.mkdir(parents=True, exist_ok=True)
            (data / name).write_bytes(body)
    started_s = time.monotonic()
    config = TrainConfig(data=str(data), output="", cache=folder / "cache", max_quarantined=1.0)
    try:
        dataset = open_dataset(config, Reporter(quiet=True))
        loaded = ImageLoader(32).load([*dataset.train, *dataset.validation, *dataset.test])
        codes = sorted({item.reason.code.value for item in [*dataset.quarantined, *loaded.quarantined]})
        step = f"left out: {' and '.join(codes)}" if codes else "kept"
    except UserError as error:
        step = f"refused: {error}".replace(str(data), data.name)
    outside = [path.name for path in folder.iterdir() if path.name not in {"data", "cache"}]
    return Became((f"escaped: {outside}" if outside else step,), time.monotonic() - started_s)
