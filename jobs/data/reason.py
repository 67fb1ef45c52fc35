"""Why a file was left out of a dataset."""

from dataclasses import dataclass
from enum import StrEnum

from worker.errors import ErrorCode


class DatasetCode(StrEnum):
    """Reasons that lie in the dataset. Those that lie in the file itself are the worker's ``ErrorCode``."""

    DUPLICATE = "duplicate"  #: the same picture is in a split that counts for more
    CONFLICTING_LABEL = "conflicting_label"  #: the same picture is in both classes
    NOT_A_FILE = "not_a_file"  #: a link, a device or a pipe, where a file should be


@dataclass(frozen=True)
class Reason:
    """A code for programs and a message for people."""

    code: ErrorCode | DatasetCode
    message: str
