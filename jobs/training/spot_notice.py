"""The notice that a Spot machine is taken back: EC2's metadata service gives it 120 seconds ahead.

    with watching(os.environ, say=print):    while the block runs, a notice becomes SIGTERM

So a job is interrupted in one way only (``jobs.training.interruption``), whoever announces it. Only version 2 of the
service is used, whose requests carry a token. It is asked on AWS Batch, and where its address is set.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
"""

import http.client
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final, Literal
from urllib.parse import urlsplit

#: The variable of the AWS SDKs for another address, and the one that forbids to ask at all.
ENDPOINT: Final = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
_DISABLED: Final = "AWS_EC2_METADATA_DISABLED"
#: Set by AWS Batch: https://docs.aws.amazon.com/batch/latest/userguide/job_env_vars.html
_ON_BATCH: Final = "AWS_BATCH_JOB_ID"
_ADDRESS: Final = "http://169.254.169.254"

#: AWS recommends to ask every 5 seconds at least.
_EVERY_S: Final = 2.0
_TIMEOUT_S: Final = 1.0
_TOKEN_LIFE_S: Final = 21_600  #: the longest that there is
#: How long before the end a job leaves that was started on a machine which is already being taken back.
_MARGIN: Final = timedelta(seconds=30)
_OK: Final = 200
_UNAUTHORIZED: Final = 401
_NOT_FOUND: Final = 404  #: no notice is given


@contextmanager
def watching(
    environment: Mapping[str, str], *, say: Callable[[str], object], every_s: float = _EVERY_S
) -> Iterator[None]:
    """Sends SIGTERM to this process if a notice comes while the block runs. ``say`` is called with the reason before.

    A service that does not answer is asked again, and disturbs nothing.
    """
    address = environment.get(ENDPOINT) or (_ADDRESS if _ON_BATCH in environment else None)
    if address is None or environment.get(_DISABLED, "").lower() == "true":
        yield
        return
    over = threading.Event()
    threading.Thread(target=_watch, args=(_Metadata(address), over, say, every_s), name="spot", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(metadata: "_Metadata", over: threading.Event, say: Callable[[str], object], every_s: float) -> None:
    first = True
    while not over.is_set():
        answer = metadata.notice()
        if isinstance(answer, datetime):
            wait_s = wait_before_leaving(answer, now=datetime.now(UTC), at_start=first)
            if not over.wait(wait_s):
                try:
                    say(f"AWS takes this Spot machine back at {answer:%H:%M:%S} UTC.")
                finally:  # a line that cannot be printed keeps no job from saving its work
                    os.kill(os.getpid(), signal.SIGTERM)
            return
        if answer == "none":  # until then, nothing shows that there was no notice at the start
            first = False
        over.wait(every_s)


def wait_before_leaving(ends: datetime, *, now: datetime, at_start: bool) -> float:
    """Returns the seconds that a job works on after a notice: none, unless the notice was there when it started.

    AWS Batch may start the next attempt on the same machine while that still runs. If it left at once, the job could
    use up all of its attempts within seconds.
    """
    return max(0.0, (ends - _MARGIN - now).total_seconds()) if at_start else 0.0


class _Metadata:
    """The metadata service at an address."""

    def __init__(self, address: str) -> None:
        self._address = urlsplit(address)
        self._token: str | None = None

    def notice(self) -> datetime | Literal["none", "no answer"]:
        """Returns when the machine is taken back, if a notice is given."""
        try:
            self._token = self._token or self._new_token()
            status, body = self._ask("GET", "/latest/meta-data/spot/instance-action", token=self._token)
            if status == _UNAUTHORIZED:  # the token is too old
                self._token = None
            if status == _OK:
                return _time_of(body)
            return "none" if status == _NOT_FOUND else "no answer"
        except (OSError, http.client.HTTPException, ValueError):
            return "no answer"

    def _new_token(self) -> str | None:
        status, body = self._ask("PUT", "/latest/api/token", token=None)
        return body.decode("ascii") if status == _OK else None

    def _ask(self, method: str, path: str, *, token: str | None) -> tuple[int, bytes]:
        # Not urllib, which would use a proxy of the environment.
        connection = http.client.HTTPConnection(
            self._address.hostname or "", self._address.port or 80, timeout=_TIMEOUT_S
        )
        name, value = ("token", token) if token else ("token-ttl-seconds", str(_TOKEN_LIFE_S))
        with closing(connection):
            connection.request(method, path, headers={f"X-aws-ec2-metadata-{name}": value})
            answer = connection.getresponse()
            return answer.status, answer.read()


def _time_of(body: bytes) -> datetime:
    """Reads ``{"action": "terminate", "time": "2026-11-24T14:05:09Z"}``. A notice that cannot be read is for now."""
    try:
        found = datetime.fromisoformat(json.loads(body)["time"])
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, TypeError, KeyError):
        return datetime.now(UTC)
