"""The same picture twice: in two splits, or in both classes.

A picture that is learned from and then tested with makes the report say more than is true. So a copy stays in the test
set, else in validation, and is left out of what counts for less. A picture in both classes teaches nothing: no copy of
it stays. Two copies in one split and one class do no harm, and stay.
"""

from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from jobs.data.class_folders import SPLITS
from jobs.data.dataset import DatasetCode, LabelledImage, Quarantined, Reason
from jobs.progress import Reporter
from worker.errors import Reject
from worker.scoring.decoder import decode
from worker.settings import available_cores


def find_copies(images: Iterable[LabelledImage], reporter: Reporter) -> list[Quarantined]:
    """The images to leave out, picture by picture. Copies are equal to the byte.

    Files that are no pictures are not looked at: whoever decodes them says what they are.
    """
    groups: dict[str, list[LabelledImage]] = defaultdict(list)
    for image in images:
        if image.sha256:
            groups[image.sha256].append(image)
    doubtful = [group for group in groups.values() if len({(image.label, image.split) for image in group}) > 1]
    if not doubtful:
        return []
    left_out = []
    with (
        reporter.step("Looking at copies", total=len(doubtful)) as advance,
        ThreadPoolExecutor(available_cores()) as pool,
    ):
        for group, is_picture in zip(doubtful, pool.map(_is_picture, doubtful), strict=True):
            left_out += _judge(group) if is_picture else []
            advance(1)
    return left_out


def _is_picture(group: list[LabelledImage]) -> bool:
    try:
        decode(group[0].path.read_bytes(), size_px=32)
    except (Reject, OSError):
        return False
    return True


def _judge(group: list[LabelledImage]) -> list[Quarantined]:
    if len({image.label for image in group}) > 1:
        return [Quarantined(image, _conflict(image, group)) for image in group]
    best = max(group, key=_weight)
    reason = Reason(DatasetCode.DUPLICATE, f"the same picture is {best.ref}, which is in the {best.split} split")
    return [Quarantined(image, reason) for image in group if image.split != best.split]


def _weight(image: LabelledImage) -> int:
    return SPLITS.index(image.split)


def _conflict(image: LabelledImage, group: list[LabelledImage]) -> Reason:
    other = next(one for one in group if one.label != image.label)
    return Reason(DatasetCode.CONFLICTING_LABEL, f"the same picture is {other.ref}, in the other class")
