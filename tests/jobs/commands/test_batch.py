"""``twofold batch``: a folder or a list in, a table out, over real queues and buckets."""

import csv
import io
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.batch.dead_letters import DeadLetters
from jobs.cli import main
from jobs.local.emulator import send_inbox_to
from tests.conftest import REPOSITORY, Bench
from tests.desk import Desk
from worker.consumer import Consumer, Stop
from worker.contract import Summary
from worker.predictions import from_csv

Twofold = Callable[..., tuple[int, str]]
Work = Callable[[], None]


@pytest.fixture
def endpoint(request: pytest.FixtureRequest) -> str:
    """One emulator, unless a test asks for each: most of what is tested here lies above storage and queues."""
    url: str = request.getfixturevalue(getattr(request, "param", "ministack"))
    return url


@pytest.fixture
def twofold(bench: Bench, desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Twofold:
    """The command, in this process: its exit status, and what it wrote; messages too, where it failed."""
    settings = {"QUEUE_URL": bench.queues.requests_url, "OUTPUT_URI": bench.output_uri}
    settings["MODEL_URI"] = f"s3://{bench.bucket}/models/digits/champion.json"
    for name, value in (bench.environment | {f"TWOFOLD_{key}": value for key, value in settings.items()}).items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        before = signal.getsignal(signal.SIGTERM)
        try:
            status = main(["batch", *arguments])
        except SystemExit as error:
            status = int(error.code or 0)
        finally:
            signal.signal(signal.SIGTERM, before)
        said = capsys.readouterr()
        return status, said.out if status == 0 else said.out + said.err

    return run


@pytest.fixture
def work(bench: Bench, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Work:
    """A worker's loop in this process, until the queue is empty."""

    def run() -> None:
        consumer = Consumer(queue=bench.queue(monkeypatch), dispatch=desk.dispatch, stop=Stop(grace_s=9))
        consumer.run(drain=True)

    return run


def _folder(digit_images: Path, tmp_path: Path, count: int) -> Path:
    """A folder with so many pictures, one of them damaged."""
    folder = tmp_path / "photos"
    (folder / "deep down").mkdir(parents=True)
    for number, path in enumerate(sorted(digit_images.rglob("*.png"))[:: 300 // count][:count]):
        shutil.copy(path, folder / ("deep down" if number % 2 else "") / f"{number:03} é+%.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n, and then nothing")
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


def _table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))


@pytest.mark.parametrize("endpoint", ["ministack", "moto"], indirect=True)
def test_a_folder_becomes_a_table_and_what_failed_is_mended(
    twofold: Twofold, work: Work, digit_images: Path, tmp_path: Path
) -> None:
    """Submit, worker, status, results; then the damaged file is put right, redriven, and in its place."""
    folder = _folder(digit_images, tmp_path, 10)
    status, said = twofold("submit", str(folder), "--json")
    assert status == 0, said
    job_id = json.loads(said)["job_id"]
    assert job_id.startswith("photos-")
    assert json.loads(twofold("status", job_id, "--json")[1])["state"] == "running"
    work()
    state = json.loads(twofold("status", job_id, "--json")[1])
    assert (state["state"], state["scored"], state["failed"]) == ("complete", 10, 1)
    assert state["errors"] == {"damaged": 1}

    out = tmp_path / "out.csv"
    status, said = twofold("results", job_id, "--join", "-o", str(out))
    assert "11 rows = 10 scored + 1 with an error code" in said
    rows = _table(out)
    assert [row["file"] for row in rows] == sorted(row["file"] for row in rows)
    assert {row["file"] for row in rows if row["error_code"]} == {"broken.png"}

    shutil.copy(next(digit_images.rglob("*.png")), folder / "broken.png")
    assert "has failed with these codes" in twofold("redrive", job_id, "--only", "empty", "--only", "not_found")[1]
    status, said = twofold("redrive", job_id, "--only", "damaged", "--json")
    assert json.loads(said) == {"job_id": job_id, "images": 1, "redrive_id": f"{job_id}-r1", "requests": 0}
    work()
    twofold("results", job_id, "--join", "-o", str(out))
    mended = _table(out)
    assert [row["error_code"] for row in mended] == [""] * 11
    assert [row["file"] for row in mended] == [row["file"] for row in rows]
    assert [row["row"] for row in mended] == [str(number) for number in range(11)]
    assert twofold("redrive", job_id)[1] == f"No image of {job_id} has failed.\n"


def test_the_same_command_again_asks_for_nothing_again(
    bench: Bench, twofold: Twofold, work: Work, digit_images: Path, tmp_path: Path
) -> None:
    """No file is uploaded twice, no message is sent twice; with another threshold it is another job."""
    folder = _folder(digit_images, tmp_path, 4)
    first = twofold("submit", str(folder))[1]
    uploaded = {item["Key"]: item["LastModified"] for item in _uploads(bench)}
    assert len(uploaded) == 5
    assert "All requests were sent before" in twofold("submit", str(folder))[1]
    assert {item["Key"]: item["LastModified"] for item in _uploads(bench)} == uploaded
    work()
    assert "All requests were sent before" in twofold("submit", str(folder))[1]
    assert "1 requests sent" in twofold("submit", str(folder), "--threshold", "0.9")[1]
    assert "1 requests sent" in first


def _uploads(bench: Bench) -> list[dict[str, str]]:
    return list(bench.s3.list_objects_v2(Bucket=bench.bucket, Prefix="predictions/_uploads/").get("Contents", ()))


def test_a_dry_run_does_nothing(bench: Bench, twofold: Twofold, digit_images: Path, tmp_path: Path) -> None:
    """It tells count, time and cost, and what they assume."""
    before = bench.keys("")
    status, said = twofold("submit", str(_folder(digit_images, tmp_path, 4)), "--dry-run", "--json")
    estimate = json.loads(said)
    assert (status, estimate["images"], estimate["parts"]) == (0, 5, 1)
    assert estimate["cost_usd"] > 0
    assert "us-east-1" in estimate["assumes"]
    assert bench.keys("") == before


def test_another_list_under_a_name_that_is_taken_is_refused(twofold: Twofold, tmp_path: Path) -> None:
    """With the next step, and exit status 1."""
    for number, expected in enumerate((0, 1)):
        path = tmp_path / f"{number}.csv"
        path.write_text(f"source_ref\ns3://a-bucket/{number}.jpg\n")
        status, said = twofold("submit", str(path), "--job-id", "june")
        assert status == expected
    assert "choose another job_id" in said


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nowhere", "nowhere is not a file, a folder or an s3:// URI"),
        ("empty", "No images to submit among the 1 files in empty"),
        ("notes.txt", "the first line is 'buy milk"),
        ("s3://BUCKET/none.csv", "no such object"),
        ("s3://BUCKET/none/", "no images"),
    ],
)
def test_a_source_that_is_none_is_refused_in_words(
    bench: Bench, twofold: Twofold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, said: str
) -> None:
    """And nothing is sent."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.md").write_text("no picture")
    (tmp_path / "notes.txt").write_text("buy milk\n")
    monkeypatch.chdir(tmp_path)
    status, message = twofold("submit", source.replace("BUCKET", bench.bucket))
    assert status == 1
    assert said in message
    assert "Traceback" not in message


def test_a_prefix_is_listed_by_patterns(bench: Bench, desk: Desk, twofold: Twofold) -> None:
    """What is meant of it, in order; what jobs wrote is no picture."""
    for name in (
        "in/b.jpg",
        "in/a.jpg",
        "in/deep/c.jpg",
        "in/deep/thumb-c.jpg",
        "in/list.csv",
        "in/",
        "predictions/x.jpg",
    ):
        bench.put(name, b"x")
    twofold("submit", f"s3://{bench.bucket}/", "--include", "in/*.jpg", "--exclude", "*/thumb-*", "--job-id", "listed")
    asked = [line["source-ref"] for line in map(json.loads, bench.get(desk.folder("listed").shard(0)).splitlines())]
    assert asked == [f"s3://{bench.bucket}/in/{name}" for name in ("a.jpg", "b.jpg", "deep/c.jpg")]


def test_a_list_on_this_machine_may_name_files_beside_it(
    bench: Bench, desk: Desk, twofold: Twofold, work: Work, digit_images: Path, tmp_path: Path
) -> None:
    """They are uploaded, if their names are those of pictures; its other columns come along, and the order stays."""
    (tmp_path / "id_rsa").write_text("a secret")
    shutil.copy(next(digit_images.rglob("*.png")), tmp_path / "rex, the dog.png")
    (tmp_path / "list.csv").write_text(
        'name,source_ref\nRex,"rex, the dog.png"\nNobody,gone.png\nFar,s3://a-bucket/x.png\nKey,id_rsa\n'
    )
    twofold("submit", str(tmp_path / "list.csv"), "--job-id", "list")
    work()
    out = tmp_path / "out.csv"
    status, said = twofold("results", "list", "--join", "-o", str(out))
    assert status == 0, said
    rows = _table(out)
    assert [(row["name"], row["error_code"]) for row in rows] == [
        ("Rex", ""),
        ("Nobody", "bad_source_ref"),
        ("Far", "not_allowed"),
        ("Key", "bad_source_ref"),
    ]
    assert rows[0]["source_ref"].endswith("/rex, the dog.png")
    assert len(_uploads(bench)) == 1


def test_a_cancelled_job_ends_and_says_so(bench: Bench, twofold: Twofold, work: Work, tmp_path: Path) -> None:
    """Its messages are dropped; what is missing is named."""
    (tmp_path / "list.csv").write_text("source_ref\n" + "no URI\n" * 600)
    twofold("submit", str(tmp_path / "list.csv"), "--job-id", "june")
    assert "0 of 600 images have a row" in twofold("cancel", "june")[1]
    work()
    state = json.loads(twofold("status", "june", "--json")[1])
    assert (state["state"], state["done"], state["waiting"]) == ("cancelled", 0, 600)
    status, said = twofold("status", "june", "--watch")
    assert (status, "cancelled" in said) == (1, True)
    assert twofold("results", "june")[0] == 1
    status, said = twofold("submit", str(tmp_path / "list.csv"), "--job-id", "june")
    assert (status, "was cancelled: choose another" in said) == (1, True)
    assert bench.dead_letters() == []


@pytest.mark.parametrize("endpoint", ["ministack", "moto"], indirect=True)
def test_refused_requests_are_told_and_asked_for_again(
    bench: Bench, twofold: Twofold, work: Work, digit_images: Path, tmp_path: Path
) -> None:
    """A model that was altered: every part is refused with its reason; put right and redriven, the job is complete."""
    graph = f"s3://{bench.bucket}/models/digits/v1/model.tflite"
    whole = bench.get(graph)
    bench.put("models/digits/v1/model.tflite", whole[:-1])
    bench.send("<html>")  # somebody else's letter, which stays where it is
    (tmp_path / "list.csv").write_text("source_ref\n" + "no URI\n" * 600)
    twofold("submit", str(tmp_path / "list.csv"), "--job-id", "june")
    work()
    for _ in range(2):  # to look is to leave it as it is
        state = json.loads(twofold("status", "june", "--json")[1])
        assert state["state"] == "stuck"
        assert [one["shard"] for one in sorted(state["refused"], key=lambda one: one["shard"])] == [0, 1]
        assert {one["error_code"] for one in state["refused"]} == {"bad_model"}
    bench.put("models/digits/v1/model.tflite", whole)
    assert json.loads(twofold("redrive", "june", "--json")[1])["requests"] == 2
    work()
    assert json.loads(twofold("status", "june", "--json")[1])["state"] == "complete"
    assert [letter["Body"] for letter in bench.dead_letters()] == ["<html>"]


def test_status_lists_all_jobs_and_knows_none_that_is_not(twofold: Twofold, work: Work, tmp_path: Path) -> None:
    """Newest first."""
    assert "No jobs yet" in twofold("status")[1]
    for name in ("june", "july"):
        (tmp_path / "list.csv").write_text(f"source_ref\nno URI for {name}\n")
        twofold("submit", str(tmp_path / "list.csv"), "--job-id", name)
    assert [(job["job_id"], job["complete"]) for job in json.loads(twofold("status", "--json")[1])] == [
        ("july", False),
        ("june", False),
    ]
    work()
    assert [job["complete"] for job in json.loads(twofold("status", "--json")[1])] == [True, True]
    status, said = twofold("status", "august")
    assert status == 1
    assert "No job named august in s3://" in said


def test_a_manifest_in_the_inbox_is_a_job(bench: Bench, desk: Desk, work: Work) -> None:
    """Through the bucket's own notice, whatever its name; the test event that comes first is acknowledged."""
    send_inbox_to(bench.s3, bench.sqs, bucket=bench.bucket, queue_url=bench.queues.requests_url)
    bench.put("inbox/my list +é.csv", b"source_ref\nno URI\n")
    work()
    (summary,) = [
        Summary.model_validate_json(bench.get(f"s3://{bench.bucket}/{key}"))
        for key in bench.keys("predictions/")
        if key.endswith("summary.json")
    ]
    assert summary.job_id.startswith("my-list")
    assert summary.rows == 1
    assert bench.dead_letters() == []


#: Starts the command in a forked child, again and again, and kills it after a random time; then lets it end.
KILLER = """
import os, random, signal, sys, time
from jobs import cli
from jobs.batch import submission
from worker.scoring.models import pinned
arguments, random_ = sys.argv[1:], random.Random(4)
def start():
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            cli.main(arguments)
        except SystemExit as ended:
            os._exit(ended.code or 0)
        os._exit(1)
    return child
for number in range(20):
    child = start()
    time.sleep(random_.uniform(0.0, 0.9))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(os.waitpid(start(), 0)[1]))
"""


@pytest.mark.slow
def test_a_submit_killed_at_random_instants_and_typed_again_asks_for_each_image_once(
    bench: Bench, desk: Desk, twofold: Twofold, work: Work, digit_images: Path, tmp_path: Path
) -> None:
    """20 times: the same shards, a part for each, and one row for each image."""
    folder = _folder(digit_images, tmp_path, 20)
    refs = [f"no URI {number}" for number in range(6000)]
    (tmp_path / "list.csv").write_text("\n".join(["source_ref", *refs]))
    done = subprocess.run(
        [sys.executable, "-c", KILLER, "batch", "submit", str(folder), str(tmp_path / "list.csv"), "--job-id", "june"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout == "0\n", done.stderr
    assert len(bench.keys("predictions/june/shards/")) == 13
    work()
    rows = [row for number in range(13) for row in from_csv(bench.get(desk.folder("june").part(number)))]
    assert [row.row for row in rows] == list(range(6021))
    assert [row.source_ref for row in rows[21:]] == refs
    assert len(bench.keys("predictions/june/predictions/")) == 13
    assert len(_uploads(bench)) == 21
    assert json.loads(twofold("status", "june", "--json")[1])["state"] == "complete"
    assert bench.dead_letters() == []
    assert len(desk.notices) == 1


def test_the_page_of_a_job_needs_nothing_else_and_runs_nothing(
    bench: Bench, twofold: Twofold, work: Work, digit_images: Path, tmp_path: Path
) -> None:
    """One file: counts, the spread of scores, images, errors; and a name that is a script stays a name."""
    folder = _folder(digit_images, tmp_path, 20)
    evil = "<script>alert(1)</script>.png"
    (tmp_path / "list.jsonl").write_text(json.dumps({"source-ref": evil}) + "\n")
    twofold("submit", str(folder), str(tmp_path / "list.jsonl"), "--job-id", "june")
    work()
    page = tmp_path / "june.html"
    status, said = twofold("report", "june", "-o", str(page))
    assert status == 0, said
    html = page.read_text(encoding="utf-8")
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert not [word for word in ("http://", "https://", "url(", "@import") if word in html]
    assert html.count("data:image/jpeg;base64,") >= 20
    assert "population stability index" in html
    for code in ("damaged", "bad_source_ref"):
        assert f"<code>{code}</code>" in html


def test_looking_at_dead_letters_leaves_them_as_they_are(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, and whatever they hold: all of them can be received afterwards."""
    bodies = [json.dumps({"schema_version": 1, "job_id": f"job-{n % 2}", "images": ["a"]}) for n in range(23)]
    for body in [*bodies, "<html>"]:
        bench.sqs.send_message(QueueUrl=bench.queues.dead_letter_url, MessageBody=body)
    letters = DeadLetters(sqs=bench.sqs, url=bench.queues.dead_letter_url)
    for _ in range(2):
        assert len(letters.of("job-0")) == 12
        assert len(letters.of("job-1")) == 11
    name = "ApproximateNumberOfMessages"
    answer = bench.sqs.get_queue_attributes(QueueUrl=bench.queues.dead_letter_url, AttributeNames=[name])
    assert answer["Attributes"][name] == "24"


@pytest.mark.parametrize("command", ["submit", "status", "results", "redrive", "cancel", "report"])
def test_every_command_shows_an_example(twofold: Twofold, command: str) -> None:
    """With --help."""
    status, said = twofold(command, "--help")
    assert status == 0
    assert f"Example: twofold batch {command}" in said


@pytest.mark.parametrize(
    ("variable", "said"),
    [("TWOFOLD_OUTPUT_URI", "set TWOFOLD_OUTPUT_URI"), ("TWOFOLD_QUEUE_URL", "Set TWOFOLD_QUEUE_URL")],
)
def test_a_setting_that_is_missing_is_named(
    twofold: Twofold, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, said: str
) -> None:
    """With the next step."""
    monkeypatch.delenv(variable)
    (tmp_path / "list.csv").write_text("source_ref\ns3://a-bucket/x.jpg\n")
    status, message = twofold("submit", str(tmp_path / "list.csv"))
    assert status == 1
    assert said in message
