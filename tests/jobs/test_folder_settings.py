"""``twofold.toml``: written once, and read by the commands of its folder; and what they say if a setting is missing."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import folder_settings
from jobs.cli import main
from jobs.commands import batch
from jobs.user_error import UserError
from jobs.wording import program
from tests.conftest import REPOSITORY, Bench
from tests.console import on_terminal
from worker.errors import ErrorCode, Retry
from worker.settings import WorkerSettings

SETTINGS = {"TWOFOLD_QUEUE_URL": "http://127.0.0.1:4566/000000000000/requests", "AWS_REGION": "us-east-1"}
OUTPUT = "TWOFOLD_OUTPUT_URI"
NAMES = [f"TWOFOLD_{field.upper()}" for field in WorkerSettings.model_fields]


@pytest.fixture
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and no setting of Twofold or AWS."""
    for name in os.environ:
        if name.startswith(("TWOFOLD_", "AWS_")):
            monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@given(st.dictionaries(st.sampled_from(NAMES), st.text(st.characters(exclude_categories=["Cs"]), min_size=1)))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str]) -> None:
    """Whatever the values are."""
    folder = tmp_path_factory.getbasetemp() / "written"  # none of the tests runs in it, or in a folder below
    folder.mkdir(exist_ok=True)
    folder_settings.save(folder, settings, written_by="twofold local")
    assert folder_settings.read(folder) == settings


def test_only_the_user_can_read_the_file(tmp_path: Path) -> None:
    """It may hold keys. No draft stays next to it."""
    path = folder_settings.save(tmp_path, SETTINGS, written_by="twofold local")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["twofold.toml"]
    assert "# Written by 'twofold local'." in path.read_text()


def test_the_environment_wins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty variable counts as unset, and the command says which values are not those of the file."""
    folder_settings.save(tmp_path, SETTINGS, written_by="twofold local")
    environment = {"TWOFOLD_QUEUE_URL": "https://another", "AWS_REGION": ""}
    folder_settings.apply(tmp_path, environment)
    assert environment == {"TWOFOLD_QUEUE_URL": "https://another", "AWS_REGION": "us-east-1"}
    assert capsys.readouterr().err == "Settings: twofold.toml, but TWOFOLD_QUEUE_URL from the environment\n"


def test_without_a_file_nothing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor set."""
    environment: dict[str, str] = {}
    folder_settings.apply(tmp_path, environment)
    assert (environment, capsys.readouterr().err) == ({}, "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("TWOFOLD_" + 'QUEU_URL = "x"', "is not a setting. Did you mean TWOFOLD_QUEUE_URL?"),
        ('PATH = "x"', "PATH is not a setting."),
        ('TWOFOLD_QUEUE_URL = ["x"]', "must be a text in quotes"),
        ("TWOFOLD_QUEUE_URL = x", "cannot be read"),
        ("\xff", "cannot be read"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path: Path, text: str, words: str) -> None:
    """By its name, and with a suggestion for a typo. No other variable of a program can be set with it."""
    (tmp_path / "twofold.toml").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=words.replace("?", r"\?")) as caught:
        folder_settings.read(tmp_path)
    assert "twofold.toml" in str(caught.value)


def test_a_command_reads_the_file_of_its_folder(ministack_bench: Bench, nothing_set: Path) -> None:
    """With nothing exported at all."""
    settings = ministack_bench.environment | {
        "TWOFOLD_QUEUE_URL": ministack_bench.queues.requests_url,
        "TWOFOLD_OUTPUT_URI": ministack_bench.output_uri,
    }
    folder_settings.save(nothing_set, settings, written_by="twofold local")
    command = [sys.executable, "-m", "jobs.cli", "batch", "status"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=nothing_set, env=environment, capture_output=True, text=True, check=True)
    assert "No jobs yet" in done.stdout
    assert done.stderr == "Settings: twofold.toml\n"


_OFFER = "from jobs.folder_settings import offer; print(offer({'AWS_REGION': 'eu-west-1'}, written_by='twofold local'))"


@pytest.mark.parametrize(("typed", "written"), [("\n", True), ("y\n", True), ("n\n", False)])
def test_the_file_is_offered_on_a_terminal(nothing_set: Path, typed: str, written: bool) -> None:  # noqa: FBT001
    """Enter accepts."""
    status, shown = on_terminal(sys.executable, "-c", _OFFER, typed=typed, folder=nothing_set)
    assert (status, "Write these settings to twofold.toml?" in shown) == (0, True)
    assert folder_settings.read(nothing_set) == ({"AWS_REGION": "eu-west-1"} if written else {})


def test_an_answer_that_is_no_answer_is_asked_for_again(nothing_set: Path) -> None:
    """With what to type."""
    status, shown = on_terminal(sys.executable, "-c", _OFFER, typed="ja\ny\n", folder=nothing_set)
    assert (status, shown.count("Type y or n.\nWrite these settings to twofold.toml? [Y/n]: ")) == (0, 1), shown
    assert folder_settings.read(nothing_set) == {"AWS_REGION": "eu-west-1"}


def test_nothing_is_asked_where_nobody_can_answer(nothing_set: Path) -> None:
    """A script must not wait, and finds no file that it did not ask for."""
    assert folder_settings.offer(SETTINGS, written_by="twofold local") is False
    assert list(nothing_set.iterdir()) == []


def test_nothing_is_asked_where_the_file_has_the_settings(nothing_set: Path) -> None:
    """At the second start of the same emulator."""
    folder_settings.save(nothing_set, SETTINGS, written_by="twofold local")
    assert folder_settings.offer(SETTINGS, written_by="twofold local") is True


def _error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 1
    return capsys.readouterr().err


def test_all_missing_settings_are_named_at_once(nothing_set: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the line to paste, and where to get all of them without pasting."""
    error = _error(capsys, "batch", "submit", "photos")
    for name in ("TWOFOLD_QUEUE_URL", "TWOFOLD_OUTPUT_URI", "AWS_REGION", "AWS_PROFILE"):
        assert name in error
    assert "  export TWOFOLD_QUEUE_URL=https://sqs.REGION.amazonaws.com/ACCOUNT/QUEUE\n" in error
    assert "  export TWOFOLD_OUTPUT_URI=s3://BUCKET/predictions/\n" in error
    assert f"  {program()} local " in error
    assert "on this machine, in another terminal\n" in error
    assert f"  {program()} cloud deploy " in error


def test_in_a_folder_below_that_of_the_settings_the_way_there_is_what_is_said(
    nothing_set: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And no list of variables, which nobody needs there."""
    below = nothing_set / "photos/my june"
    below.mkdir(parents=True)
    folder_settings.save(nothing_set, SETTINGS, written_by="twofold local")
    monkeypatch.chdir(below)
    assert _error(capsys, "batch", "status") == (
        "Error: Settings are missing: there is no twofold.toml in this folder, but there is one above it. "
        f"Go there first:\n  cd {nothing_set}\n"
    )
    folder_settings.save(below, {"AWS_REGION": "us-east-1"}, written_by="twofold local")
    assert "These settings are missing:" in _error(capsys, "batch", "status")


def test_one_missing_setting_is_named_alone(
    nothing_set: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a variable that looks like a misspelling of it."""
    for name, value in {
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TWOFOLD_QUEUE_URL", "http://127.0.0.1:9/000000000000/requests")
    misspelt = "TWOFOLD_" + "OUTPUT_URL"
    monkeypatch.setenv(misspelt, "s3://shelter/predictions/")
    error = _error(capsys, "batch", "status")
    assert "This setting is missing:" in error
    assert f"({misspelt} is set: is that a misspelling?)" in error
    assert "TWOFOLD_QUEUE_URL" not in error


def test_a_wrong_output_is_explained_by_its_setting(nothing_set: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whether it is an option or a variable."""
    with pytest.raises(SystemExit) as ended:
        main(["batch", "status", "--output", "predictions"])
    wrong = "must be s3://BUCKET or s3://BUCKET/KEY, not 'predictions'"
    assert (ended.value.code, f"Error: --output {wrong}\n" in capsys.readouterr().err) == (2, True)


@pytest.fixture
def stale(nothing_set: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The file of a ``twofold local`` that has ended. Returns the address of its emulator."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
    settings = SETTINGS | {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    folder_settings.save(nothing_set, settings | {OUTPUT: "s3://twofold/predictions/"}, written_by="twofold local")
    for name in (*settings, OUTPUT):
        monkeypatch.setenv(name, "")  # which counts as unset, and is what is put back
    return endpoint


@pytest.mark.parametrize(
    "command",
    [
        "batch submit .",
        "batch status",
        "batch results june",
        "batch redrive june",
        "model list s3://twofold/models/pets",
    ],
)
def test_an_emulator_that_no_longer_runs_is_said_in_one_sentence(
    stale: str, nothing_set: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """And what to do about it: the settings of ``twofold local`` outlive it."""
    assert _error(capsys, *command.split()) == (
        "Settings: twofold.toml\n"
        f"Error: The emulator of twofold.toml does not answer at {stale}. If you are done with it, remove "
        f"{nothing_set / 'twofold.toml'}. If not, start it in another terminal:\n  {program()} local\n"
    )


def test_a_job_goes_on_when_its_emulator_is_closed_while_someone_waits(stale: str, nothing_set: Path) -> None:
    """And it is said how to wait for it again."""
    folder_settings.apply(nothing_set)
    with pytest.raises(UserError) as caught, batch._as_waiting("june"):
        raise Retry(ErrorCode.UNAVAILABLE, f"s3://twofold/predictions/june/job.json: Could not connect to {stale}")
    assert str(caught.value) == (
        f"The emulator of twofold.toml does not answer at {stale}. Start it in another terminal:\n  {program()} local\n"
        f"The job then goes on. To wait for it again:\n  {program()} batch status june --watch"
    )


def test_any_command_says_that_its_emulator_was_closed(
    stale: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also in the middle of its work."""

    def cut(*_: object, **__: object) -> None:
        raise Retry(ErrorCode.UNAVAILABLE, "Could not connect")

    monkeypatch.setattr("jobs.batch.client.BatchClient.open", cut)
    assert f"The emulator of twofold.toml does not answer at {stale}." in _error(capsys, "batch", "status")


def test_a_folder_needs_no_emulator(stale: str, nothing_set: Path) -> None:
    """A model can be trained and looked at on this machine while ``twofold local`` does not run."""
    assert main(["model", "list", str(nothing_set)]) == 1  # it has no models
    assert folder_settings.read(nothing_set)["AWS_ENDPOINT_URL"] == stale


def test_an_emulator_of_the_environment_is_named_by_its_variable(
    stale: str, nothing_set: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where nothing was written."""
    for name, value in folder_settings.read(nothing_set).items():
        monkeypatch.setenv(name, value)
    (nothing_set / "twofold.toml").unlink()
    assert _error(capsys, "batch", "status") == (
        f"Error: The emulator of AWS_ENDPOINT_URL does not answer at {stale}. If you are done with it, unset "
        f"AWS_ENDPOINT_URL. If not, start it in another terminal:\n  {program()} local\n"
    )


@pytest.mark.parametrize("endpoint", ["", "localhost", "http://[", "http://192.0.2.1:9", "https://s3.amazonaws.com"])
def test_any_other_address_is_left_to_the_sdk(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """What is not on this machine may take its time to answer."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    folder_settings.check_emulator()
