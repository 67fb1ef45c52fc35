"""The embedded cloud: an emulator of S3, SQS and other AWS services on this machine, without an account or Docker.

It is ministack (PyPI, MIT), run as a child process on a loopback port that ends with its parent. It can store its state
in a folder and find it there again.
"""

import os
import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Self

import boto3

from jobs.local import tether
from jobs.user_error import UserError
from jobs.wording import program

if TYPE_CHECKING:
    import subprocess

    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

_START_S: Final = 30
_STOP_S: Final = 10
_REGION: Final = "us-east-1"
_DAY_S: Final = 24 * 3600


@dataclass(frozen=True)
class Queues:
    """A request queue, and the dead-letter queue of its redrive policy."""

    requests_url: str
    dead_letter_url: str


class EmbeddedCloud:
    """A running emulator, as a context manager, and its clients."""

    def __init__(self, *, port: int | None = None, keep: Path | None = None, hold: IO[str] | None = None) -> None:
        """Uses a free port unless ``port`` is given, and loses its state at the end unless ``keep`` is given.

        The emulator keeps ``hold`` open, a file with a lock: it may outlive a parent that is killed by some seconds.
        """
        self._port = port or _free_port()
        self._keep = keep
        self._hold = hold
        self._log = tempfile.TemporaryFile(prefix="twofold-cloud-")  # noqa: SIM115 - closed in __exit__
        self.endpoint_url = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        import ministack  # noqa: F401, PLC0415 - if the package is missing, the error is raised here and not in the child

        check_free(self._port)
        self._process = self._start()
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # With ``keep``, everything except the buckets is only written to disk when it ends.
        tether.end(self._process, within_s=0 if self._keep is None else _STOP_S)
        self._log.close()

    def check(self) -> None:
        """Raises UserError if the emulator has ended."""
        if self._process.poll() is not None:
            raise UserError(f"The embedded cloud has ended. Its log ends with:\n{self._last_words()}")

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that make the AWS SDK of another process use this emulator."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_REGION": _REGION,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }

    def s3(self) -> "S3Client":
        """Returns a client for S3."""
        return self._session.client("s3", endpoint_url=self.endpoint_url)

    def sqs(self) -> "SQSClient":
        """Returns a client for SQS."""
        return self._session.client("sqs", endpoint_url=self.endpoint_url)

    def client(self, service: str) -> Any:  # noqa: ANN401 - the type stubs know services only by literal names
        """Returns a client for any service."""
        make: Any = self._session.client
        return make(service, endpoint_url=self.endpoint_url)

    @cached_property
    def _session(self) -> boto3.Session:
        return boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name=_REGION)  # noqa: S106

    def _start(self) -> "subprocess.Popen[bytes]":
        settings = {
            "BIND_HOST": "127.0.0.1",  # by default it binds every interface
            "GATEWAY_PORT": str(self._port),
            "IOT_MTLS_ENABLED": "0",
            "LOG_LEVEL": "ERROR",
        }
        return tether.start(
            "ministack",
            environment=os.environ | settings | ({} if self._keep is None else _persistence(self._keep)),
            stdout=self._log,
            stderr=self._log,
            descriptors=() if self._hold is None else (self._hold.fileno(),),
        )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.endpoint_url}/_ministack/health", timeout=1)  # noqa: S310 - always http
            except (urllib.error.URLError, OSError):
                time.sleep(0.02)
            else:
                return
        raise UserError(f"The embedded cloud did not start. Its log ends with:\n{self._last_words()}")

    def _last_words(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-2000:].strip()


@contextmanager
def apart() -> Iterator[None]:
    """Removes, within the block, the user's AWS settings, Twofold settings and proxies from the environment.

    They must not affect the emulator and its clients.
    """
    before = dict(os.environ)
    for name in before:
        if name.startswith(("AWS_", "TWOFOLD_")) or name.lower().endswith("_proxy"):
            del os.environ[name]
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def create_queues(sqs: "SQSClient", name: str, *, max_receives: int = 10, visibility_s: int = 60) -> Queues:
    """Creates a request queue that keeps messages for 4 days, and its dead-letter queue, which keeps them for 14.

    The dead-letter queue keeps them longer because their age counts from when they were first sent.
    """
    dead = sqs.create_queue(QueueName=f"{name}-dead", Attributes={"MessageRetentionPeriod": str(14 * _DAY_S)})
    arn = sqs.get_queue_attributes(QueueUrl=dead["QueueUrl"], AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    requests = sqs.create_queue(QueueName=name)
    # Not with the call above: SQS refuses to create a queue that exists with other attributes, as from an old version.
    sqs.set_queue_attributes(
        QueueUrl=requests["QueueUrl"],
        Attributes={
            "MessageRetentionPeriod": str(4 * _DAY_S),
            "VisibilityTimeout": str(visibility_s),
            "RedrivePolicy": f'{{"deadLetterTargetArn": "{arn}", "maxReceiveCount": {max_receives}}}',
        },
    )
    return Queues(requests["QueueUrl"], dead["QueueUrl"])


def send_inbox_to(s3: "S3Client", sqs: "SQSClient", *, bucket: str, queue_url: str) -> None:
    """Makes the bucket send an event to the queue for every new object below ``inbox/``, where a manifest is a job."""
    arn = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    s3.put_bucket_notification_configuration(
        Bucket=bucket,
        NotificationConfiguration={
            "QueueConfigurations": [
                {
                    "QueueArn": arn,
                    "Events": ["s3:ObjectCreated:*"],
                    "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": "inbox/"}]}},
                }
            ]
        },
    )


def _persistence(folder: Path) -> dict[str, str]:
    """Returns ministack's settings for storing its state in a folder."""
    return {
        "PERSIST_STATE": "1",
        "STATE_DIR": str(folder.resolve() / "state"),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(folder.resolve() / "s3"),
    }


def check_free(port: int) -> None:
    """Raises UserError if another program listens on the port: it would be mistaken for the emulator."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise UserError(
                f"Port {port} is taken, perhaps by another '{program()} local'. Choose another with --port."
            )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
