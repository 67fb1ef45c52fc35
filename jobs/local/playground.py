"""The playground of ``twofold local``: a bucket, queues, a model and a worker, all kept for the next start."""

import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from jobs.cloud.deploy import deploy_worker
from jobs.extras import require
from jobs.local import tether
from jobs.local.emulator import EmbeddedCloud, apart, check_free, create_queues, send_inbox_to
from jobs.local.sample import render_digits, train_sample
from jobs.models.bundle import Bundle, read_bundle
from jobs.models.champion import Champions
from jobs.models.copying import checked_files, copy_bundle
from jobs.models.location import find_bundle
from jobs.models.registry import read_manifest
from jobs.progress import Reporter
from jobs.store import Store, open_store
from jobs.user_error import UserError
from jobs.wording import program
from worker.contract import ModelManifest
from worker.uris import split

BUCKET: Final = "twofold"
SAMPLE: Final = "digits"
_QUEUE: Final = "requests"
#: Which model was served last, and on which port.
_SERVED: Final = "served.json"
#: The first port, and a range that a user may choose from.
PORT: Final = 4566
PORTS: Final = (1024, 65535)

#: The time that the worker has for its current part when it is stopped. An open poll of the queue takes no longer. Its
#: message goes back to the queue, where the next start finds it.
_GRACE_S: Final = 1
_STOP_S: Final = 7  #: the worker ends itself 4 seconds after its grace
_POLL_S: Final = 0.1
#: How long a start that was killed may still take to store its state.
_STORE_S: Final = 30


@dataclass(frozen=True, kw_only=True)
class Serving:
    """The model to serve: what ``bundle`` reads or trains, or the model ``name``, which the playground has.

    With neither of them, the model that was served last, and at the first start the sample, trained with ``weights``.
    """

    bundle: Callable[[], Bundle] | None = None  #: called before the emulator starts, in the user's own environment
    name: str | None = None
    weights: str = "auto"


@dataclass(frozen=True)
class Playground:
    """What is running, and how to connect to it."""

    environment: dict[str, str]  #: to export
    images: Path | None  #: images to start with, if the sample is served
    bucket: str
    model: ModelManifest
    cloud: EmbeddedCloud
    worker: "subprocess.Popen[bytes] | None"  #: None: the emulator itself calls the Lambda

    @property
    def inbox_uri(self) -> str:
        """The prefix where every new manifest starts a job."""
        return f"s3://{self.bucket}/inbox/"

    def watch(self) -> None:
        """Never returns. Raises UserError once the emulator or the worker has ended."""
        while True:
            _check(self.cloud, self.worker)
            time.sleep(_POLL_S)


@contextmanager
def open_playground(
    *, keep: Path, port: int | None, serving: Serving, reporter: Reporter, serverless: bool = False
) -> Iterator[Playground]:
    """Starts everything, and stops it on exit. The bucket and the queues are stored in ``keep``.

    Without a ``port``, the one of the last start is used: the settings that were written then still apply.

    With ``serverless``, infra/worker.yaml is deployed as on AWS, and the queue runs the Lambda instead of a worker.

    Raises UserError if something cannot be started, or if the folder is in use.
    """
    if serving == Serving(weights=serving.weights) and not (keep / _SERVED).exists():
        require("train")
    environment = dict(os.environ)
    with claimed(keep, reporter) as lock:
        port = port or _last_port(keep)
        check_free(port)
        bundle = serving.bundle() if serving.bundle else None
        if bundle:
            checked_files(bundle)
        name = bundle.manifest.name if bundle else serving.name or _served_last(keep)
        with apart(), EmbeddedCloud(port=port, keep=keep / "cloud", hold=lock) as cloud:
            os.environ.update(cloud.environment)
            if serverless:
                settings = deploy_embedded(cloud, parameters={"Model": name}, reporter=reporter)
            else:
                settings = _create_resources(cloud, name, reporter)
            bucket = split(settings["TWOFOLD_OUTPUT_URI"])[0]
            store = open_store(f"s3://{bucket}/models")
            if bundle is None and Champions(store, name).current() is None:
                bundle = _sample(keep, name, serving.weights, environment, reporter)
            model = _champion(store, name) if bundle is None else _serve(store, bundle, reporter)
            (keep / _SERVED).write_text(json.dumps({"model": name, "port": port}), encoding="utf-8")
            images = keep / "images" if name == SAMPLE and (keep / "images").is_dir() else None
            with nullcontext() if serverless else _worker(keep, cloud, settings, reporter) as worker:
                yield Playground(cloud.environment | settings, images, bucket, model, cloud, worker)


def deploy_embedded(cloud: EmbeddedCloud, *, parameters: dict[str, str], reporter: Reporter) -> dict[str, str]:
    """Deploys the worker's stack to the emulator, whose queue then runs the Lambda. Returns a worker's settings."""
    settings = deploy_worker(cloud.client, libraries=None, parameters=parameters, reporter=reporter, poll_s=0.05)
    # ministack stores the number in a parameter as text and cannot compare it, so it would never call the function.
    functions = cloud.client("lambda")
    for mapping in functions.list_event_source_mappings()["EventSourceMappings"]:
        limit = int(mapping["ScalingConfig"]["MaximumConcurrency"])
        functions.update_event_source_mapping(UUID=mapping["UUID"], ScalingConfig={"MaximumConcurrency": limit})
    return settings


@contextmanager
def claimed(folder: Path, reporter: Reporter) -> Iterator[IO[str]]:
    """Yields a locked file. The emulator shares the lock, and holds it until its state is stored.

    Raises UserError while another process uses the folder. If that one was killed, waits for its emulator.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as lock:
        if not _try_lock(lock):
            lock.seek(0)
            owner = lock.read().strip()
            if not owner or _is_alive(int(owner)):
                raise UserError(
                    f"{folder} is in use by another '{program()} local', process {owner or 'unknown'}. "
                    "End it with Ctrl-C in its terminal, or choose another folder with --keep."
                )
            _wait_for(lock, folder, reporter)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        try:
            yield lock
        finally:
            if is_new and [entry.name for entry in folder.iterdir()] == ["lock"]:  # it failed before it began
                shutil.rmtree(folder)


def _wait_for(lock: IO[str], folder: Path, reporter: Reporter) -> None:
    with reporter.step("Waiting for the last start, which was killed, to store its data"):
        deadline = time.monotonic() + _STORE_S
        while not _try_lock(lock):
            if time.monotonic() > deadline:
                raise UserError(f"{folder} is still in use by an emulator. Choose another folder with --keep.")
            time.sleep(_POLL_S)


def _try_lock(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _create_resources(cloud: EmbeddedCloud, model: str, reporter: Reporter) -> dict[str, str]:
    """Creates the bucket and the queues, and returns a worker's settings."""
    s3, sqs = cloud.s3(), cloud.sqs()
    with reporter.step("Creating a bucket and two queues"):
        s3.create_bucket(Bucket=BUCKET)
        queues = create_queues(sqs, _QUEUE)
        send_inbox_to(s3, sqs, bucket=BUCKET, queue_url=queues.requests_url)
    return {
        "TWOFOLD_QUEUE_URL": queues.requests_url,
        "TWOFOLD_MODEL_URI": f"s3://{BUCKET}/models/{model}/champion.json",
        "TWOFOLD_MODEL_PREFIXES": f"s3://{BUCKET}/models/",
        "TWOFOLD_OUTPUT_URI": f"s3://{BUCKET}/predictions/",
    }


def _served_last(keep: Path) -> str:
    return str(_last_start(keep).get("model", SAMPLE))


def _last_port(keep: Path) -> int:
    port = _last_start(keep).get("port")
    return port if isinstance(port, int) and PORTS[0] <= port <= PORTS[1] else PORT


def _last_start(keep: Path) -> dict[str, object]:
    try:
        found = json.loads((keep / _SERVED).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _sample(keep: Path, name: str, weights: str, environment: dict[str, str], reporter: Reporter) -> Bundle:
    """Renders the digits and trains a model on them, unless an earlier start got that far."""
    if name != SAMPLE:
        raise UserError(f"{keep} has no model {name}. Name one with --model, or choose another folder with --keep.")
    images = keep / "images"
    if not images.is_dir():
        draft = images.with_name(f"{images.name}.draft")
        render_digits(draft, reporter)
        draft.rename(images)  # so that the folder is complete if it exists
    options = ("--image-size", "96", "--weights", weights)
    uri = train_sample(images, str(keep / "models"), *options, name=name, environment=environment, reporter=reporter)
    return bundle_at(uri, reporter)


def bundle_at(where: str, reporter: Reporter) -> Bundle:
    """Reads the bundle at ``where``, or the champion of the model there. Raises UserError if there is none."""
    location = find_bundle(where)
    return read_bundle(location.store, location.name, location.bundle(), reporter)


def _serve(store: Store, bundle: Bundle, reporter: Reporter) -> ModelManifest:
    """Copies a bundle to the store and makes it the champion there, whatever was the champion before."""
    manifest = bundle.manifest
    copy_bundle(bundle, store, reporter)
    champions = Champions(store, manifest.name)
    current = champions.current()
    if current is None or current.tenure.version != manifest.version:
        champions.set_champion(manifest.version, expected=current, how="forced" if current else "first")
    return manifest


def _champion(store: Store, name: str) -> ModelManifest:
    current = Champions(store, name).current()
    if current is None:
        raise UserError(f"{store.uri}/{name} has no champion.")
    return read_manifest(store, name, current.tenure.version)


@contextmanager
def _worker(
    keep: Path, cloud: EmbeddedCloud, settings: dict[str, str], reporter: Reporter
) -> Iterator["subprocess.Popen[bytes]"]:
    """Runs a worker. It is stopped while the emulator still runs, so that it can give its message back."""
    beat = keep / "heartbeat"
    beat.unlink(missing_ok=True)
    own = {"TWOFOLD_STOP_S": str(_GRACE_S), "TWOFOLD_HEARTBEAT": str(beat), "TWOFOLD_LOG_LEVEL": "WARNING"}
    worker = tether.start("worker", environment=os.environ | settings | own)
    try:
        with reporter.step("Starting the worker"):
            while not beat.exists():
                _check(cloud, worker)
                time.sleep(_POLL_S)
        yield worker
    finally:
        tether.end(worker, within_s=_STOP_S)


def _check(cloud: EmbeddedCloud, worker: "subprocess.Popen[bytes] | None") -> None:
    """Raises UserError if one of them has ended."""
    cloud.check()
    if worker is not None and worker.poll() is not None:
        raise UserError(f"The worker ended with exit status {worker.returncode}. The reason is printed above.")
