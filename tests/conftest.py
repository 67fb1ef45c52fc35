"""What the tests share: two emulators over real HTTP, one small trained model, and the way to the shared folder."""

import contextlib
import fcntl
import functools
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlparse

import hypothesis
import pytest
from moto.server import ThreadedMotoServer
from pytest_localstack.session import RunningSession

from jobs import decoding
from jobs.data import digits
from jobs.local.emulator import EmbeddedCloud, Queues, create_queues
from worker.aws.clients import open_session, open_sqs, open_storage
from worker.aws.queue import Queue
from worker.aws.storage import Storage
from worker.batch.job_folder import JobFolder
from worker.contract import PredictionRow
from worker.predictions import from_csv
from worker.scoring.pipeline import Pipeline
from worker.scoring.sandbox import Sandbox
from worker.uris import split

if TYPE_CHECKING:
    from tests.browser import Browser
    from tests.desk import Desk

hypothesis.settings.register_profile("twofold", deadline=None)  # a busy laptop breaks no promise
hypothesis.settings.load_profile("twofold")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as for whatever a script starts with &
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).parent.parent

#: Processes that share the tests, unless -n says otherwise: the suite waits more than it computes.
PROCESSES: Final = 2

#: The fixtures with an endpoint of S3 and SQS. Tests run on each, so that they do not lean on one emulator's quirks.
EMULATORS: Final = ("ministack", "moto", pytest.param("localstack", marks=pytest.mark.localstack))


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Sets the default of -n here and not in addopts, so that pytest also runs without pytest-xdist and with --pdb."""
    has_xdist = config.pluginmanager.hasplugin("xdist") and "PYTEST_XDIST_WORKER" not in os.environ
    if has_xdist and config.option.numprocesses is None and not config.option.usepdb:
        config.option.numprocesses = PROCESSES
    if has_xdist and config.option.numprocesses and config.option.dist == "no":
        config.option.dist = "worksteal"


def pytest_runtest_setup() -> None:
    """Collects garbage: an entry point of the worker that a test imports switches that off until it has started."""
    gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what installs LocalStack, unless -m names it: -m slow is not meant to."""
    if "localstack" not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("localstack")]
        items[:] = [item for item in items if not item.get_closest_marker("localstack")]
        config.hook.pytest_deselected(items=left_out)


@dataclass(frozen=True)
class Bench:
    """A bucket and two queues on an emulator for one test, and helpers to use them."""

    s3: Any
    sqs: Any
    bucket: str
    queues: Queues
    environment: dict[str, str]  #: for processes that are clients of the emulator

    @property
    def output_uri(self) -> str:
        return f"s3://{self.bucket}/predictions/"

    def put(self, key: str, body: bytes) -> str:
        """Uploads an object and returns its URI."""
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)
        return f"s3://{self.bucket}/{key}"

    def get(self, uri: str) -> bytes:
        bucket, key = split(uri)
        body: bytes = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    def keys(self, prefix: str) -> list[str]:
        listed = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix)
        return [item["Key"] for item in listed.get("Contents", ())]

    def put_bundle(self, folder: Path) -> str:
        """Uploads a model folder with its champion pointer, and returns the pointer's URI."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(f"models/{path.relative_to(folder).as_posix()}", path.read_bytes())
        pointer = next(folder.rglob("champion.json")).relative_to(folder)
        return f"s3://{self.bucket}/models/{pointer.as_posix()}"

    def send(self, body: str | dict[str, Any]) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        self.sqs.send_message(QueueUrl=self.queues.requests_url, MessageBody=text)

    def rows(self, job_id: str) -> list[PredictionRow]:
        return from_csv(self.get(JobFolder(self.output_uri, job_id).part()))

    def failed_rows(self, job_id: str) -> list[PredictionRow]:
        return from_csv(self.get(JobFolder(self.output_uri, job_id).errors()))

    def dead_letters(self) -> list[dict[str, Any]]:
        answer = self.sqs.receive_message(
            QueueUrl=self.queues.dead_letter_url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        )
        return list(answer.get("Messages", ()))

    def storage(self, monkeypatch: pytest.MonkeyPatch) -> Storage:
        """The worker's own storage, over the emulator."""
        return self._opened(monkeypatch).storage

    def queue(self, monkeypatch: pytest.MonkeyPatch, *, visibility_s: int = 30) -> Queue:
        """The worker's own queue, over the emulator."""
        return Queue.open(
            sqs=self._opened(monkeypatch).sqs,
            url=self.queues.requests_url,
            dead_letter_url=None,
            visibility_s=visibility_s,
        )

    def _opened(self, monkeypatch: pytest.MonkeyPatch) -> "_WorkerClients":
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)
        return _worker_clients(self.environment["AWS_ENDPOINT_URL"])

    def start_worker(self, *arguments: str, **settings: str) -> "subprocess.Popen[str]":
        """A worker as its own process; ``settings`` are further environment variables."""
        own = {"TWOFOLD_QUEUE_URL": self.queues.requests_url, "TWOFOLD_OUTPUT_URI": self.output_uri}
        return subprocess.Popen(
            [sys.executable, "-m", "worker", *arguments],
            env=os.environ | self.environment | own | settings,
            cwd=REPOSITORY,
            stderr=subprocess.PIPE,
            text=True,
        )

    def drain(self, **settings: str) -> str:
        """Runs a worker until the queue is empty, and returns what it logged."""
        worker = self.start_worker("--drain", **settings)
        _, log = worker.communicate(timeout=120)
        assert worker.returncode == 0, log
        return log


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real photographs and odd files; it is not part of the repository."""
    folder = os.environ.get("TWOFOLD_SHARED")
    if not folder:
        pytest.skip("set TWOFOLD_SHARED to the folder that holds data/odd_images and data/cats_and_dogs_filtered")
    return Path(folder)


@pytest.fixture(scope="session")
def ministack() -> Iterator[str]:
    """The endpoint of the embedded cloud."""
    with EmbeddedCloud() as cloud:
        yield cloud.endpoint_url


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The endpoint of a moto server."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def localstack(once: "Once", tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of LocalStack as a process. Where it cannot be installed, the test is skipped with the reason."""
    from tests.localstack import Unavailable, install, running  # noqa: PLC0415 - which knows REPOSITORY

    try:
        installed = once.make("localstack", install)
    except Unavailable as missing:
        pytest.skip(str(missing))
    with running(installed, tmp_path_factory.mktemp("localstack-files")) as url:
        yield url


@pytest.fixture(params=EMULATORS)
def endpoint(request: pytest.FixtureRequest) -> str:
    """Each emulator in turn, so that no test leans on one emulator's quirks."""
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture(scope="session")
def bench_on() -> Callable[[str], Bench]:
    """For a test that chooses its endpoint itself."""
    return open_bench


@pytest.fixture
def bench(endpoint: str) -> Bench:
    """A fresh bucket and queues on each emulator, through pytest-localstack's session."""
    return open_bench(endpoint)


@pytest.fixture
def ministack_bench(ministack: str) -> Bench:
    """The same on ministack alone, for tests that are slow or about processes."""
    return open_bench(ministack)


class _Clients(NamedTuple):
    """The tests' own clients of an emulator."""

    s3: Any
    sqs: Any


class _WorkerClients(NamedTuple):
    """The worker's clients of an emulator."""

    storage: Storage
    sqs: Any


@functools.cache  # a client takes a tenth of a second to build
def _clients(endpoint: str) -> _Clients:
    address = urlparse(endpoint)
    assert address.hostname
    ports = {"s3": address.port, "sqs": address.port}
    with RunningSession(address.hostname, services=ports, region_name="us-east-1", localstack_version="latest") as own:
        return _Clients(own.boto3.client("s3"), own.boto3.client("sqs"))


@functools.cache
def _worker_clients(_: str) -> _WorkerClients:
    """Those of the endpoint that the environment names."""
    session = open_session()
    return _WorkerClients(open_storage(session), open_sqs(session))


def open_bench(endpoint: str) -> Bench:
    s3, sqs = _clients(endpoint)
    name = f"test-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name)
    return Bench(
        s3=s3,
        sqs=sqs,
        bucket=name,
        queues=create_queues(sqs, name, max_receives=10),
        environment={
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        },
    )


@dataclass(frozen=True)
class Run:
    """A command under way, in a process of its own."""

    trainer: "Trainer"
    pid: int
    folder: Path

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout").read_text()

    def wait(self) -> int:
        """Its exit status; negative: the signal that ended it."""
        return self.trainer.wait(self.pid)

    def wait_for(self, text: str) -> None:
        """Waits up to 120 seconds for this text on standard error."""
        deadline = time.monotonic() + 120
        while text not in self.stderr and time.monotonic() < deadline:
            time.sleep(0.02)


class Trainer:
    """Runs ``twofold`` commands with TensorFlow already loaded; see tests/trainer.py."""

    def __init__(self, folder: Path, socket_path: Path) -> None:
        self._folder = folder
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(str(socket_path))
        self._stream = self._connection.makefile("rw")

    @staticmethod
    def launch(socket_path: Path) -> None:
        """Starts the process, and returns once it listens."""
        run = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
        log = socket_path.with_suffix(".log")
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.trainer", str(socket_path), str(run)],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log.open("wb"),
        )
        while not socket_path.exists():
            assert process.poll() is None, log.read_text()
            time.sleep(0.02)

    def ask(self, request: dict[str, Any]) -> Any:
        self._stream.write(json.dumps(request) + "\n")
        self._stream.flush()
        return json.loads(self._stream.readline())

    def wait(self, pid: int) -> int:
        """The exit status of a command; negative: the signal that ended it. It is killed after five minutes."""
        deadline = time.monotonic() + 300
        while (status := self.ask({"poll": pid})) is None:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        return int(status)

    def start(self, *arguments: str, **environment: str) -> Run:
        return self._start(arguments, environment, in_container=False)

    def start_container(self, *arguments: str, **environment: str) -> Run:
        """``python -m jobs.container``."""
        return self._start(arguments, environment, in_container=True)

    def _start(self, arguments: tuple[str, ...], environment: dict[str, str], *, in_container: bool) -> Run:
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        (folder / "stderr").touch()
        start = {
            "arguments": arguments,
            "in_container": in_container,
            "environment": {"XDG_CACHE_HOME": str(self._folder / "cache")} | environment,
            "stdout": str(folder / "stdout"),
            "stderr": str(folder / "stderr"),
        }
        return Run(self, self.ask({"start": start}), folder)

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """A command from start to end."""
        run = self.start(*arguments, **environment)
        status = run.wait()
        return subprocess.CompletedProcess(arguments, status, run.stdout, run.stderr)

    def close(self) -> None:
        self._stream.close()
        self._connection.close()


class Once:
    """Makes what all processes of one test run share: the first one that needs it makes it, the others wait."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make(self, name: str, make: Callable[[Path], object]) -> Path:
        """The path of that name, after ``make`` was called with it in one of the processes."""
        path, made = self._folder / name, self._folder / f"{name}.made"
        with (self._folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                make(path)
                made.touch()
        return path


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """For what takes long to make and is only read afterwards."""
    folder = tmp_path_factory.getbasetemp()
    return Once(folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder)


@pytest.fixture(scope="session")
def trainer(tmp_path_factory: pytest.TempPathFactory, once: Once) -> Iterator[Trainer]:
    """One for all tests: loading TensorFlow is most of a short job."""
    trainer = Trainer(tmp_path_factory.mktemp("trainer"), once.make("trainer.socket", Trainer.launch))
    yield trainer
    trainer.close()


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Browser"]:
    """Headless Chromium, one for all tests of a process. Where there is none, the test is skipped with the reason."""
    from tests.browser import Browser  # noqa: PLC0415 - most tests need none

    with Browser.start(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture(scope="session")
def sandbox() -> Sandbox:
    """One for all tests of a process: the one that ``jobs`` uses."""
    return decoding.sandbox()


@pytest.fixture
def desk(bench: Bench, models: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator["Desk"]:
    """A worker without a queue, on each emulator."""
    from tests.desk import Desk  # noqa: PLC0415 - which knows Bench

    storage = bench.storage(monkeypatch)
    allowed = (f"s3://{bench.bucket}/",)
    with Pipeline(storage=storage, sandbox=sandbox, allowed_prefixes=allowed, fetchers=4) as pipeline:
        yield Desk(bench, storage, pipeline, bench.put_bundle(models))


@pytest.fixture(scope="session")
def digit_images(once: Once) -> Path:
    """Two class folders of small PNG files: ``eight`` and ``three``."""
    return once.make("digits", digits.write_digits)


def _make_models(trainer: Trainer, once: Once) -> Path:
    def train(folder: Path) -> None:
        images = once.make("digits", digits.write_digits)
        command = ["train", "run", "--data", str(images), "--output", str(folder)]
        options = ["--name", "digits", "--version", "v1", "--image-size", "96"]
        done = trainer.run(*command, *options)
        assert done.returncode == 0, done.stderr

    return once.make("models", train)


@pytest.fixture(scope="session")
def models(trainer: Trainer, once: Once) -> Path:
    """A folder with one model, ``digits``, trained by the command on 96 pixels, and its champion pointer."""
    return _make_models(trainer, once)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Begins to train the sample model while the processes of a complete run still collect their tests."""
    is_complete = session.config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if is_complete and session.config.getoption("numprocesses", None):
        folder: Path = session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        threading.Thread(target=_train_ahead, args=[folder], daemon=True).start()


def _train_ahead(folder: Path) -> None:
    once = Once(folder)
    (folder / "ahead").mkdir()
    trainer = Trainer(folder / "ahead", once.make("trainer.socket", Trainer.launch))
    with contextlib.suppress(AssertionError):  # the test that needs it next tries again, and says what went wrong
        _make_models(trainer, once)
    trainer.close()


@pytest.fixture(scope="session")
def bundle(models: Path) -> Path:
    """The folder of that model's one bundle."""
    return models / "digits" / "v1"
