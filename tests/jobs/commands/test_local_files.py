"""``twofold batch`` and the files on this machine: each row belongs to one file, and no other file is ever uploaded."""

import csv
import json
import os
import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from jobs.batch.file_names import recorded
from jobs.local.emulator import send_inbox_to
from jobs.wording import program
from tests.conftest import Bench
from tests.desk import Desk
from tests.jobs.commands.conftest import Twofold, Work
from worker.scoring.limits import MAX_BYTES


@pytest.fixture
def endpoint(ministack: str) -> str:
    """One emulator: this is our own logic."""
    return ministack


def _rows(twofold: Twofold, job_id: str, out: Path) -> list[dict[str, str]]:
    output = twofold("results", job_id, "--join", "--force", "-o", str(out))[1]
    assert out.exists(), output
    with out.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _uploaded(bench: Bench) -> set[str]:
    return {key.split("/")[-1] for key in bench.keys("predictions/_uploads/")}


@pytest.mark.parametrize("sources", [("day1", "day2"), ("day1/1.png", "day2/1.png"), ("day1", "day2/list.csv")])
def test_a_redrive_tries_the_file_of_the_row_and_not_another_one_of_that_name(
    twofold: Twofold,
    work: Work,
    digit_images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sources: tuple[str, str],
) -> None:
    """Two folders, files or lists can hold the same name. The results tell them apart, too."""
    monkeypatch.chdir(tmp_path)
    first, second, *_ = sorted(digit_images.rglob("*.png"))
    for day in ("day1", "day2"):
        Path(day).mkdir()
        shutil.copy(first, f"{day}/1.png")
    Path("day2/1.png").write_bytes(first.read_bytes()[:90])
    Path("day2/list.csv").write_text("source_ref\n1.png\n")
    assert twofold("submit", *sources, "--job-id", "june")[0] == 0
    work()
    out = tmp_path / "out.csv"
    names = [row["file"] for row in _rows(twofold, "june", out)]
    assert names == ["day1/1.png", "day2/1.png"]
    shutil.copy(second, "day2/1.png")
    assert twofold("redrive", "june")[0] == 0
    work()
    rows = _rows(twofold, "june", out)
    assert [row["error_code"] for row in rows] == ["", ""]
    assert sha256(second.read_bytes()).hexdigest() in rows[1]["source_ref"]


def test_a_redrive_does_not_look_beside_a_folder_that_is_gone(
    bench: Bench, twofold: Twofold, work: Work, digit_images: Path, tmp_path: Path
) -> None:
    """The file of that name there is another one."""
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "rex.png").write_bytes(b"")
    assert twofold("submit", str(photos), "--job-id", "june")[0] == 0
    work()
    shutil.rmtree(photos)
    shutil.copy(next(digit_images.rglob("*.png")), tmp_path / "rex.png")
    status, message = twofold("redrive", "june")
    assert (status, "  1 no longer there: rex.png\n" in message) == (1, True), message
    assert bench.sqs.receive_message(QueueUrl=bench.queues.requests_url).get("Messages") is None
    assert len(bench.keys("predictions/_uploads/")) == 1


def test_a_redrive_leaves_out_what_would_fail_again_and_names_it(
    bench: Bench, twofold: Twofold, work: Work, digit_images: Path, tmp_path: Path
) -> None:
    """A file that was not replaced. What is in S3 may have been, and is asked for."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a.png", "b.png"):
        (photos / name).write_bytes(b"\x89PNG\r\n\x1a\n, and then nothing: " + name.encode())
    stored = bench.put("in/c.png", b"no image")
    (tmp_path / "list.csv").write_text(f"source_ref\n{stored}\n")
    assert twofold("submit", str(photos), "--job-id", "june")[0] == 0
    assert twofold("submit", str(tmp_path / "list.csv"), "--job-id", "july")[0] == 0
    work()
    note = json.loads(twofold("status", "june", "--json")[1] or "{}").get("note", "")
    again = f"Replace the files, under the same names, then try them again:\n  {program()} batch redrive june --wait"
    assert note.endswith(again), note
    status, message = twofold("redrive", "june")
    assert (status, message.splitlines()[:2]) == (
        1,
        ["2 files left out, which would fail again:", "  2 not replaced yet: a.png, b.png"],
    )
    assert "Nothing was submitted. Replace the files, under the same names, and type the same command" in message
    assert bench.sqs.receive_message(QueueUrl=bench.queues.requests_url).get("Messages") is None
    shutil.copy(next(digit_images.rglob("*.png")), photos / "b.png")
    status, message = twofold("redrive", "june")
    assert (status, message.splitlines()[1:]) == (
        0,
        [
            "  1 not replaced yet: a.png",
            "1 failed image was submitted again, as june-r1. To wait for it:",
            f"  {program()} batch status june-r1 --watch",
        ],
    )
    assert "was submitted again, as july-r1" in twofold("redrive", "july")[1]


def test_a_file_in_another_format_is_named_as_such(
    twofold: Twofold, digit_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that only has an unusual ending can be submitted."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Path("photos/16_bit.pgm").write_bytes(b"P5 1 1 65535 ab")
    status, message = twofold("submit", "photos")
    assert (status, message.splitlines()[-2:]) == (
        1,
        [
            "Error: There are no images to submit in photos. The only file there is skipped:",
            "  1 PGM, not supported (save as JPEG or PNG): 16_bit.pgm",
        ],
    )
    shutil.copy(next(digit_images.rglob("*.png")), "photos/1.png_large")
    message = twofold("submit", "photos")[1]
    assert message.endswith("1.png_large begins as an image does. To take such files, add --include '*.png_large'\n")
    assert twofold("submit", "photos", "--include", "*.png_large", "--dry-run")[0] == 0


def test_a_list_cannot_make_a_redrive_upload_a_file_that_is_no_image(
    bench: Bench, desk: Desk, twofold: Twofold, work: Work, tmp_path: Path
) -> None:
    """Neither by a column ``file`` of its own, which gets another name, nor by an address among the uploads."""
    secret = tmp_path / "secret.txt"
    secret.write_text("-----BEGIN")
    mine = tmp_path / "list.csv"
    mine.write_text(f"source_ref,file\nmissing.jpg,{secret}\n{bench.output_uri}_uploads/no/no.jpg,{secret}\n")
    theirs = f"source_ref,file\n{bench.output_uri}_uploads/no/no.jpg,{secret}\n".encode()
    bench.put("lists/theirs.csv", theirs)
    send_inbox_to(bench.s3, bench.sqs, bucket=bench.bucket, queue_url=bench.queues.requests_url)
    bench.put("inbox/evil.csv", theirs)
    assert twofold("submit", str(mine), f"s3://{bench.bucket}/lists/theirs.csv", "--job-id", "june")[0] == 0
    work()
    rows = _rows(twofold, "june", tmp_path / "out.csv")
    assert [(row["file"], row["manifest_file"], row["error_code"]) for row in rows] == [
        ("missing.jpg", str(secret), "not_found"),
        ("", str(secret), "not_found"),
        ("", str(secret), "not_found"),
    ]
    desk.answer(desk.sent.pop())  # what planned the list of the inbox has sent this
    for job in ("june", "evil.csv"):
        status, message = twofold("redrive", job)
        assert status == 0, message
        work()
    assert _uploaded(bench) == set()


def test_links_to_folders_and_what_is_no_file_are_skipped_and_named(
    twofold: Twofold, digit_images: Path, tmp_path: Path
) -> None:
    """Photographs behind such a link would otherwise be missing without a word."""
    photos, real = tmp_path / "photos", tmp_path / "real"
    photos.mkdir()
    shutil.copytree(next(digit_images.iterdir()), real)
    shutil.copy(next(real.rglob("*.png")), photos / "1.png")
    (photos / "linked").symlink_to(real)
    (photos / "broken.png").symlink_to(tmp_path / "nothing")
    os.mkfifo(photos / "pipe.png")
    skipped = json.loads(twofold("submit", str(photos), "--dry-run", "--json")[1])["skipped"]
    assert {reason: found["names"] for reason, found in skipped.items()} == {
        "not a file": ["broken.png", "pipe.png"],
        "a link to a folder (submit that folder as well)": ["linked"],
    }


def test_a_file_that_is_too_large_to_be_an_image_is_skipped_and_not_read(
    twofold: Twofold, digit_images: Path, tmp_path: Path
) -> None:
    """It could be larger than memory."""
    shutil.copy(next(digit_images.rglob("*.png")), tmp_path / "1.png")
    with (tmp_path / "film.tif").open("wb") as film:
        film.truncate(MAX_BYTES + 1)
    found = json.loads(twofold("submit", str(tmp_path), "--dry-run", "--json")[1])
    assert (found["images"], list(found["skipped"])) == (1, ["over 32 MiB, too large for an image"])
    status, message = twofold("submit", str(tmp_path / "film.tif"))
    assert (status, "film.tif is over 32 MiB, too large for an image" in message) == (1, True)


def test_a_job_of_thousands_of_named_files_can_be_read_and_names_their_folder(
    bench: Bench, desk: Desk, twofold: Twofold, work: Work, digit_images: Path, tmp_path: Path
) -> None:
    """A shell makes them of ``*.jpg``, and ``job.json`` has a limit of 1 MiB."""
    image = next(digit_images.rglob("*.png"))
    for number in range(101):
        (tmp_path / f"{number:03}.png").hardlink_to(image)
    names = [str(path) for path in sorted(tmp_path.glob("*.png"))]
    assert twofold("submit", *names, "--job-id", "june")[0] == 0
    assert json.loads(bench.get(desk.folder("june").job))["sources"] == [f"{tmp_path}/"]
    work()
    rows = _rows(twofold, "june", tmp_path / "out.csv")
    assert [row["file"] for row in rows] == [f"{number:03}.png" for number in range(101)]
    assert len("".join(recorded([f"{tmp_path}/{number}.png" for number in range(13_000)]))) < 1000


def test_results_are_found_by_the_address_of_the_list_in_the_inbox(
    bench: Bench, twofold: Twofold, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table is then named after the job, as ever."""
    monkeypatch.chdir(tmp_path)
    send_inbox_to(bench.s3, bench.sqs, bucket=bench.bucket, queue_url=bench.queues.requests_url)
    bench.put("inbox/june.csv", b"source_ref\nno URI\n")
    work()
    status, output = twofold("results", f"s3://{bench.bucket}/inbox/june.csv")
    assert (status, "1 row = 0 scored" in output) == (1, True), output
    assert list(tmp_path.glob("*june*.csv")) != []
