"""``twofold batch submit`` and ``cancel``: what is said and refused before anything is sent, and names used again."""

import csv
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from jobs.batch.client import BatchClient
from jobs.batch.inputs import Inputs
from jobs.progress import Reporter
from jobs.signals import Stopped
from jobs.wording import program
from tests.conftest import Bench
from tests.desk import ON_BOTH_EMULATORS, Desk
from tests.jobs.commands.conftest import Twofold, Work
from worker.batch import cost

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
AWS_QUEUE = "https://sqs.eu-central-1.amazonaws.com/123456789012/requests"


@pytest.fixture
def endpoint(request: pytest.FixtureRequest) -> str:
    """One emulator, unless a test is about what queues or storage guarantee."""
    url: str = request.getfixturevalue(getattr(request, "param", "ministack"))
    return url


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a command says on standard error, line by line."""
    lines: list[str] = []
    monkeypatch.setattr(Reporter, "say", lambda _, text: lines.extend(text.split("\n")))
    return lines


@pytest.fixture
def folder(digit_images: Path, tmp_path: Path) -> Path:
    """Two images, one of them without a suffix, and six files that are none."""
    photos = tmp_path / "photos"
    (photos / "sub").mkdir(parents=True)
    shutil.copy(next(digit_images.rglob("*.png")), photos / "a.PNG")
    shutil.copy(next(digit_images.rglob("*.png")), photos / "sub" / "2026-11-24 10.30.12")
    (photos / "IMG_1.HEIC").write_bytes(HEIC)
    (photos / "IMG_2").write_bytes(HEIC)
    (photos / "notes.txt").write_text("buy milk")
    (photos / "Makefile").write_text("all:")
    (photos / "thumb.png").write_bytes(b"x")
    (photos / ".hidden.png").write_bytes(b"x")
    return photos


SKIPPED = {
    "HEIC, not supported (save as JPEG)": ["IMG_1.HEIC", "IMG_2"],
    "not an image": ["Makefile", "notes.txt"],
    "hidden": [".hidden.png"],
    "left out by --exclude": ["thumb.png"],
}


def test_what_a_folder_holds_besides_images_is_counted_and_named_with_the_reason(
    bench: Bench, twofold: Twofold, work: Work, folder: Path, said: list[str]
) -> None:
    """In submit, its dry run, job.json, the status and the report. Without a suffix, the content decides."""
    submit = ("submit", str(folder), "--job-id", "june", "--exclude", "thumb*")
    lines = [f"  {len(names)} {reason}: {', '.join(names)}" for reason, names in SKIPPED.items()]
    for options in (("--dry-run",), ()):
        said.clear()
        assert twofold(*submit, *options)[0] == 0
        assert said[:7] == ["june: 2 images, a few seconds.", "Model: digits, version v1.", "6 files skipped:", *lines]
    expected = {reason: {"files": len(names), "names": names} for reason, names in SKIPPED.items()}
    assert json.loads(twofold(*submit, "--dry-run", "--json")[1])["skipped"] == expected
    assert json.loads(bench.get(f"{bench.output_uri}june/job.json"))["skipped"] == expected
    work()
    found = json.loads(twofold("status", "june", "--json")[1])
    assert (found["scored"], found["failed"], found["skipped"]) == (2, 0, expected)
    shown = " ".join(twofold("status", "june")[1].split())
    assert " model digits, version v1 " in shown
    page = folder.parent / "june.html"
    assert twofold("report", "june", "-o", str(page))[0] == 0
    text = page.read_text(encoding="utf-8")
    assert [line for line in lines if line.strip() not in shown] == []
    for reason, names in SKIPPED.items():
        assert (reason in text, all(name in text for name in names)) == (True, True)


def test_a_file_that_a_list_names_and_that_is_missing_is_said_and_mended_by_a_redrive(
    twofold: Twofold, work: Work, digit_images: Path, tmp_path: Path, said: list[str]
) -> None:
    """Its row is not_found, with the name of the file, and it is redriven once the file is there."""
    image = next(digit_images.rglob("*.png"))
    shutil.copy(image, tmp_path / "here.png")
    (tmp_path / "list.csv").write_text("source_ref,name\nhere.png,Rex\n../photos/gone é.png,Bella\n")
    (tmp_path / "secret").write_text("-----BEGIN")
    assert twofold("submit", str(tmp_path / "list.csv"), "--job-id", "june")[0] == 0
    assert said[2:6] == [
        "1 line of the list will have an error code instead of a score:",
        "  1 not there: ../photos/gone é.png",
        "Put missing files there, and later try them again:",
        f"  {program()} batch redrive june",
    ]
    work()
    out = tmp_path / "out.csv"
    rows = _results(twofold, "june", out)
    assert [(row["file"], row["name"], row["error_code"]) for row in rows] == [
        ("here.png", "Rex", ""),
        ("../photos/gone é.png", "Bella", "not_found"),
    ]
    assert rows[1]["error_message"] == "photos/gone é.png was not there when the list was submitted"
    status, output = twofold("redrive", "june")
    assert (status, "  1 still not there: ../photos/gone é.png\n" in output) == (1, True), output
    (tmp_path.parent / "photos").mkdir(exist_ok=True)
    shutil.copy(image, tmp_path.parent / "photos" / "gone é.png")
    assert json.loads(twofold("redrive", "june", "--json")[1])["images"] == 1
    work()
    assert [row["error_code"] for row in _results(twofold, "june", out)] == ["", ""]


def _results(twofold: Twofold, job_id: str, out: Path) -> list[dict[str, str]]:
    status, output = twofold("results", job_id, "--join", "--force", "-o", str(out))
    assert status == 0, output
    with out.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("text", ["filename,label\na.png,cat\nb c.png,dog\n", "a.png\nb c.png\n"])
def test_a_list_of_file_names_is_taken_as_it_is(
    desk: Desk, twofold: Twofold, digit_images: Path, tmp_path: Path, text: str
) -> None:
    """As a spreadsheet or ``ls`` writes it, without a column source_ref."""
    for name in ("a.png", "b c.png"):
        shutil.copy(next(digit_images.rglob("*.png")), tmp_path / name)
    (tmp_path / "list.txt").write_text(text)
    assert twofold("submit", str(tmp_path / "list.txt"), "--job-id", "june")[0] == 0
    lines = [json.loads(line) for line in desk.bench.get(desk.folder("june").shard(0)).splitlines()]
    assert [line["columns"]["file"] for line in lines] == ["a.png", "b c.png"]
    assert [line["columns"].get("label") for line in lines] == (["cat", "dog"] if "label" in text else [None, None])


@pytest.mark.parametrize("name", ["digits", "digits/", "digits/champion.json", "digits/v1", "digits/v1/model.json"])
def test_a_models_folder_means_its_champion(bench: Bench, twofold: Twofold, digit_images: Path, name: str) -> None:
    """And its files mean what they are."""
    image = str(next(digit_images.rglob("*.png")))
    model = f"s3://{bench.bucket}/models/{name}"
    assert twofold("submit", image, "--job-id", "june", "--model", model)[0] == 0
    assert json.loads(bench.get(f"{bench.output_uri}june/job.json"))["model_uri"].endswith("/models/digits/v1")


def test_what_cannot_work_is_refused_before_anything_is_uploaded(
    bench: Bench, twofold: Twofold, digit_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model, a queue and an output, each with what to do next."""
    image = str(next(digit_images.rglob("*.png")))
    bench.put("models/cut/v1/model.json", bench.get(f"s3://{bench.bucket}/models/digits/v1/model.json"))
    bench.put("models/cut/v1/model.tflite", b"half")
    queue = bench.queues.requests_url
    for options, reason in {
        ("--model", f"s3://{bench.bucket}/models/nothing"): "it holds neither model.json nor champion.json",
        ("--model", f"s3://{bench.bucket}/models/cut/v1"): "is not the file that model.json describes",
        ("--model", "s3://nobody-has-this-bucket/models/pets"): "no such bucket",
        ("--model", "out/models/pets"): f"Run '{program()} model copy out/models/pets s3://BUCKET/models'",
        ("--output", "s3://nobody-has-this-bucket/out"): "Check TWOFOLD_OUTPUT_URI or --output",
    }.items():
        status, message = twofold("submit", image, *options)
        assert (status, reason in message, "Nothing was uploaded." in message) == (1, True, True), message
    monkeypatch.setenv("TWOFOLD_QUEUE_URL", f"{queue}-gone")
    status, message = twofold("submit", image)
    assert (status, f"There is no queue {queue}-gone. Check TWOFOLD_QUEUE_URL." in message) == (1, True), message
    assert bench.keys("predictions/") == []


def test_the_name_of_another_job_is_refused_before_anything_is_uploaded(
    bench: Bench, twofold: Twofold, digit_images: Path
) -> None:
    """Unless that was cancelled."""
    first, second = map(str, sorted(digit_images.rglob("*.png"))[:2])
    assert twofold("submit", first, "--job-id", "june")[0] == 0
    before = bench.keys("predictions/")
    taken = "Nothing was uploaded. There is a job named june with other images. New files need a job of their own"
    for options in ((), ("--dry-run",)):
        status, message = twofold("submit", second, "--job-id", "june", *options)
        assert (status, taken in message) == (1, True), message
        assert message.endswith(f"again that were replaced, under the same names:\n  {program()} batch redrive june\n")
    message = twofold("submit", first, "--job-id", "june", "--threshold", "0.9")[1]
    assert "There is a job named june with another threshold. Choose another --job-id." in message
    assert bench.keys("predictions/") == before


@ON_BOTH_EMULATORS
def test_the_name_of_a_job_can_be_used_again_after_it_was_cancelled(
    bench: Bench, desk: Desk, twofold: Twofold, work: Work, digit_images: Path, tmp_path: Path
) -> None:
    """With other images: requests of the old job that are still on the queue are dropped, and its parts are gone."""
    (tmp_path / "old.csv").write_text("source_ref\n" + "old\n" * 600)
    assert twofold("submit", str(tmp_path / "old.csv"), "--job-id", "june")[0] == 0
    old = desk.record("june").job()
    assert old is not None
    request = old.request(0, shard_uri=desk.folder("june").shard(0))
    desk.handle(request)
    assert twofold("cancel", "june")[0] == 0
    image = next(digit_images.rglob("*.png"))
    status, output = twofold("submit", str(image), "--job-id", "june")
    assert status == 0, output
    assert desk.names("june") == ["cancelled", "job.json", "shards/00000.jsonl", "submitted"]
    assert desk.handle(request).reports == ()  # a late message of the old job
    work()
    (row,) = _results(twofold, "june", tmp_path / "out.csv")
    assert (row["file"], row["error_code"]) == (image.name, "")
    assert bench.dead_letters() == []
    assert "All requests had already been sent" in twofold("submit", str(image), "--job-id", "june")[1]


def test_a_worker_of_the_cancelled_job_cannot_answer_for_the_next_one(
    desk: Desk, twofold: Twofold, tmp_path: Path
) -> None:
    """One that was in the middle of a part writes it late. The next job takes it for what it is."""
    for number in range(2):
        (tmp_path / f"{number}.csv").write_text(f"source_ref\nimage {number}\n")
    assert twofold("submit", str(tmp_path / "0.csv"), "--job-id", "june")[0] == 0
    job = desk.record("june").job()
    assert job is not None
    request = job.request(0, shard_uri=desk.folder("june").shard(0))
    assert twofold("cancel", "june")[0] == 0
    assert twofold("submit", str(tmp_path / "1.csv"), "--job-id", "june")[0] == 0
    again = desk.record("june").job()
    assert again is not None
    assert again.request(0, shard_uri=desk.folder("june").shard(0)).digest() != request.digest()


def test_a_cancelled_job_that_is_submitted_again_goes_on(
    desk: Desk, twofold: Twofold, work: Work, tmp_path: Path, said: list[str]
) -> None:
    """The parts that are there are kept, and a dry run says so."""
    (tmp_path / "list.csv").write_text("source_ref\n" + "no URI\n" * 600)
    submit = ("submit", str(tmp_path / "list.csv"), "--job-id", "june")
    assert twofold(*submit)[0] == 0
    job = desk.record("june").job()
    assert job is not None
    desk.handle(job.request(1, shard_uri=desk.folder("june").shard(1)))
    twofold("cancel", "june")
    work()
    said.clear()
    assert twofold(*submit, "--dry-run")[0] == 0
    assert said[-1] == "june was cancelled, and will go on: 100 of 600 rows written."
    said.clear()
    assert twofold(*submit, "--dry-run", "--threshold", "0.9")[0] == 0
    assert said[-1] == "june was cancelled: its old results will be deleted."
    assert "1 request sent" in twofold(*submit)[1]
    work()
    found = json.loads(twofold("status", "june", "--json")[1])
    assert (found["state"], found["failed"]) == ("complete with failures", 600)


def test_a_job_that_can_never_finish_is_cancelled_with_its_refused_requests(
    bench: Bench, twofold: Twofold, work: Work, digit_images: Path
) -> None:
    """The next job of that name is not taken for stuck."""
    graph = f"s3://{bench.bucket}/models/digits/v1/model.tflite"
    intact = bench.get(graph)
    image = str(next(digit_images.rglob("*.png")))
    assert twofold("submit", image, "--job-id", "june")[0] == 0
    bench.put("models/digits/v1/model.tflite", intact[:-1])
    work()
    assert json.loads(twofold("status", "june", "--json")[1])["state"] == "stuck"
    assert twofold("cancel", "june")[0] == 0
    bench.put("models/digits/v1/model.tflite", intact)
    assert "1 request sent" in twofold("submit", image, "--job-id", "june")[1]
    assert json.loads(twofold("status", "june", "--json")[1])["state"] == "waiting"
    work()
    assert json.loads(twofold("status", "june", "--json")[1])["scored"] == 1


def test_the_cancelling_of_a_complete_job_writes_nothing(
    bench: Bench, twofold: Twofold, work: Work, digit_images: Path
) -> None:
    """And it is submitted again as if nobody had tried. A job that does not exist is an error."""
    image = str(next(digit_images.rglob("*.png")))
    assert twofold("submit", image, "--job-id", "june")[0] == 0
    work()
    before = bench.keys("predictions/")
    text = f"june is complete: there is nothing to cancel. To write its table:\n  {program()} batch results june\n"
    assert twofold("cancel", "june") == (0, text)
    assert bench.keys("predictions/") == before
    assert "All requests had already been sent" in twofold("submit", image, "--job-id", "june")[1]
    status, message = twofold("cancel", "july")
    assert (status, "No job named july" in message) == (1, True)
    assert bench.keys("predictions/") == before


def test_time_and_cost_are_in_words_and_an_emulator_has_no_prices(
    twofold: Twofold, digit_images: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    """The estimate says how much of the time is uploading, at the speed that it assumes."""
    monkeypatch.setattr(Inputs, "upload_bytes", lambda _: 250_000_000)
    monkeypatch.setattr(cost, "estimated_s", lambda _: 80.0)
    image = str(next(digit_images.rglob("*.png")))
    submit = ("submit", image, "--dry-run", "--job-id", "june")
    output = twofold(*submit)[1]
    assert said[0] == "june: 1 image, about 82 seconds, 2 seconds of it uploading."
    assert output == "Nothing was sent. Up to 1 file would be uploaded.\n"
    said.clear()
    monkeypatch.setenv("TWOFOLD_QUEUE_URL", AWS_QUEUE)
    output = twofold(*submit)[1]
    assert said[0] == "june: 1 image, about 2 minutes, 50 seconds of it uploading, under a US cent."
    assert ("list prices of us-east-1" in output, "an upload of 5 MB a second" in output) == (True, True)


def test_a_large_job_is_sent_after_a_question_or_with_yes(
    bench: Bench, twofold: Twofold, digit_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody can be asked, it is refused."""
    monkeypatch.setattr("jobs.batch.submit._LARGE_S", -1.0)
    image = str(next(digit_images.rglob("*.png")))
    status, message = twofold("submit", image)
    assert (status, "Add --yes to send it without a question" in message) == (1, True)
    assert bench.keys("predictions/") == []
    assert "1 request sent" in twofold("submit", image, "--yes")[1]


def test_ctrl_c_says_in_one_line_what_stopped_and_what_to_type_next(
    bench: Bench, twofold: Twofold, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it reads, while it uploads and while it sends. The same command then goes on, and sends nothing twice."""
    submit = ("submit", str(folder), "--job-id", "june", "--exclude", "thumb*")

    def stopped_in(owner: type, name: str) -> str:
        real = getattr(owner, name)

        def interrupted(*arguments: Any) -> Any:
            done = real(*arguments)
            signal.raise_signal(signal.SIGINT)
            return done

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, interrupted)
            status, message = twofold(*submit)
        assert status == 130
        return message

    said = stopped_in(Inputs, "references")
    assert said == "Stopped. Nothing was uploaded, and nothing was sent. Run the same command again.\n"
    assert bench.keys("predictions/") == []
    said = stopped_in(Inputs, "upload")
    kept = "Stopped. No request was sent; what was uploaded is kept."
    assert said == f"{kept} Run the same command again: it goes on where it was.\n"
    assert [key.split("/")[1] for key in bench.keys("predictions/")] == ["_uploads", "_uploads"]
    said = stopped_in(BatchClient, "send")
    assert said == (
        "Stopped while sending. Workers answer what was sent. Run the same command again to send the rest, or "
        f"'{program()} batch cancel june' to drop it.\n"
    )
    assert "1 request sent" in twofold(*submit)[1]
    assert "All requests had already been sent" in twofold(*submit)[1]


def test_ctrl_c_while_uploading_waits_for_no_more_than_what_is_under_way(
    bench: Bench, desk: Desk, digit_images: Path
) -> None:
    """Thousands of files may still be waiting."""
    inputs = Inputs(storage=desk.storage, output_uri=bench.output_uri)
    for path in sorted(digit_images.rglob("*.png"))[:200]:
        list(inputs.references(str(path)))

    def stop(_: int) -> None:
        raise Stopped(signal.SIGINT)

    with pytest.raises(Stopped):
        inputs.upload(stop)
    assert 0 < len(bench.keys("predictions/_uploads/")) < 100
