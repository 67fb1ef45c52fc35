"""What helps after a job with failures, by their error codes."""

from collections.abc import Collection
from typing import Final

from jobs.wording import with_command
from worker.errors import ErrorCode

#: What fails again with the same file.
OF_THE_FILE: Final = frozenset(
    {
        ErrorCode.DAMAGED,
        ErrorCode.EMPTY,
        ErrorCode.NOT_AN_IMAGE,
        ErrorCode.TOO_MANY_BYTES,
        ErrorCode.TOO_MANY_PIXELS,
        ErrorCode.UNSUPPORTED_PIXELS,
    }
)
#: What most often fails again with the same file; another machine may have the time or the memory that it takes.
_MOSTLY_OF_THE_FILE: Final = frozenset({ErrorCode.DECODER_CRASHED, ErrorCode.TOO_MUCH_MEMORY, ErrorCode.TOO_SLOW})
#: What no redrive can mend, since it asks for the same images.
_OF_THE_LIST: Final = frozenset({ErrorCode.BAD_SOURCE_REF})


def how_to_try_again(job_id: str, codes: Collection[str]) -> str:
    """Returns what to do about images that failed with ``codes``, with the command to type as the last line, if any."""
    of_file = {*codes} & (OF_THE_FILE | _MOSTLY_OF_THE_FILE)
    other = {*codes} - of_file - _OF_THE_LIST
    if not of_file and not other:
        return "Correct the list, and submit it as a job of its own."
    if of_file:
        which = "the files that are at fault" if other else "the files"
        sentence = f"Replace {which}, under the same names, then try {'all of ' if other else ''}them again:"
    elif other == {ErrorCode.UNAVAILABLE}:
        sentence = "To try them again:"
    else:
        sentence = "Once the cause is mended, try them again:"
    return with_command(sentence, f"batch redrive {job_id} --wait")
