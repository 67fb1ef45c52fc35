"""A job as one HTML page that needs nothing else: counts, scores, images, errors."""

from dataclasses import dataclass
from typing import Any, Final

import jinja2
import numpy as np

from jobs.batch.gallery import Gallery
from jobs.batch.results import Results
from jobs.metrics import scored_images
from jobs.metrics.drift import Scores, drift, shares
from worker.aws.storage import Storage
from worker.batch import cost
from worker.batch.completion import collect
from worker.contract import Job
from worker.errors import TwofoldError

_BINS: Final = 40
_MAX_CSV_BYTES: Final = 1024 * 1024 * 1024

#: What the codes mean, and what to do, for somebody who looks after pictures.
_ADVICE: Final = {
    "access_denied": "Storage refuses to hand it out. Give the worker's role the right to read it, then redrive.",
    "archived": "It lies in an archive class. Restore it, then redrive.",
    "bad_source_ref": "It is not named as s3://bucket/key. Mend the list and submit it anew.",
    "damaged": "The file breaks off or makes no sense. Put a whole one in its place, then redrive.",
    "empty": "The file has no bytes. Upload it again, then redrive.",
    "not_allowed": "It lies outside the worker's TWOFOLD_ALLOWED_PREFIXES.",
    "not_an_image": "It is none of JPEG, PNG, WebP, GIF, BMP, TIFF.",
    "not_found": "There is no such object. Upload it, then redrive.",
    "too_many_bytes": "It has over 32 MiB.",
    "too_many_pixels": "It has over 30 million pixels.",
    "unavailable": "Storage did not deliver it in any of the tries. Redrive.",
    "unsupported_pixels": "It has 32-bit samples, which have no agreed black and white.",
}


@dataclass(frozen=True)
class Bar:
    """One bin of the histogram; heights are shares of the highest bar, 0 to 1."""

    seen: float
    scored_images: float


def render(results: Results, gallery: Gallery, storage: Storage, *, tested: Scores, complete: bool) -> str:
    """The page. ``tested`` are the scores of the model's test images, or nothing."""
    job, scores = results.job, gallery.scores
    failed = sum(failure.count for failure in gallery.failures.values())
    reports = collect(results.folder, job, storage) if complete else []
    seconds = sum(report.seconds for report in reports)
    found = drift(scored_images, scores)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jobs"),
        autoescape=True,  # names of files are anybody's
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("batch.html").render(
        job=job,
        complete=complete,
        rows=len(scores) + failed,
        scored=len(scores),
        failed=failed,
        labels=sorted(gallery.labels.items()),
        models=sorted(gallery.models),
        threshold=gallery.threshold,
        positive=gallery.positive or "class 1",
        bars=_bars(scores, scored_images),
        tested=len(scored_images),
        drift=found,
        pictures=gallery.pictures(storage),
        failures=sorted(gallery.failures.items(), key=lambda item: -item[1].count),
        advice=_ADVICE,
        worker_s=seconds,
        usd=cost.usd(images=job.images, parts=job.parts, worker_s=seconds),
        assumes=cost.ASSUMES,
    )


def tested_scores(job: Job, model_uri: str | None, storage: Storage) -> Scores:
    """The scores of the images that the model was tested with, from its bundle; none where they cannot be had."""
    uri = job.model_uri or model_uri
    if uri is None or not uri.startswith("s3://"):
        return np.array([])
    try:
        data = storage.read(f"{uri.rstrip('/')}/{scored_images.FILE}", max_bytes=_MAX_CSV_BYTES)
    except TwofoldError:  # a bundle that was removed; the page says that it has none
        return np.array([])
    return scored_images.scores(scored_images.from_csv(data))


def _bars(seen: Scores, tested: Scores) -> list[Bar]:
    both: list[Any] = [shares(scores, _BINS) for scores in (seen, scored_images)]
    # By the root: most scores lie at the two ends, and what lies between them is what one looks for.
    both = [np.sqrt(one) for one in both]
    highest = max(float(np.max(np.concatenate(both))), 1e-9)
    return [Bar(float(a) / highest, float(b) / highest) for a, b in zip(*both, strict=True)]
