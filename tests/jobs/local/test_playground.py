"""``twofold local``: a bucket, queues, a model and a worker keep running, and their data is kept for the next start."""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import psutil  # type: ignore[import-untyped]
import pytest
from typer.testing import CliRunner

from jobs import folder_settings
from jobs.cli import main
from jobs.commands.app import app
from jobs.commands.local import _other_settings
from jobs.local.emulator import EmbeddedCloud
from jobs.local.playground import BUCKET, SAMPLE, claimed
from jobs.models.champion import Champions
from jobs.progress import Reporter
from jobs.store import FolderStore
from jobs.wording import program
from tests.conftest import REPOSITORY
from tests.jobs.models.versions import add_version


def free_port() -> int:
    """Returns a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _clients(environment: dict[str, str]) -> tuple[Any, Any]:
    session, endpoint = boto3.Session("test", "test", region_name="us-east-1"), environment["AWS_ENDPOINT_URL"]
    return session.client("s3", endpoint_url=endpoint), session.client("sqs", endpoint_url=endpoint)


def prepare(keep: Path, models: Path, digit_images: Path, port: int) -> None:
    """Makes the folder that a first start leaves, without the minute that training takes."""
    shutil.copytree(digit_images, keep / "images")
    with EmbeddedCloud(port=port, keep=keep / "cloud") as cloud:
        s3 = cloud.s3()
        s3.create_bucket(Bucket=BUCKET)
        for path in (path for path in (models / SAMPLE).rglob("*") if path.is_file()):
            s3.upload_file(str(path), BUCKET, f"models/{path.relative_to(models).as_posix()}")


@contextmanager
def left_running(command: list[str], **options: Any) -> Iterator[tuple["subprocess.Popen[str]", dict[str, Any]]]:
    """Yields the process and what it printed when it was ready. Ends it afterwards, by force if necessary."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.terminate()
            try:
                process.wait(90)
            except subprocess.TimeoutExpired:
                process.kill()


def family_of(process: "subprocess.Popen[Any]") -> list[psutil.Process]:
    """Returns all that a process has started, and what these have started."""
    return list(psutil.Process(process.pid).children(recursive=True))


def assert_ended(family: list[psutil.Process]) -> None:
    """Waits until these processes have ended, each by itself."""
    deadline = time.monotonic() + 60
    while alive := [process for process in family if _is_alive(process)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
def test_a_model_of_ones_own_is_served_and_served_again(models: Path, bundle: Path, tmp_path: Path) -> None:
    """A newer champion of the folder replaces it, and a start without --model goes on with it."""
    store = FolderStore(tmp_path / "models")
    add_version(store, bundle, "one", name="pets")
    Champions(store, "pets").set_champion("one", expected=None, how="first")
    options = ("--keep", str(tmp_path / "local"), "--port", str(free_port()), "--json")
    command = [sys.executable, "-m", "jobs.cli", "local", *options]
    with left_running([*command, "--model", store.uri], cwd=REPOSITORY) as (_, printed):
        assert printed["model"] == {"name": "pets", "version": "one", "labels": ["eight", "three"]}
        assert printed["environment"]["TWOFOLD_MODEL_URI"] == "s3://twofold/models/pets/champion.json"
        assert printed["images"] is None
    add_version(store, bundle, "two", name="pets")
    current = Champions(store, "pets").current()
    Champions(store, "pets").set_champion("two", expected=current, how="promoted")
    for model in (("--model", f"{store.uri}/pets"), (), ("--model", "s3://twofold/models/pets")):
        with left_running([*command, *model], cwd=REPOSITORY) as (_, printed):
            assert (printed["model"]["name"], printed["model"]["version"]) == ("pets", "two")


@pytest.mark.slow
def test_images_of_ones_own_are_trained_on_once_and_their_model_is_served(few_digits: Path, tmp_path: Path) -> None:
    """``--data`` trains first. Typed again, it serves the version that it has."""
    options = ("--data", str(few_digits), "--name", "pets", "--image-size", "32", "--json")
    places = ("--keep", str(tmp_path / "local"), "--port", str(free_port()))
    versions = []
    for _ in range(2):
        with left_running([sys.executable, "-m", "jobs.cli", "local", *options, *places], cwd=REPOSITORY) as (_, ready):
            assert (ready["model"]["name"], ready["model"]["labels"]) == ("pets", ["eight", "three"])
            assert ready["environment"]["TWOFOLD_MODEL_URI"] == "s3://twofold/models/pets/champion.json"
            versions.append(ready["model"]["version"])
    assert versions[0] == versions[1]
    assert [path.name for path in (tmp_path / "local/models/pets").glob("*/model.json")] == ["model.json"]


@pytest.mark.slow
def test_a_manifest_in_the_inbox_is_answered_and_the_data_survives_a_restart(
    models: Path, digit_images: Path, tmp_path: Path
) -> None:
    """The printed environment connects to it. It ends on Ctrl-C with exit status 0, and its state is kept."""
    port, keep = free_port(), tmp_path / "local"
    prepare(keep, models, digit_images, port)
    command = [sys.executable, "-m", "jobs.cli", "local", "--keep", str(keep), "--port", str(port), "--json"]
    with left_running(command, cwd=REPOSITORY, env=os.environ | {"TWOFOLD_QUEUE_URL": "nowhere"}) as (running, printed):
        assert printed["environment"]["AWS_ENDPOINT_URL"] == f"http://127.0.0.1:{port}"
        s3, _ = _clients(printed["environment"])
        s3.put_object(Bucket=BUCKET, Key="inbox/june.csv", Body=b"source_ref\nno URI\n")
        deadline = time.monotonic() + 60
        while not (found := s3.list_objects_v2(Bucket=BUCKET, Prefix="predictions/june").get("Contents", [])):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        assert running.wait(90) == 0
    with EmbeddedCloud(port=port, keep=keep / "cloud") as cloud:
        s3, sqs = _clients(cloud.environment)
        listed = s3.list_objects_v2(Bucket=BUCKET, Prefix="predictions/june")["Contents"]
        assert {item["Key"] for item in found} <= {item["Key"] for item in listed}
        assert printed["environment"]["TWOFOLD_QUEUE_URL"] in sqs.list_queues()["QueueUrls"]


def test_a_taken_port_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With exit status 1 and the option that chooses another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["local", "--keep", str(tmp_path), "--port", str(port)]) == 1
    message = f"Error: Port {port} is taken, perhaps by another '{program()} local'. Choose another with --port.\n"
    assert capsys.readouterr().err == message


def test_a_folder_keeps_its_port(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The settings that were written at the last start have it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "served.json").write_text(json.dumps({"model": "digits", "port": port}))
        assert main(["local", "--keep", str(tmp_path)]) == 1
    assert f"Port {port} is taken" in capsys.readouterr().err


def test_a_damaged_model_is_refused_before_anything_is_there(models: Path, tmp_path: Path) -> None:
    """No bucket, no queue, and no folder."""
    bundle = tmp_path / "models" / SAMPLE / "v1"
    shutil.copytree(models / SAMPLE / "v1", bundle)
    (bundle / "model.tflite").write_bytes(b"cut")
    options = ("--model", str(bundle), "--keep", str(tmp_path / "local"), "--port", str(free_port()))
    done = CliRunner().invoke(app, ["local", *options])
    assert "is not what training wrote: model.tflite" in str(done.exception)
    assert not (tmp_path / "local").exists()


def test_settings_that_were_not_replaced_are_said_to_be_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the model that answers then."""
    monkeypatch.chdir(tmp_path)
    assert _other_settings() == []
    model = {"TWOFOLD_MODEL_URI": "s3://twofold/models/pets/champion.json"}
    folder_settings.save(tmp_path, model, written_by="twofold local")
    (said,) = _other_settings()
    assert said.startswith("twofold.toml was not replaced. Without these exports, commands in this folder use its")
    assert said.endswith("settings, and their model pets.")


def test_a_folder_has_one_playground_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second one is refused, and says which process has the folder. Afterwards it is free again."""
    with claimed(tmp_path, Reporter(quiet=True)):
        assert main(["local", "--keep", str(tmp_path), "--port", str(free_port())]) == 1
    assert capsys.readouterr().err == (
        f"Error: {tmp_path} is in use by another '{program()} local', process {os.getpid()}. "
        "End it with Ctrl-C in its terminal, or choose another folder with --keep.\n"
    )
    with claimed(tmp_path, Reporter(quiet=True)):
        pass


def test_a_start_waits_for_the_emulator_of_one_that_was_killed(tmp_path: Path) -> None:
    """It shares the lock, and still stores its data."""
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    lock = (tmp_path / "lock").open("w+")
    fcntl.flock(lock, fcntl.LOCK_EX)
    lock.write(str(gone.pid))
    lock.flush()
    threading.Timer(0.3, lock.close).start()
    with claimed(tmp_path, Reporter(quiet=True)):
        assert lock.closed
    assert (tmp_path / "lock").read_text() == str(os.getpid())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "out", "--data", "pets"), "--data trains a model and --model names one"),
        (("--image-size", "96"), "--image-size is an option of training: add --data."),
        (("--model", "out", "--threshold", "max-f1"), "--threshold is an option of training: add --data."),
    ],
)
def test_options_that_do_not_fit_together_are_refused(arguments: tuple[str, ...], message: str) -> None:
    """Before anything is started, with exit status 2."""
    done = CliRunner().invoke(app, ["local", *arguments], env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert message in done.output


def test_a_model_that_is_not_there_is_reported_before_anything_starts(tmp_path: Path) -> None:
    """With where to look."""
    options = ("--model", str(tmp_path / "models/pets"), "--keep", str(tmp_path / "local"))
    done = CliRunner().invoke(app, ["local", *options, "--port", str(free_port())])
    assert f"No model or version at {tmp_path}/models/pets." in str(done.exception)
    assert not (tmp_path / "local/cloud").exists()
