"""Duplicates: the same image in two splits, or in both classes.

An image that is both trained on and tested with makes the report look better than the model is. So a duplicate stays
in the test set, or else in validation, and is left out of the other splits. An image in both classes has no right
answer, so all its copies are left out. Copies in one split and one class do no harm, and stay.
"""

from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from jobs.data.class_folders import SPLITS
from jobs.data.dataset import DatasetCode, LabelledImage, Quarantined, Reason
from jobs.decoding import decode
from jobs.progress import Reporter
from worker.errors import Reject
from worker.settings import available_cores


def find_duplicates(images: Iterable[LabelledImage], reporter: Reporter) -> list[Quarantined]:
    """Returns the images to leave out. Duplicates are equal byte for byte.

    Files that cannot be decoded are not judged here: the loader reports what is wrong with them.
    """
    groups: dict[str, list[LabelledImage]] = defaultdict(list)
    for image in images:
        if image.sha256:
            groups[image.sha256].append(image)
    suspects = [group for group in groups.values() if len({(image.label, image.split) for image in group}) > 1]
    if not suspects:
        return []
    quarantined = []
    with (
        reporter.step("Checking duplicates", total=len(suspects)) as advance,
        ThreadPoolExecutor(available_cores()) as pool,
    ):
        for group, decodes in zip(suspects, pool.map(_decodes, suspects), strict=True):
            quarantined += _judge(group) if decodes else []
            advance(1)
    return quarantined


def _decodes(group: list[LabelledImage]) -> bool:
    try:
        decode(group[0].path.read_bytes(), size_px=32)
    except (Reject, OSError):
        return False
    return True


def _judge(group: list[LabelledImage]) -> list[Quarantined]:
    if len({image.label for image in group}) > 1:
        return [Quarantined(image, _conflict(image, group)) for image in group]
    kept = max(group, key=lambda image: SPLITS.index(image.split))
    reason = Reason(DatasetCode.DUPLICATE, f"the same image is in the {kept.split} split, as {kept.ref}")
    return [Quarantined(image, reason) for image in group if image.split != kept.split]


def _conflict(image: LabelledImage, group: list[LabelledImage]) -> Reason:
    other = next(candidate for candidate in group if candidate.label != image.label)
    return Reason(DatasetCode.CONFLICTING_LABEL, f"the same image is in the other class, as {other.ref}")
