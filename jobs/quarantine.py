"""Files that are left out: counted, and listed with the reason."""

from jobs.labelled import Quarantined
from worker.predictions import csv_bytes


def quarantine_csv(left_out: list[Quarantined]) -> bytes:
    """``quarantine.csv``: one line for every image left out, as text that a spreadsheet does not run."""
    lines = [("source_ref", "error_code", "error_message")]
    lines += [(item.image.ref, item.reason.code.value, item.reason.message) for item in left_out]
    return csv_bytes(lines)
