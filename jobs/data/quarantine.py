"""Files that are left out: counted, listed with the reason, and too many of them are an error."""

import math
from collections import Counter
from typing import Final

from jobs.data.labelled import Dataset, Quarantined
from jobs.data.reason import DatasetCode
from jobs.errors import UserError
from worker.predictions import csv_bytes

COLUMNS: Final = ("source_ref", "split", "label", "error_code", "error_message")
#: Files named in a message.
_NAMED: Final = 5


def quarantine_csv(labels: tuple[str, str], left_out: list[Quarantined]) -> bytes:
    """``quarantine.csv``: one line for every image left out, as text that a spreadsheet does not run."""
    lines = [
        (item.image.ref, item.image.split, labels[item.image.label], item.reason.code.value, item.reason.message)
        for item in left_out
    ]
    return csv_bytes([COLUMNS, *lines])


def by_code(left_out: list[Quarantined]) -> dict[str, int]:
    """How many were left out for each reason."""
    return dict(Counter(item.reason.code.value for item in left_out))


def check_share(dataset: Dataset, left_out: list[Quarantined], limit: float) -> None:
    """Raises UserError when more than ``limit`` of a class's files, 0 to 1, are among all that was ``left_out``.

    A class that lost many of its files is not the class that the person has in mind: what is left of it can be another
    kind of picture, and the figures are then about that. ``duplicate`` does not count, on either side: the class lost
    nothing by it, for the picture is still there, in a split that counts for more. ``conflicting_label`` counts:
    neither class has that picture any more, and many of them mean that the folders are mixed up.
    """
    lost = [item for item in left_out if item.reason.code is not DatasetCode.DUPLICATE]
    before = [item.image for item in dataset.quarantined if item.reason.code is not DatasetCode.DUPLICATE]
    for label, name in enumerate(dataset.labels):
        gone = [item for item in lost if item.image.label == label]
        total = sum(image.label == label for image in [*dataset.train, *dataset.validation, *dataset.test, *before])
        if len(gone) > limit * total + 1e-9:  # 0.29 * 100 is a little less than 29
            share = math.ceil(100 * len(gone) / total) / 100
            raise UserError(
                f"{len(gone):,} of the {total:,} files of class {name} cannot be used, more than {limit:.4g} of them:\n"
                f"{_first(gone)}\nMend or remove them, or train without them: --max-quarantined {share}"
            )


def _first(left_out: list[Quarantined]) -> str:
    lines = [f"  {item.image.ref}: {item.reason.code.value}, {item.reason.message}" for item in left_out[:_NAMED]]
    return "\n".join(lines + [f"  and {len(left_out) - _NAMED:,} more"] * (len(left_out) > _NAMED))
