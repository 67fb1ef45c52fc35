"""What ``twofold batch redrive`` says: what it sent, and what it left out."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from jobs.batch.tally import in_words
from jobs.wording import counted, with_command

if TYPE_CHECKING:
    from jobs.batch.redrive import Redriven


def text_of(again: "Redriven", *, with_codes: bool, waits: bool) -> str:
    """Returns what came of it; if nobody ``waits``, with how to wait. ``with_codes``: some codes were asked for."""
    return "\n".join([*_left_out(again), _sent(again, with_codes=with_codes, waits=waits)])


def _left_out(again: "Redriven") -> Iterator[str]:
    """Yields a line about the failed images that were not sent, and one for each reason."""
    files = sum(group.files for group in again.left_out.values())
    if files:
        yield f"{counted(files, 'file')} left out, which would fail again:"
        yield from (f"  {line}" for line in in_words(again.left_out))


def _sent(again: "Redriven", *, with_codes: bool, waits: bool) -> str:
    number = again.requests or again.images
    were, them = ("was", "it") if number == 1 else ("were", "them")
    if again.requests:
        text = f"{counted(number, 'refused request')} of {again.job_id} {were} sent again."
    elif again.images:
        text = f"{counted(number, 'failed image')} {were} submitted again, as {again.redrive_id}."
    elif again.left_out:
        return "Nothing was submitted. Replace the files, under the same names, and type the same command again."
    else:
        return f"No image of {again.job_id} has failed{' with these codes' if with_codes else ''}."
    if waits:
        return text
    return with_command(f"{text} To wait for {them}:", f"batch status {again.redrive_id or again.job_id} --watch")
