"""The completion of a job from here, where its workers wrote all parts and were lost before they could complete it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from worker.batch.job_folder import JobRecord
from worker.errors import Retry, TwofoldError

if TYPE_CHECKING:
    from worker.contract import Summary

#: The least age of the newest part: its worker may still be at work, and would also send the notice.
_PATIENCE: Final = timedelta(seconds=60)


@dataclass(frozen=True)
class Closing:
    """What became of it."""

    complete: bool
    message: str  #: a sentence for people
    final: bool = True  #: False: it failed for the moment, and may succeed at the next try


@dataclass(frozen=True)
class Closer:
    """Completes jobs. ``notify`` sends the notice that a job is complete; None: no topic or bus is set."""

    notify: "Callable[[Summary], None] | None" = None

    def close(self, record: JobRecord, *, newest: datetime) -> Closing | None:
        """Completes the job if all parts are there; ``newest`` is when the last one was written.

        Returns None where there is nothing to do: parts are missing, or their worker may still be at work.
        """
        if datetime.now(UTC) - newest < _PATIENCE:
            return None
        from worker.batch.completion import Completion, no_notice  # noqa: PLC0415 - LiteRT takes a moment to load

        completion = Completion(storage=record.storage, notify=self.notify or no_notice)
        try:
            if not completion.mend(record):
                return None
        except Retry as error:
            reason = f"all parts are there, but the job could not be completed just now: {error.message}"
            return Closing(complete=False, message=reason, final=False)
        except TwofoldError as error:
            reason = f"all parts are there, but the job cannot be completed from here: {error.message}"
            return Closing(complete=False, message=reason)
        notice = "" if self.notify else ", and sent no notice: TWOFOLD_NOTIFY_ARN is not set here"
        return Closing(complete=True, message=f"this command completed the job, which no worker did{notice}")
