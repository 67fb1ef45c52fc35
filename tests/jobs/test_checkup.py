"""``twofold doctor`` on a whole set-up and on broken ones."""

import functools
import itertools
import json
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from typer.testing import CliRunner

from jobs import checkup, store
from jobs.commands.app import app
from jobs.decoding import sandbox
from jobs.signals import Stopped
from tests.conftest import Bench
from tests.jobs.local.test_playground import free_port
from tests.worker.aws.one_answer import http, serving
from worker.aws.clients import open_session
from worker.aws.storage import Storage
from worker.errors import ErrorCode, Reject, Retry
from worker.scoring.limits import MIB, ImageLimits
from worker.scoring.sandbox import Sandbox

NAMES = ["versions", "settings", "cores", "credentials", "queue", "redrive policy", "output", "model", "score"]

#: Standard output is one of 80 columns and without colours.
TERMINAL = {"COLUMNS": "80", "TTY_COMPATIBLE": "1", "TERM": "dumb"}


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("TWOFOLD_SHARED", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def whole(bench: Bench, models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """Settings with which everything works."""
    _set(monkeypatch, bench, bench.put_bundle(models))
    yield bench
    assert not [key for key in bench.keys("predictions/") if "doctor" in key]  # whatever happened


@pytest.fixture
def set_up(ministack_bench: Bench, models: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """The same on one emulator, for what does not depend on it."""
    _set(monkeypatch, ministack_bench, ministack_bench.put_bundle(models))
    return ministack_bench


def _set(monkeypatch: pytest.MonkeyPatch, bench: Bench, model_uri: str) -> None:
    own = {
        "TWOFOLD_QUEUE_URL": bench.queues.requests_url,
        "TWOFOLD_OUTPUT_URI": bench.output_uri,
        "TWOFOLD_MODEL_URI": model_uri,
    }
    for name, value in (bench.environment | own).items():
        monkeypatch.setenv(name, value)
    for module in (checkup, store):  # a session reads the descriptions of services, which takes half of the time
        monkeypatch.setattr(module, "open_session", _session)


_session = functools.cache(open_session)


def _doctor() -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit status, and the checks by name; all of them, in order, and none without a next step if it needs one."""
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code in {0, 1}, (done.output, done.exception)
    document = json.loads(done.stdout)
    assert [check["name"] for check in document["checks"]] == NAMES
    assert all((check["advice"] is None) == (check["status"] == "ok") for check in document["checks"])
    assert (document["status"] == "fail") == (done.exit_code == 1)
    return done.exit_code, {check["name"]: check for check in document["checks"]}


def _statuses(checks: dict[str, dict[str, Any]], status: str) -> set[str]:
    return {name for name, check in checks.items() if check["status"] == status}


def test_a_whole_set_up_is_ok_on_every_line(whole: Bench) -> None:
    """Exit status 0, and nothing is left in the bucket or taken from the queue."""
    whole.send({"schema_version": 1, "job_id": "waits", "images": ["s3://a-bucket/a.jpg"]})
    status, checks = _doctor()
    assert (status, _statuses(checks, "ok")) == (0, set(NAMES)), checks
    assert "1 waiting" in checks["queue"]["found"]
    (message,) = whole.sqs.receive_message(
        QueueUrl=whole.queues.requests_url, MessageSystemAttributeNames=["ApproximateReceiveCount"]
    )["Messages"]
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"


def test_a_person_reads_one_line_for_each_check(set_up: Bench) -> None:
    """With its status first, and the sum last. It fits into the terminal."""
    done = CliRunner().invoke(app, ["doctor"], env=TERMINAL)
    starts = [line.split("  ")[0] for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert starts == ["ok"] * len(NAMES) + ["Everything works."]
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_what_is_missing_stays_in_its_column_and_every_line_is_whole_in_a_pipe() -> None:
    """A terminal of 80 columns breaks lines between words; a pipe has none."""
    misspelt = "TWOFOLD_" + "QUEUE_URI"
    shown = CliRunner().invoke(app, ["doctor"], env=TERMINAL | {misspelt: "x"}).stdout.splitlines()
    assert max(map(len, shown)) <= 80
    assert {line[:22].strip() for line in shown[1:-2] if not line.startswith(("ok", "warn", "fail"))} == {""}
    _, _, settings = " ".join(" ".join(shown).split()).partition("fail settings ")
    assert settings.startswith(
        f"TWOFOLD_QUEUE_URL (the request queue) is not set ({misspelt} is set: is that a misspelling?). "
        "It has the form https://sqs.REGION.amazonaws.com/ACCOUNT/QUEUE → Run "
    )
    piped = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "60"}).stdout.splitlines()
    _, checks = _doctor()
    assert f"fail  credentials     {checks['credentials']['found']}" in [line.rstrip() for line in piped]


def test_a_person_reads_each_next_step_once() -> None:
    """Where nothing is set, several checks have the same."""
    done = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "200"})
    steps = [line.strip() for line in done.stdout.splitlines() if "→" in line]
    assert len(steps) == len(set(steps)) == 3, done.stdout
    assert done.stdout.splitlines()[-1] == (
        "2 checks failed, 5 warnings. Training and models on this machine need none of this."
    )


def test_what_is_wrong_is_not_called_unneeded(set_up: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is not set at all."""
    monkeypatch.setenv("TWOFOLD_OUTPUT_URI", "s3://no-such-bucket-anywhere/predictions/")
    done = CliRunner().invoke(app, ["doctor"])
    assert done.stdout.splitlines()[-1] == "1 check failed, 0 warnings."


def test_without_any_setting_it_says_what_to_set_and_where_to_get_it() -> None:
    """A first set-up: nothing is set, and there are no credentials."""
    status, checks = _doctor()
    assert (status, _statuses(checks, "fail")) == (1, {"settings", "credentials"})
    assert "TWOFOLD_QUEUE_URL (the request queue) is not set" in checks["settings"]["found"]
    assert "twofold local" in checks["settings"]["advice"]
    assert "No AWS region" in checks["credentials"]["found"]
    assert checks["output"]["found"] == "not tried: AWS cannot be used"


def test_an_address_of_the_cloud_that_is_none_is_a_failure_like_any_other(
    set_up: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no traceback."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost")
    status, checks = _doctor()
    assert (status, _statuses(checks, "fail")) == (1, {"credentials"})
    assert "Invalid endpoint" in checks["credentials"]["found"]


def test_a_model_on_this_machine_is_checked_without_a_cloud(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs no credentials."""
    monkeypatch.setenv("TWOFOLD_MODEL_URI", str(models / "digits/champion.json"))
    _, checks = _doctor()
    assert (checks["model"]["status"], checks["score"]["status"]) == ("ok", "ok")
    assert checks["credentials"]["status"] == "fail"


def test_a_cloud_that_does_not_answer_is_one_failure_and_no_long_wait(
    set_up: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings of a ``twofold local`` that has ended."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    status, checks = _doctor()
    assert (status, _statuses(checks, "fail")) == (1, {"credentials"})
    assert "no response" in checks["credentials"]["found"]
    assert "local' running" in checks["credentials"]["advice"]


@pytest.mark.parametrize("answers", ["nothing", "another service"])
def test_a_service_that_cannot_say_who_one_is_keeps_nothing_else_from_being_tried(
    set_up: Bench, monkeypatch: pytest.MonkeyPatch, answers: str
) -> None:
    """A VPC with endpoints for S3 and SQS only, and servers that resemble these two: a worker runs there."""
    unknown = http(400, body=b"<ErrorResponse><Error><Code>InvalidAction</Code></Error></ErrorResponse>")
    with _only_sts(f"http://127.0.0.1:{free_port()}" if answers == "nothing" else unknown, monkeypatch):
        status, checks = _doctor()
    assert (status, _statuses(checks, "warn"), _statuses(checks, "fail")) == (0, {"credentials"}, set()), checks
    assert "who they belong to cannot be asked" in checks["credentials"]["found"]


def test_credentials_that_are_refused_fail(set_up: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """No emulator of the tests refuses any. Nothing else is tried."""
    refused = http(403, body=b"<ErrorResponse><Error><Code>InvalidClientTokenId</Code></Error></ErrorResponse>")
    with _only_sts(refused, monkeypatch):
        status, checks = _doctor()
    assert (status, _statuses(checks, "fail")) == (1, {"credentials"})
    assert "AWS does not know these keys" in checks["credentials"]["found"]
    assert checks["queue"]["found"] == "not tried: AWS cannot be used"


@contextmanager
def _only_sts(answer: str | bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Gives STS an address of its own: this one, or that of a server with this answer."""
    if isinstance(answer, str):
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", answer)
        yield
        return
    with pytest.MonkeyPatch.context() as patch, serving(answer, patch) as server:
        url = server.url
        patch.undo()  # the other services stay where they are
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
        yield


def test_dead_letters_are_counted_however_early_a_queue_gives_up(set_up: Bench) -> None:
    """One warning does not hide the other."""
    arn = set_up.sqs.get_queue_attributes(QueueUrl=set_up.queues.dead_letter_url, AttributeNames=["QueueArn"])
    policy = {"deadLetterTargetArn": arn["Attributes"]["QueueArn"], "maxReceiveCount": 3}
    set_up.sqs.set_queue_attributes(
        QueueUrl=set_up.queues.requests_url, Attributes={"RedrivePolicy": json.dumps(policy)}
    )
    set_up.sqs.send_message(QueueUrl=set_up.queues.dead_letter_url, MessageBody="refused")
    status, checks = _doctor()
    assert (status, _statuses(checks, "warn")) == (0, {"redrive policy"})
    assert "which has 1 message" in checks["redrive policy"]["found"]
    assert "set maxReceiveCount to 10" in checks["redrive policy"]["advice"]
    assert "batch status JOB" in checks["redrive policy"]["advice"]


def test_a_queue_without_a_redrive_policy_fails(set_up: Bench) -> None:
    """And one that gives up too early is a warning, as are dead letters."""
    url = set_up.queues.requests_url
    arn = set_up.sqs.get_queue_attributes(QueueUrl=set_up.queues.dead_letter_url, AttributeNames=["QueueArn"])
    policy = {"deadLetterTargetArn": arn["Attributes"]["QueueArn"], "maxReceiveCount": 3}
    set_up.sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": json.dumps(policy)})
    status, checks = _doctor()
    assert (status, _statuses(checks, "warn")) == (0, {"redrive policy"})
    assert "set maxReceiveCount to 10" in checks["redrive policy"]["advice"]
    bare = set_up.sqs.create_queue(QueueName=f"{set_up.bucket}-bare")["QueueUrl"]
    status, checks = _with_queue(bare)
    assert (status, _statuses(checks, "fail")) == (1, {"redrive policy"})
    assert "redrive policy with maxReceiveCount 10" in checks["redrive policy"]["advice"]


def _with_queue(url: str) -> tuple[int, dict[str, dict[str, Any]]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TWOFOLD_QUEUE_URL", url)
        return _doctor()


def test_a_queue_that_does_not_exist_fails(whole: Bench) -> None:
    """Its redrive policy cannot be read either, which is no failure of its own."""
    status, checks = _with_queue(f"{whole.queues.requests_url}-gone")
    assert (status, _statuses(checks, "fail"), _statuses(checks, "warn")) == (1, {"queue"}, {"redrive policy"})
    assert "TWOFOLD_QUEUE_URL" in checks["queue"]["advice"]


@pytest.mark.parametrize("url", ["foo", "htp:/foo", "https://sqs.eu-west-1.amazonaws.com"])
def test_the_address_of_a_queue_has_the_form_of_one(set_up: Bench, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """It is one of the settings that are wrong, next to any other."""
    monkeypatch.setenv("TWOFOLD_THREADS", "two")
    status, checks = _with_queue(url)
    assert (status, _statuses(checks, "fail")) == (1, {"settings"})
    form = "https://sqs.REGION.amazonaws.com/ACCOUNT/QUEUE"
    wrong = f"TWOFOLD_QUEUE_URL (the request queue) must have the form {form}, not '{url}'"
    assert checks["settings"]["found"].splitlines()[1] == wrong
    assert checks["settings"]["advice"] == "Correct it in twofold.toml or the environment."
    monkeypatch.delenv("TWOFOLD_THREADS")
    assert _with_queue(url)[1]["settings"]["found"] == wrong
    assert checks["queue"]["found"] == "not tried: TWOFOLD_QUEUE_URL is wrong"


def test_a_queue_at_another_server_or_in_another_region_fails(set_up: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK asks its own endpoint, and would find a queue of the same name there."""
    other = re.sub(r":\d+/", ":4999/", set_up.queues.requests_url)
    status, checks = _with_queue(other)
    assert (status, _statuses(checks, "fail")) == (1, {"queue"})
    assert re.fullmatch(
        r"TWOFOLD_QUEUE_URL is at .*:4999, and AWS_ENDPOINT_URL, which is asked, at .*", checks["queue"]["found"]
    )
    assert _with_queue(re.sub(r"//[^:]+:", "//localhost:", set_up.queues.requests_url))[0] == 0
    here = boto3.client("sqs", "us-east-1", endpoint_url="https://sqs.us-east-1.amazonaws.com")
    found = checkup._elsewhere("https://sqs.eu-west-1.amazonaws.com/123456789012/requests", here)
    assert found is not None
    assert found.found == "TWOFOLD_QUEUE_URL is in eu-west-1, and the region set here is us-east-1"
    for name in (
        "sqs.us-east-1.amazonaws.com",
        "us-east-1.queue.amazonaws.com",
        "vpce-1.sqs.us-east-1.vpce.amazonaws.com",
    ):
        assert checkup._elsewhere(f"https://{name}/123456789012/requests", here) is None


def test_an_output_that_cannot_be_written_fails(set_up: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bucket does not exist."""
    monkeypatch.setenv("TWOFOLD_OUTPUT_URI", "s3://no-such-bucket-anywhere/predictions/")
    status, checks = _doctor()
    assert (status, _statuses(checks, "fail")) == (1, {"output"})
    assert checks["output"]["advice"] == "Create the bucket, or correct TWOFOLD_OUTPUT_URI."
    assert checks["output"]["found"].endswith(" (not_found)")


def test_an_output_that_ignores_conditions_fails(set_up: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As some servers that resemble S3 do. No emulator of the tests does."""
    write = Storage._put_if
    monkeypatch.setattr(Storage, "_put_if", lambda self, uri, body, kind, **_: write(self, uri, body, kind))
    status, checks = _doctor()
    assert (status, _statuses(checks, "fail")) == (1, {"output"})
    assert "If-None-Match" in checks["output"]["found"]


def test_what_cannot_be_removed_is_named(set_up: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's own role may delete nothing. No emulator of the tests enforces that."""

    def refuse(_: Storage, uri: str) -> None:
        raise Reject(ErrorCode.ACCESS_DENIED, f"{uri}: AccessDenied")

    monkeypatch.setattr(Storage, "remove", refuse)
    status, checks = _doctor()
    (left,) = set_up.keys("predictions/")
    assert (status, _statuses(checks, "warn")) == (0, {"output"})
    assert f"Delete s3://{set_up.bucket}/{left} yourself" in checks["output"]["advice"]


@pytest.mark.parametrize("lost", [1, 2])
def test_nothing_is_left_where_a_write_fails(set_up: Bench, monkeypatch: pytest.MonkeyPatch, lost: int) -> None:
    """The first was done and its answer is lost, or the second meets a storage that is away."""
    _failing_write(monkeypatch, lost, Retry(ErrorCode.UNAVAILABLE, "SlowDown"))
    status, checks = _doctor()
    assert (status, _statuses(checks, "fail")) == (1, {"output"})
    assert set_up.keys("predictions/") == []


def test_what_a_failed_write_leaves_is_named(set_up: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Storage went away in between."""
    away = Retry(ErrorCode.UNAVAILABLE, "SlowDown")
    _failing_write(monkeypatch, 2, away)

    def refuse(_: Storage, _uri: str) -> None:
        raise away

    monkeypatch.setattr(Storage, "remove", refuse)
    _, checks = _doctor()
    (left,) = set_up.keys("predictions/")
    assert checks["output"]["status"] == "fail"
    assert f"Delete s3://{set_up.bucket}/{left} if it is there." in checks["output"]["advice"]


def test_nothing_is_left_after_ctrl_c_between_the_writes(set_up: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command ends, and the object is gone."""
    _failing_write(monkeypatch, 2, Stopped(signal.SIGINT))
    with pytest.raises(Stopped):
        list(checkup.examine())
    assert set_up.keys("predictions/") == []


def _failing_write(monkeypatch: pytest.MonkeyPatch, which: int, error: BaseException) -> None:
    """Makes the first or second conditional write raise, after it is done."""
    write, calls = Storage.write_once, itertools.count(1)

    def failing(self: Storage, uri: str, body: bytes, **options: Any) -> bool:
        done = write(self, uri, body, **options)
        if next(calls) == which:
            raise error
        return done

    monkeypatch.setattr(Storage, "write_once", failing)


@pytest.mark.parametrize(("file", "fails"), [("model.tflite", {"model", "score"}), ("report.html", {"model"})])
def test_a_model_with_an_altered_file_fails(set_up: Bench, file: str, fails: set[str]) -> None:
    """A model whose graph is altered does not score either."""
    key = f"models/digits/v1/{file}"
    body = bytearray(set_up.get(f"s3://{set_up.bucket}/{key}"))
    body[len(body) // 2] ^= 1
    set_up.put(key, bytes(body))
    status, checks = _doctor()
    assert (status, _statuses(checks, "fail")) == (1, fails)
    assert f"{file}: altered" in checks["model"]["found"]
    if "score" in fails:
        assert checks["score"]["found"] == "the model cannot be opened: see above"


def test_a_model_that_is_not_there_fails(set_up: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the commands that put one there."""
    monkeypatch.setenv("TWOFOLD_MODEL_URI", f"s3://{set_up.bucket}/models/cats/champion.json")
    status, checks = _doctor()
    assert (status, _statuses(checks, "fail")) == (1, {"model"})
    assert "twofold train run" in checks["model"]["advice"]


@pytest.mark.parametrize("name", ["models/digits", "models/digits/champion.json/", "models"])
def test_a_name_under_which_no_worker_finds_the_model_fails(
    set_up: Bench, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Commands find a model by its folder, and by that of all models. A worker does not look."""
    monkeypatch.setenv("TWOFOLD_MODEL_URI", f"s3://{set_up.bucket}/{name}")
    status, checks = _doctor()
    assert (status, _statuses(checks, "fail")) == (1, {"model"})
    assert checks["model"]["advice"].endswith(
        f"Name its champion.json: s3://{set_up.bucket}/models/digits/champion.json"
    )


def test_a_worker_starts_with_exactly_the_names_that_are_ok(set_up: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same settings, in a real worker."""
    for name, expected in (("models/digits", 1), ("models/digits/v1/model.json", 0)):
        monkeypatch.setenv("TWOFOLD_MODEL_URI", f"s3://{set_up.bucket}/{name}")
        worker = set_up.start_worker("--drain")
        _, log = worker.communicate(timeout=120)
        assert (worker.returncode, _doctor()[0]) == (expected, expected), log


def test_a_bundle_that_only_a_worker_can_use_is_a_warning(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was copied to a folder with another name, where other commands do not take it for that version."""
    shutil.copytree(next(models.glob("digits/v*")), "copied")
    monkeypatch.setenv("TWOFOLD_MODEL_URI", str(Path("copied").absolute()))
    _, checks = _doctor()
    assert (checks["model"]["status"], checks["score"]["status"]) == ("warn", "ok"), checks


def test_a_picture_is_scored_within_the_limits_of_the_settings(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With limits that no picture meets, a worker could answer none."""
    asked = []

    def noted(limits: ImageLimits) -> Sandbox:
        asked.append(limits)
        return sandbox(limits)

    monkeypatch.setattr(checkup, "sandbox", noted)
    monkeypatch.setenv("TWOFOLD_MODEL_URI", str(models / "digits/champion.json"))
    monkeypatch.setenv("TWOFOLD_IMAGE_CPU_S", "2")
    monkeypatch.setenv("TWOFOLD_IMAGE_MEMORY_MIB", "64")
    _, checks = _doctor()
    assert (checks["score"]["status"], asked) == ("ok", [ImageLimits(cpu_s=2, wall_s=30, memory_bytes=64 * MIB)])


def test_a_variable_that_is_no_setting_is_a_warning(set_up: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so are more processes than cores."""
    misspelt = "TWOFOLD_" + "HEARTBEATS"
    monkeypatch.setenv(misspelt, "/tmp/beat")
    monkeypatch.setenv("TWOFOLD_THREADS", "1000")
    status, checks = _doctor()
    assert (status, _statuses(checks, "warn")) == (0, {"settings", "cores"})
    assert f"{misspelt} (did you mean TWOFOLD_HEARTBEAT?)" in checks["settings"]["found"]


def test_a_wrong_setting_does_not_hide_what_works(set_up: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are used as they are."""
    monkeypatch.setenv("TWOFOLD_STOP_S", "soon")
    status, checks = _doctor()
    assert (status, _statuses(checks, "fail")) == (1, {"settings"})
    assert "TWOFOLD_STOP_S" in checks["settings"]["found"]


def test_the_settings_of_the_folder_are_used(set_up: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in ``twofold batch``."""
    monkeypatch.delenv("TWOFOLD_QUEUE_URL")
    Path("twofold.toml").write_text(f'TWOFOLD_QUEUE_URL = "{set_up.queues.requests_url}"\n')
    status, checks = _doctor()
    monkeypatch.delenv("TWOFOLD_QUEUE_URL", raising=False)
    assert (status, _statuses(checks, "ok")) == (0, set(NAMES)), checks
