"""What is wrong with a queue that a command cannot use, in plain words and with the setting to check."""

from typing import Final

from jobs.wording import program
from worker.aws.failures import CLOCK_CODES, code_of, from_messaging, status_of
from worker.errors import ErrorCode, TwofoldError

QUEUE: Final = "TWOFOLD_QUEUE_URL"
DEAD_LETTERS: Final = "TWOFOLD_DEAD_LETTER_URL, or the redrive policy of the queue in TWOFOLD_QUEUE_URL"


def explain(error: Exception, url: str, setting: str) -> str:
    """Returns what happened to a call about the queue ``url``, without the words of SQS and botocore.

    ``error`` is one of ``BOTO_ERRORS``, or what the worker makes of one. A sentence of Twofold's own stays as it is.
    """
    cause = error.__cause__ if isinstance(error, TwofoldError) else error
    if not isinstance(cause, Exception):
        return f"{error.message if isinstance(error, TwofoldError) else error}."
    code = code_of(cause)
    if from_messaging(cause, url).code is ErrorCode.NOT_FOUND:
        what = f"There is no queue {url}."
    elif status_of(cause) is None:
        what = f"The queue {url} does not answer. Is '{program()} local' running, if it is a local one?"
    elif code in CLOCK_CODES:
        what = f"The queue {url} refuses the signature. Check the clock of this machine and the secret access key."
    else:
        what = f"The queue {url} answers {status_of(cause)} {code}."
    return f"{what} Check {setting}."
