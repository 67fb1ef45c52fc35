"""LocalStack as a process, without Docker, in a virtual environment of its own."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from jobs.local import tether
from tests.conftest import REPOSITORY
from tests.pythons import find_python

#: The last version whose image and packages need no account.
VERSION: Final = "4.14.0"
#: Newer ones of its own requirements break it. EventBridge needs the last, which base-runtime lacks.
REQUIREMENTS: Final = (
    f"localstack-core[base-runtime]=={VERSION}",
    "moto-ext==5.1.22",
    "cbor2<5.8",
    "pyopenssl<25.2",
    "service-identity",
    "crontab>=0.22.6",
)
#: Wherever it runs: the address of a queue is the one that the client used, and nothing is reported to its makers.
SETTINGS: Final = {"SQS_ENDPOINT_STRATEGY": "dynamic", "DISABLE_EVENTS": "1"}
_START_S: Final = 120
_STOP_S: Final = 10


class Unavailable(Exception):
    """LocalStack cannot be installed on this machine. The message is the reason."""


def install(folder: Path) -> None:
    """Makes a virtual environment with LocalStack in a new folder: 140 MB."""
    uv = shutil.which("uv")
    if uv is None:
        raise Unavailable("uv, which installs LocalStack, is not there")
    folder.mkdir(exist_ok=True)
    python = find_python("3.13") or sys.executable  # 3.13 is that of LocalStack's own image
    _run(uv, "venv", "--allow-existing", "--python", python, str(folder / "venv"), cwd=folder)
    # Elsewhere, uv would apply the constraints of this project.
    _run(uv, "pip", "install", "--python", str(folder / "venv"), *REQUIREMENTS, cwd=folder)


def _run(*command: str, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(f"LocalStack cannot be installed: {done.stderr.strip()[-500:]}")


@contextmanager
def running(installed: Path, folder: Path) -> Iterator[str]:
    """Starts LocalStack and yields its endpoint. All that it writes is in ``folder``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    endpoint = f"http://127.0.0.1:{port}"
    with (folder / "log").open("w+b") as log:
        process = subprocess.Popen(
            [installed / "venv/bin/python", "-m", "jobs.local.tether", "localstack.runtime.main"],
            cwd=REPOSITORY,
            env=_environment(port, folder),
            stdin=subprocess.PIPE,  # when it closes, because this process has ended, LocalStack ends
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait_until_ready(process, endpoint, log)
            yield endpoint
        finally:
            tether.end(process, within_s=_STOP_S)


def _environment(port: int, folder: Path) -> dict[str, str]:
    own = {
        "SERVICES": "s3,sqs,sns,events,sts",
        "EAGER_SERVICE_LOADING": "1",  # its health says nothing about a service that is not loaded
        "GATEWAY_LISTEN": f"127.0.0.1:{port}",
        "GATEWAY_SERVER": "hypercorn",  # its default, twisted, listens on every interface whatever the line above says
        "DNS_ADDRESS": "0",  # no name server
        "SKIP_SSL_CERT_DOWNLOAD": "1",
        "OVERRIDE_IN_DOCKER": "0",  # in a container it would write to /var/lib
        "FILESYSTEM_ROOT": str(folder),
        "HOME": str(folder),
        "TMPDIR": str(folder),
    }
    apart = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON"))}
    return apart | SETTINGS | own


def _wait_until_ready(process: "subprocess.Popen[bytes]", endpoint: str, log: IO[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"{endpoint}/_localstack/health", timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        else:
            return
    log.seek(0)
    raise AssertionError(f"LocalStack did not start:\n{log.read().decode(errors='replace')[-3000:]}")
