"""``twofold batch``: a folder or a list in, a table out, with real queues and buckets."""

import csv
import io
import json
import re
import shutil
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from jobs.batch.dead_letters import DeadLetters
from jobs.local.emulator import send_inbox_to
from jobs.wording import program
from tests.conftest import Bench
from tests.console import on_terminal
from tests.desk import ON_BOTH_EMULATORS, Desk
from tests.jobs.commands.conftest import Twofold, Work
from tests.jobs.report.strict_html import Page
from worker.batch.job_folder import JobFolder
from worker.contract import Summary


@pytest.fixture
def endpoint(request: pytest.FixtureRequest) -> str:
    """One emulator, unless a test is about what queues guarantee."""
    url: str = request.getfixturevalue(getattr(request, "param", "ministack"))
    return url


def _folder(digit_images: Path, tmp_path: Path, count: int) -> Path:
    """A folder with this many images and a damaged one."""
    folder = tmp_path / "photos"
    (folder / "deep down").mkdir(parents=True)
    for number, path in enumerate(sorted(digit_images.rglob("*.png"))[:: 300 // count][:count]):
        shutil.copy(path, folder / ("deep down" if number % 2 else "") / f"{number:03} é+%.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n, and then nothing")
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


def _table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))


def test_a_folder_becomes_a_table_and_a_failed_image_is_redriven(
    twofold: Twofold, work: Work, digit_images: Path, tmp_path: Path
) -> None:
    """Submit, work, status, results. Then the damaged file is repaired and redriven, and its row is in its place."""
    folder = _folder(digit_images, tmp_path, 10)
    status, output = twofold("submit", str(folder), "--json")
    assert status == 0, output
    job_id = json.loads(output)["job_id"]
    assert job_id.startswith("photos-")
    assert json.loads(twofold("status", job_id, "--json")[1])["state"] == "waiting"
    work()
    found = json.loads(twofold("status", job_id, "--json")[1])
    assert (found["state"], found["scored"], found["failed"]) == ("complete with failures", 10, 1)
    assert found["errors"] == {"damaged": 1}

    out = tmp_path / "out.csv"
    status, output = twofold("results", job_id, "-o", str(out))
    assert "11 rows = 10 scored + 1 with an error code" in output
    skipped = f"2 files were skipped at submit and have no row: see '{program()} batch status {job_id}'."
    assert output.splitlines()[1] == skipped
    rows = _table(out)
    assert [row["file"] for row in rows] == sorted(row["file"] for row in rows)
    assert {row["file"] for row in rows if row["error_code"]} == {"broken.png"}

    shutil.copy(next(digit_images.rglob("*.png")), folder / "broken.png")
    assert "has failed with these codes" in twofold("redrive", job_id, "--only", "empty", "--only", "not_found")[1]
    status, output = twofold("redrive", job_id, "--only", "damaged", "--json")
    sent = {"job_id": job_id, "images": 1, "redrive_id": f"{job_id}-r1", "requests": 0, "left_out": {}}
    assert json.loads(output) == sent
    work()
    twofold("results", job_id, "-o", str(out), "--force")
    redriven = _table(out)
    assert [row["error_code"] for row in redriven] == [""] * 11
    assert [row["file"] for row in redriven] == [row["file"] for row in rows]
    assert [row["row"] for row in redriven] == [str(number) for number in range(11)]
    assert twofold("redrive", job_id)[1] == f"No image of {job_id} has failed.\n"


def test_the_same_command_again_sends_nothing(
    bench: Bench, twofold: Twofold, work: Work, digit_images: Path, tmp_path: Path
) -> None:
    """No file is uploaded twice and no message is sent twice. With another threshold it is another job."""
    folder = _folder(digit_images, tmp_path, 4)
    first = twofold("submit", str(folder))[1]
    uploaded = {item["Key"]: item["LastModified"] for item in _uploads(bench)}
    assert len(uploaded) == 5
    assert "All requests had already been sent" in twofold("submit", str(folder))[1]
    assert {item["Key"]: item["LastModified"] for item in _uploads(bench)} == uploaded
    work()
    assert "All requests had already been sent" in twofold("submit", str(folder))[1]
    assert "1 request sent" in twofold("submit", str(folder), "--threshold", "0.9")[1]
    assert "1 request sent" in first


@ON_BOTH_EMULATORS
def test_an_empty_file_stops_neither_the_next_submit_nor_a_redrive(
    twofold: Twofold, work: Work, digit_images: Path, tmp_path: Path
) -> None:
    """It is uploaded like any other, its row says that it is empty, and a file that was mended is redriven."""
    folder = _folder(digit_images, tmp_path, 2)
    (folder / "broken.png").write_bytes(b"")
    for threshold in ("0.5", "0.5", "0.6"):
        status, output = twofold("submit", str(folder), "--job-id", f"at-{threshold}", "--threshold", threshold)
        assert status == 0, output
    work()
    assert json.loads(twofold("status", "at-0.5", "--json")[1])["errors"] == {"empty": 1}
    shutil.copy(next(digit_images.rglob("*.png")), folder / "broken.png")
    assert json.loads(twofold("redrive", "at-0.5", "--json")[1])["left_out"] == {}
    work()
    assert twofold("redrive", "at-0.5")[1] == "No image of at-0.5 has failed.\n"


def _uploads(bench: Bench) -> list[dict[str, str]]:
    return list(bench.s3.list_objects_v2(Bucket=bench.bucket, Prefix="predictions/_uploads/").get("Contents", ()))


def test_a_dry_run_does_nothing(bench: Bench, twofold: Twofold, digit_images: Path, tmp_path: Path) -> None:
    """It prints the number of images, the time and the cost, and what they assume."""
    before = bench.keys("")
    status, output = twofold("submit", str(_folder(digit_images, tmp_path, 4)), "--dry-run", "--json")
    estimate = json.loads(output)
    assert (status, estimate["images"], estimate["parts"]) == (0, 5, 1)
    assert (estimate["cost_usd"], estimate["assumes"]) == (None, None)  # an emulator costs nothing
    assert bench.keys("") == before


def test_another_list_with_the_same_job_id_is_refused(twofold: Twofold, tmp_path: Path) -> None:
    """The message says what to do next, and the exit status is 1."""
    for number, expected in enumerate((0, 1)):
        path = tmp_path / f"{number}.csv"
        path.write_text(f"source_ref\ns3://a-bucket/{number}.jpg\n")
        status, output = twofold("submit", str(path), "--job-id", "june")
        assert status == expected
    assert "choose another --job-id" in output


def test_a_source_that_cannot_be_read_is_refused_with_the_reason(
    bench: Bench, twofold: Twofold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is sent."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "hollow").mkdir()
    (tmp_path / "empty" / "readme.md").write_text("not an image")
    (tmp_path / "notes.txt").write_text("buy milk\n")
    monkeypatch.chdir(tmp_path)
    for source, reason in {
        "nowhere": "nowhere is not a file, a folder or an s3:// URI",
        "empty": "no images to submit in empty. The only file there is skipped:\n  1 not an image: readme.md\n",
        "notes.txt": "notes.txt is neither an image nor a list of images: expected a CSV",
        "./notes.txt": "the first line is 'buy milk",
        "hollow": "There are no images to submit in hollow: the folder is empty.",
        f"s3://{bench.bucket}/none.csv": "no such object",
        f"s3://{bench.bucket}/none/": "no images",
    }.items():
        status, message = twofold("submit", source)
        assert (status, reason in message) == (1, True), message
        assert "Traceback" not in message
    assert bench.keys("predictions/") == []


def test_patterns_choose_from_a_prefix(bench: Bench, desk: Desk, twofold: Twofold) -> None:
    """Only the names that match are taken, in order. What jobs wrote is not an image."""
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


def test_a_local_list_may_name_files_next_to_it(
    bench: Bench, desk: Desk, twofold: Twofold, work: Work, digit_images: Path, tmp_path: Path
) -> None:
    """They are uploaded if they have an image suffix. The list's columns and order are kept."""
    (tmp_path / "id_rsa").write_text("a secret")
    shutil.copy(next(digit_images.rglob("*.png")), tmp_path / "rex, the dog.png")
    (tmp_path / "list.csv").write_text(
        'name,source_ref\nRex,"rex, the dog.png"\nNobody,gone.png\nFar,s3://a-bucket/x.png\nKey,id_rsa\n'
    )
    twofold("submit", str(tmp_path / "list.csv"), "--job-id", "list")
    work()
    out = tmp_path / "out.csv"
    status, output = twofold("results", "list", "--join", "-o", str(out))
    assert status == 0, output
    rows = _table(out)
    assert [(row["name"], row["error_code"]) for row in rows] == [
        ("Rex", ""),
        ("Nobody", "not_found"),
        ("Far", "not_allowed"),
        ("Key", "bad_source_ref"),
    ]
    assert [row["file"] for row in rows] == ["rex, the dog.png", "gone.png", "", "id_rsa"]
    assert rows[0]["source_ref"].endswith("/rex, the dog.png")
    assert len(_uploads(bench)) == 1


def test_a_cancelled_job_stays_incomplete(bench: Bench, twofold: Twofold, work: Work, tmp_path: Path) -> None:
    """Its messages are dropped, and the results name what is missing."""
    (tmp_path / "list.csv").write_text("source_ref\n" + "no URI\n" * 600)
    twofold("submit", str(tmp_path / "list.csv"), "--job-id", "june")
    assert "june is cancelled: 0 of 600 images have a row" in twofold("cancel", "june")[1]
    work()
    found = json.loads(twofold("status", "june", "--json")[1])
    assert (found["state"], found["done"], found["waiting"]) == ("cancelled", 0, 600)
    status, output = twofold("status", "june", "--watch")
    assert (status, "cancelled" in output, "a second" in output) == (1, True, False)
    assert "  dropped     600, in 2 parts\n" in output
    read = f"{program()} batch results june --partial"
    assert output.endswith(f"Submit the same again to go on, or read what is there:\n  {read}\n")
    again = "june is cancelled. Submit the same again to go on"
    status, output = twofold("results", "june")
    assert (status, f"{again}, or add --partial for the rows it has." in output) == (1, True), output
    status, output = twofold("redrive", "june")
    assert (status, f"{again}." in output, "--partial" in output) == (1, True, False), output
    assert bench.dead_letters() == []


@ON_BOTH_EMULATORS
def test_refused_requests_are_shown_and_sent_again(
    bench: Bench, twofold: Twofold, work: Work, digit_images: Path, tmp_path: Path
) -> None:
    """While the model is damaged, every part is refused with the reason. After a repair and a redrive, it completes."""
    graph = f"s3://{bench.bucket}/models/digits/v1/model.tflite"
    intact = bench.get(graph)
    bench.send("<html>")  # a message of another job, which must stay
    (tmp_path / "list.csv").write_text("source_ref\n" + "no URI\n" * 600)
    twofold("submit", str(tmp_path / "list.csv"), "--job-id", "june")
    bench.put("models/digits/v1/model.tflite", intact[:-1])
    work()
    for _ in range(2):  # reading the messages must not remove them
        status, output = twofold("status", "june", "--json")
        found = json.loads(output)
        assert (status, found["state"]) == (1, "stuck")
        assert [one["shard"] for one in sorted(found["refused"], key=lambda one: one["shard"])] == [0, 1]
        assert {one["error_code"] for one in found["refused"]} == {"bad_model"}
    bench.put("models/digits/v1/model.tflite", intact)
    assert json.loads(twofold("redrive", "june", "--json")[1])["requests"] == 2
    work()
    status, output = twofold("status", "june", "--json")  # every reference is no URI
    assert (status, json.loads(output)["state"]) == (1, "complete with failures")
    assert [letter["Body"] for letter in bench.dead_letters()] == ["<html>"]


@ON_BOTH_EMULATORS
def test_a_request_whose_workers_were_lost_is_shown_and_sent_again(
    bench: Bench, twofold: Twofold, work: Work, digit_images: Path
) -> None:
    """SQS moves its message without a reason. One command sends it again, though its job has no folder yet."""
    image = bench.put("in/a.png", next(digit_images.rglob("*.png")).read_bytes())
    bench.send({"schema_version": 1, "job_id": "june", "images": [image]})
    for _ in range(11):  # ten lost workers, and the receive that finds no more
        bench.sqs.receive_message(QueueUrl=bench.queues.requests_url, VisibilityTimeout=0)
    found = json.loads(twofold("status", "june", "--json")[1])
    (refused,) = found["refused"]
    assert (found["state"], refused["error_code"]) == ("stuck", "unavailable")
    assert refused["error_message"].startswith("ended by repeated worker loss")
    assert json.loads(twofold("redrive", "june", "--json")[1])["requests"] == 1
    work()
    assert json.loads(twofold("status", "june", "--json")[1])["state"] == "complete"
    assert bench.dead_letters() == []
    assert "No image of june has failed" in twofold("redrive", "june")[1]


def test_a_job_whose_requests_are_gone_is_stuck(
    bench: Bench, twofold: Twofold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have expired, or someone emptied the queue. While there is one, or the job is new, it may go on."""
    (tmp_path / "list.csv").write_text("source_ref\nno URI\n")
    twofold("submit", str(tmp_path / "list.csv"), "--job-id", "june")
    monkeypatch.setattr("jobs.batch.status._QUIET", timedelta())
    assert json.loads(twofold("status", "june", "--json")[1])["state"] == "waiting"
    (message,) = bench.sqs.receive_message(QueueUrl=bench.queues.requests_url)["Messages"]
    assert json.loads(twofold("status", "june", "--json")[1])["state"] == "waiting"  # a worker has it
    bench.sqs.delete_message(QueueUrl=bench.queues.requests_url, ReceiptHandle=message["ReceiptHandle"])
    status, output = twofold("status", "june")
    assert (status, output.splitlines()[0]) == (1, "june: stuck")
    assert "the queue holds no request any more" in output
    assert [job["state"] for job in json.loads(twofold("status", "--json")[1])] == ["stuck"]
    monkeypatch.setattr("jobs.batch.status._QUIET", timedelta(minutes=5))
    assert json.loads(twofold("status", "june", "--json")[1])["state"] == "waiting"


def test_results_complete_a_job_that_no_worker_completed(
    bench: Bench, desk: Desk, twofold: Twofold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They say so, and write the rows."""
    monkeypatch.setattr("jobs.batch.closing._PATIENCE", timedelta())
    desk.planner.submit(desk.plan(["no URI"] * 3, job_id="june"))
    desk.handle(desk.sent[0])
    bench.s3.delete_object(Bucket=bench.bucket, Key="predictions/june/_SUCCESS")
    status, output = twofold("results", "june", "-o", str(tmp_path / "june.csv"))
    assert (status, "3 rows = 0 scored" in output) == (1, True)
    assert len(_table(tmp_path / "june.csv")) == 3
    assert "predictions/june/_SUCCESS" in bench.keys("predictions/june/")
    bench.s3.delete_object(Bucket=bench.bucket, Key="predictions/june/_SUCCESS")
    assert "this command completed the job" in twofold("status", "june", "--json")[1]


def test_status_without_a_job_lists_all_jobs(desk: Desk, twofold: Twofold) -> None:
    """A job that does not exist is an error."""
    assert "No jobs yet" in twofold("status")[1]
    desk.plan(["no URI"], job_id="june")
    assert [(job["job_id"], job["state"]) for job in json.loads(twofold("status", "--json")[1])] == [
        ("june", "waiting")
    ]
    assert "june" in twofold("status")[1]
    status, message = twofold("status", "august")
    assert (status, "No job named august in s3://" in message) == (1, True)
    status, message = twofold("status", "--watch")
    assert (status, "--watch: name the job to wait for" in message) == (2, True), message


def test_a_manifest_in_the_inbox_is_a_job(
    bench: Bench, desk: Desk, work: Work, twofold: Twofold, tmp_path: Path
) -> None:
    """The bucket sends an event, whatever the name of the file. It can be asked for by that name, also if refused."""
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
    for name in ("my list +é.csv", "inbox/my list +é.csv", f"s3://{bench.bucket}/inbox/my list +é.csv"):
        assert json.loads(twofold("status", name, "--json")[1])["job_id"] == summary.job_id
    out = tmp_path / "out.csv"
    assert "1 row = 0 scored" in twofold("results", "my list +é.csv", "-o", str(out))[1]
    assert len(_table(out)) == 1
    assert "No job named my list +é.json" in twofold("status", "my list +é.json")[1]
    bench.put("inbox/no list.csv", b"buy milk")
    work()
    status, output = twofold("status", "no list.csv")
    assert (status, re.search(r"^no-list-[0-9a-f]{8}: stuck$", output, re.MULTILINE) is not None) == (1, True), output
    assert "the job: bad_manifest" in output
    assert "the first line is 'buy milk'" in output
    bench.put("inbox/my list +é.csv", b"source_ref\nno other URI\n")
    work()
    status, output = twofold("status", "my list +é.csv")
    assert (status, "my list +é.csv has become 2 jobs: my-list-" in output) == (1, True)


def test_a_name_that_no_job_has_brings_up_the_ones_that_are_nearly_it(desk: Desk, twofold: Twofold) -> None:
    """With every command: the beginning of a name, or a misspelling of it."""
    desk.plan(["no URI"], job_id="volunteer-2f91045a")
    names = {"status": "volunteer", "results": "Volunteer-2f9", "report": "voluntear", "redrive": "volunteer-2f91054a"}
    names["cancel"] = "volunt"
    for subcommand, name in names.items():
        status, output = twofold(subcommand, name)
        assert (status, f"No job named {name} in s3://" in output) == (1, True), output
        assert "Did you mean volunteer-2f91045a?" in output
    for job_id in ("june-r1", "june"):
        desk.plan(["no URI"], job_id=job_id)
    assert "Did you mean june or june-r1?" in twofold("status", "jun")[1]  # the job before its redrive
    assert "Did you mean" not in twofold("status", "may")[1]


WIDE = "a-rather-long-name-of-a-job-that-is-wider-than-a-terminal-together-with-the-rest-2f91045a"


def test_status_shows_full_names_and_every_state_in_a_terminal_of_80_columns_and_in_a_pipe(
    bench: Bench, desk: Desk, twofold: Twofold, digit_images: Path
) -> None:
    """No line of the terminal is wider than it, but for a name that is; in a pipe, each job has one line."""
    image = bench.put("in/a.png", next(digit_images.rglob("*.png")).read_bytes())
    for job_id, refs in {"volunteer-2f91045a": [image, "no URI"], "june": [image], "may": [image]}.items():
        desk.planner.submit(desk.plan(refs, job_id=job_id))
    for request in desk.sent[:2]:
        desk.handle(request)
    piped = twofold("status")[1].splitlines()
    assert [line.split("  ")[0] for line in piped[1:]] == ["may", "june", "volunteer-2f91045a"]
    assert [re.sub(" +", " ", line)[:-17] for line in piped[1:]] == [
        "may waiting 1 0",
        "june complete 1 0",
        "volunteer-2f91045a complete with failures 2 1",
    ]
    command = [sys.executable, "-m", "jobs.cli", "batch", "status"]
    desk.plan(["no URI"], job_id=WIDE)
    status, shown = on_terminal(*command, environment=bench.environment | _settings(bench))
    assert (status, shown.splitlines()[2]) == (0, WIDE)
    assert max(len(line) for line in shown.splitlines() if line != WIDE) <= 80
    assert [line for line in twofold("status")[1].splitlines() if line.startswith(f"{WIDE}  waiting ")]
    status, shown = on_terminal(*command, "volunteer-2f91045a", environment=bench.environment | _settings(bench))
    assert max(map(len, shown.splitlines())) <= 80
    assert "volunteer-2f91045a: complete with failures" in shown


def _settings(bench: Bench) -> dict[str, str]:
    return {"TWOFOLD_QUEUE_URL": bench.queues.requests_url, "TWOFOLD_OUTPUT_URI": bench.output_uri}


def test_a_job_whose_rows_all_failed_is_not_simply_complete(
    twofold: Twofold, work: Work, digit_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its status exits with 1 and says so, with --watch too, and so do its results. One score is enough for 0."""
    (tmp_path / "list.csv").write_text("source_ref\nno URI\nno URI\n")
    twofold("submit", str(tmp_path / "list.csv"), "--job-id", "june")
    work()
    for options in ((), ("--watch",)):
        status, output = twofold("status", "june", *options)
        assert (status, output.splitlines()[0]) == (1, "june: complete with failures")
        why = f"No image could be scored. To see which and why:\n  {program()} batch results june\n"
        assert output.endswith(f"{why}Correct the list, and submit it as a job of its own.\n")
    status, output = twofold("results", "june", "-o", str(tmp_path / "june.csv"))
    assert (status, "2 rows = 0 scored + 2 with an error code" in output) == (1, True)
    monkeypatch.chdir(tmp_path)  # where june.csv is in the way of the same command
    assert f"  {program()} batch results june --force\n" in twofold("status", "june")[1]
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(next(digit_images.rglob("*.png")), folder / "a.png")
    (folder / "b.png").write_bytes(b"no image")
    twofold("submit", str(folder), "--job-id", "july")
    work()
    status, output = twofold("status", "july", "--watch")
    assert (status, output.splitlines()[0]) == (0, "july: complete with failures")
    assert "Some images have no score" in output


def test_rows_on_a_terminal_are_not_mixed_with_the_progress(
    bench: Bench, desk: Desk, twofold: Twofold, digit_images: Path
) -> None:
    """The sum follows them, and what to type next. The status of a complete job says how to have its table."""
    image = bench.put("in/a.png", next(digit_images.rglob("*.png")).read_bytes())
    desk.planner.submit(desk.plan([image], job_id="june"))
    desk.handle(desk.sent[0])
    command = [sys.executable, "-m", "jobs.cli", "batch", "results", "june", "-o", "-"]
    status, shown = on_terminal(*command, environment=bench.environment | _settings(bench))
    lines = shown.splitlines()
    assert (status, lines[0].startswith("row,source_ref,"), len(lines)) == (0, True, 5), shown
    assert lines[2:] == [
        "1 row = 1 scored + 0 with an error code.",
        "For a page with counts and sample images:",
        f"  {program()} batch report june",
    ]
    shown = twofold("status", "june")[1]
    assert shown.endswith(f"To write the table:\n  {program()} batch results june\n"), shown


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("-o", "june.xlsx"), "must end in .csv or .parquet, not in .xlsx. Excel opens CSV files: -o june.csv --excel"),
        (("-o", "june"), "june: the name of the file must end in .csv or .parquet, and this one has no ending."),
        (("-o", "tables/june.csv"), "There is no folder tables for june.csv. Create it"),
        (("-o", "."), ". is a folder. Name a file with -o, such as results.csv."),
        (("-o", "folder.csv"), "folder.csv is a folder. Name a file with -o, such as folder.csv/results.csv."),
        (("-o", "june.parquet", "--excel"), "--excel is for CSV files, and june.parquet is not one."),
        ((), "june.csv exists already. Add --force to replace it, or choose another file with -o."),
    ],
)
def test_results_that_cannot_be_written_are_refused_before_anything_is_read(
    command: Twofold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], reason: str
) -> None:
    """There are no settings either, which would be the next to be missing. What is there stays."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "june.csv").write_text("my notes")
    (tmp_path / "folder.csv").mkdir()
    status, output = command("results", "june", *options)
    assert (status, reason in output) == (1, True), output
    assert (tmp_path / "june.csv").read_text() == "my notes"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.csv", "june.csv"]


def test_no_command_has_both_output_and_out(command: Twofold) -> None:
    """``--output`` is the prefix of all jobs; a file is named by -o or --file, and a mix-up is explained."""
    for name in ("submit", "status", "results", "redrive", "cancel", "report"):
        assert re.search(r"--out\b", command(name, "--help")[1]) is None
    for name in ("results", "report"):
        status, output = command(name, "june", "--output", "june.csv")
        assert (status, "Name the file with -o june.csv" in output) == (2, True), output


def test_a_mistake_in_an_option_is_described_without_the_words_of_libraries(
    command: Twofold, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was given, what is allowed, and what was probably meant."""
    status, output = command("redrive", "june", "--only", "not_fuond")
    wrong = "--only must be an error_code, as in the column of that name, not 'not_fuond'. Did you mean not_found?"
    assert (status, wrong in output) == (2, True), output
    for arguments, reason in {
        ("submit", ".", "--job-id", "a b"): "--job-id must be 1 to 128 letters, digits, '.', '_' or '-'",
        ("submit", ".", "--output", "out"): "--output must be s3://BUCKET or s3://BUCKET/KEY, not 'out'",
    }.items():
        status, output = command(*arguments)
        assert (status, reason in output, "TWOFOLD_" in output) == (2, True, False), output
    monkeypatch.setenv("TWOFOLD_NOTIFY_ARN", "topic")
    status, output = command("status", "june")
    assert (status, "must be the ARN of an SNS topic or of an EventBridge bus, not 'topic'" in output) == (2, True)


def test_results_that_break_off_leave_no_file(
    bench: Bench, twofold: Twofold, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two parts was altered: neither half a table nor half a page is there, and an older one is whole."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.csv").write_text("source_ref\n" + "no URI\n" * 600)
    twofold("submit", "list.csv", "--job-id", "june")
    work()
    key = "predictions/june/parts/part-00001.csv"
    metadata = bench.s3.head_object(Bucket=bench.bucket, Key=key)["Metadata"]
    bench.s3.put_object(Bucket=bench.bucket, Key=key, Body=b"altered", Metadata=metadata)
    (tmp_path / "old.csv").write_text("older")
    for arguments in (("results", "june"), ("results", "june", "-o", "old.csv", "--force"), ("report", "june")):
        status, output = twofold(*arguments)
        assert (status, "is not the file that the worker wrote" in output) == (1, True), output
    assert {path.name: path.read_text() for path in tmp_path.iterdir() if path.name != "list.csv"} == {
        "old.csv": "older"
    }


def test_the_report_of_a_job_is_one_page_without_scripts(
    bench: Bench, twofold: Twofold, work: Work, digit_images: Path, tmp_path: Path
) -> None:
    """It has counts, scores, images and errors, and loads nothing. A file name that looks like a script is shown."""
    folder = _folder(digit_images, tmp_path, 20)
    evil = "<script>alert(1)</script>.png"
    (tmp_path / "list.jsonl").write_text(json.dumps({"source-ref": evil}) + "\n")
    twofold("submit", str(folder), str(tmp_path / "list.jsonl"), "--job-id", "june")
    work()
    page = tmp_path / "june.html"
    status, output = twofold("report", "june", "-o", str(page))
    assert status == 0, output
    html = page.read_text(encoding="utf-8")
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert not [word for word in ("http://", "https://", "url(", "@import") if word in html]
    assert html.count("data:image/jpeg;base64,") >= 20
    assert "population stability index" in html
    for code in ("damaged", "not_found"):
        assert f"<code>{code}</code>" in html


def _report(twofold: Twofold, page: Path, *options: str) -> Page:
    status, output = twofold("report", "june", "-o", str(page), *options)
    assert status == 0, output
    return Page(page.read_text(encoding="utf-8"))


def test_the_report_of_a_job_makes_sense_from_the_first_to_the_last_row(
    twofold: Twofold, work: Work, tmp_path: Path, digit_images: Path
) -> None:
    """Without rows, with only failures, and with one answer after a redrive: said at the top, by the files' names."""
    folder = tmp_path / "photos"
    (folder / "deep down").mkdir(parents=True)
    for name in ("broken.png", "deep down/broken.png"):
        (folder / name).write_bytes(b"\x89PNG\r\n\x1a\n, and then nothing: " + name.encode())
    assert twofold("submit", str(folder), "--job-id", "june")[0] == 0
    page = tmp_path / "june.html"
    empty = _report(twofold, page, "--partial")
    assert (
        "No image of this job has a row yet. This job is not complete: 0 of 2 images have a row so far." in empty.text
    )
    assert list(empty.all("svg")) == []
    work()
    status, output = twofold("report", "june", "-o", str(page))
    assert (status, f"{page} exists already. Add --force to replace it" in output) == (1, True)
    assert "has a row yet" in page.read_text()
    failed = _report(twofold, page, "--force")
    assert "None of the 2 images could be scored. This job has no answers, only error codes." in failed.text
    assert "then redrive. broken.png deep down/broken.png" in failed.text
    assert re.search("[0-9a-f]{64}", failed.html) is None
    shutil.copy(next((digit_images / "three").iterdir()), folder / "deep down/broken.png")
    assert twofold("redrive", "june")[0] == 0
    work()
    one = _report(twofold, page, "--force")
    assert "1 of 2 images is scored: three. 1 image could not be scored." in one.text
    assert {(e.attributes["class"], e.text) for e in one.all("bdi") if e.text in {"eight", "three"}} == {
        *(("zero", "eight"), ("one", "three"))  # as in the training report, also of the class that has no image
    }
    assert [(e.text, e.attributes["title"]) for e in one.all("bdi") if e.attributes["class"] == "caption"] == [
        ("broken.png", "deep down/broken.png")
    ]


def test_a_report_that_has_nowhere_to_go_is_refused_before_anything_is_read(twofold: Twofold, tmp_path: Path) -> None:
    """There is no such job either, which it would take a request to find out."""
    status, output = twofold("report", "june", "-o", str(tmp_path / "reports/june.html"))
    assert (status, f"There is no folder {tmp_path / 'reports'} for june.html." in output) == (1, True)
    status, output = twofold("report", "june", "-o", "june.pdf")
    assert (status, "june.pdf must end in .html or .htm." in output) == (2, True), output
    assert "write june.html and print it from the browser" in output


def test_a_cancelled_job_without_rows_says_so(twofold: Twofold, digit_images: Path, tmp_path: Path) -> None:
    """And that it will never have any."""
    twofold("submit", str(next(digit_images.rglob("*.png"))), "--job-id", "june")
    twofold("cancel", "june")
    text = _report(twofold, tmp_path / "june.html", "--partial").text
    assert "This job was cancelled: 0 of 1 image has a row, and no more will follow." in text


def test_a_report_is_not_compared_with_the_test_images_of_another_version(
    bench: Bench, twofold: Twofold, work: Work, digit_images: Path, tmp_path: Path
) -> None:
    """A bundle that was replaced since says nothing about the rows that were scored before."""
    for label in ("eight", "three"):
        shutil.copy(next((digit_images / label).iterdir()), tmp_path / f"{label}.png")
    twofold("submit", str(tmp_path), "--job-id", "june")
    work()
    assert "the model’s 72 test images" in _report(twofold, tmp_path / "june.html").text  # noqa: RUF001
    uri = json.loads(bench.get(f"{bench.output_uri}june/job.json"))["model_uri"] + "/model.json"
    other = json.loads(bench.get(uri)) | {"version": "other"}
    bench.put(uri.partition(f"{bench.bucket}/")[2], json.dumps(other).encode())
    text = _report(twofold, tmp_path / "june.html", "--force").text
    assert "No comparison with the model’s test images: they cannot be read from its bundle." in text  # noqa: RUF001


def test_reading_dead_letters_leaves_them_in_the_queue(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are and whatever they hold, all of them can be received afterwards."""
    bodies = [json.dumps({"schema_version": 1, "job_id": f"job-{n % 2}", "images": ["a"]}) for n in range(23)]
    for body in [*bodies, "<html>"]:
        bench.sqs.send_message(QueueUrl=bench.queues.dead_letter_url, MessageBody=body)
    letters = DeadLetters(sqs=bench.sqs, url=bench.queues.dead_letter_url)
    for _ in range(2):
        assert len(letters.of(JobFolder(bench.output_uri, "job-0"), None)) == 12
        assert len(letters.of(JobFolder(bench.output_uri, "job-1"), None)) == 11
    name = "ApproximateNumberOfMessages"
    answer = bench.sqs.get_queue_attributes(QueueUrl=bench.queues.dead_letter_url, AttributeNames=[name])
    assert answer["Attributes"][name] == "24"


def test_every_command_shows_an_example(command: Twofold) -> None:
    """Its --help ends with one."""
    for name in ("submit", "status", "results", "redrive", "cancel", "report"):
        status, text = command(name, "--help")
        assert (status, f"Example:\n  {program()} batch {name}" in text) == (0, True)


def test_a_missing_setting_is_named(command: Twofold, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says which variable to set."""
    for name in ("AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    for name in ("TWOFOLD_OUTPUT_URI", "TWOFOLD_QUEUE_URL"):
        monkeypatch.setenv("TWOFOLD_OUTPUT_URI", "s3://shelter/out/")
        monkeypatch.setenv("TWOFOLD_QUEUE_URL", "https://queue")
        monkeypatch.delenv(name)
        status, message = command("submit", "s3://shelter/list.csv")
        assert (status, f"export {name}=" in message) == (1, True), message


def test_a_presigned_address_is_shown_without_its_signature_and_kept_in_the_results(
    twofold: Twofold, work: Work, bench: Bench, digit_images: Path, tmp_path: Path
) -> None:
    """It opens the image for whoever reads a page or a message. The results keep it, since they are joined by it."""
    secret = "https://host/list.csv?X-Amz-Signature=5ec7e7"
    status, output = twofold("submit", secret)
    assert (status, "https://host/list.csv is not a file" in output, "5ec7e7" in output) == (1, True, False)
    assert bench.keys("predictions/") == []
    image = bench.put("in/a.png", next(digit_images.rglob("*.png")).read_bytes())
    refs = [image, secret, "s3://NOT/valid", "https://host/a\u202e.png?X-Amz-Signature=5ec7e7"]
    (tmp_path / "list.csv").write_text("\n".join(["source_ref", *refs]))
    assert twofold("submit", str(tmp_path / "list.csv"), "--job-id", "june")[0] == 0
    work()
    assert twofold("results", "june", "-o", str(tmp_path / "june.csv"))[0] == 0
    assert [row["source_ref"] for row in _table(tmp_path / "june.csv")] == refs
    assert twofold("report", "june", "-o", str(tmp_path / "june.html"))[0] == 0
    page = (tmp_path / "june.html").read_text(encoding="utf-8")
    assert ("https://host/list.csv" in page, r"https://host/a\u202e.png" in page) == (True, True)
    printed = twofold("status", "june")[1] + twofold("status", "june", "--json")[1] + twofold("status")[1]
    job = bench.get(f"{bench.output_uri}june/job.json").decode()
    assert [text for text in (page, printed, job) if "5ec7e7" in text or "\u202e" in text] == []
