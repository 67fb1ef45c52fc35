"""What ``twofold batch submit`` says before it sends a job: how long, how much, and what is left out."""

import sys
from typing import TYPE_CHECKING, Final

from jobs import question
from jobs.batch.inputs import MISSING
from jobs.batch.tally import in_words
from jobs.user_error import UserError
from jobs.wording import counted, duration, model_in_words, money, with_command

if TYPE_CHECKING:
    from jobs.batch.submit import Estimate


#: Below this many seconds, it is the start of a worker and the way to storage that take the time.
_LEAST_S: Final = 10


def lines(job_id: str, expected: "Estimate") -> list[str]:
    """Returns the size of the job in words of use, its model, what is skipped, and what will have no score."""
    found = [f"{job_id}: {counted(expected.images, 'image')}, {_in_words(expected)}."]
    if expected.model_uri:
        found.append(f"Model: {model_in_words(expected.model_uri)}.")
    if expected.skipped:
        skipped = sum(group.files for group in expected.skipped.values())
        found += [f"{counted(skipped, 'file')} skipped:", *(f"  {line}" for line in in_words(expected.skipped))]
    if expected.unusable:
        names = sum(group.files for group in expected.unusable.values())
        found += [f"{counted(names, 'line')} of the list will have an error code instead of a score:"]
        found += [f"  {line}" for line in in_words(expected.unusable)]
    if MISSING in expected.unusable:
        found.append(with_command("Put missing files there, and later try them again:", f"batch redrive {job_id}"))
    return found


def dry_run(expected: "Estimate", *, files: int) -> str:
    """Returns what would have been done, and what the estimate rests on. Some files may be there already."""
    assumes = f" Assumed: {expected.assumes}." if expected.assumes else ""
    return f"Nothing was sent. Up to {counted(files, 'file')} would be uploaded.{assumes}"


def confirm(expected: "Estimate", *, yes: bool) -> None:
    """Asks before a large job. Raises UserError when the answer is no, or when nobody can be asked."""
    if yes or not expected.is_large:
        return
    if not sys.stdin.isatty():
        raise UserError(
            f"Nothing was sent, because this is a large job ({_in_words(expected)}) and nobody can be asked here. "
            "Add --yes to send it without a question."
        )
    if not question.confirm("This is a large job. Send it?"):
        raise UserError("Nothing was sent.")


def _in_words(expected: "Estimate") -> str:
    """Returns ``about 2 minutes, 50 seconds of it uploading, under a US cent``."""
    seconds = expected.worker_s + expected.upload_s
    words = [f"about {duration(seconds)}" if seconds >= _LEAST_S else "a few seconds"]
    if expected.upload_s >= 1:
        words.append(f"{duration(expected.upload_s)} of it uploading")
    if expected.cost_usd is not None:
        words.append(money(expected.cost_usd))
    return ", ".join(words)
