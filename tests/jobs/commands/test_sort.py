"""``twofold batch sort``: every picture in one pile, nothing lost or overwritten, and back again."""

import csv
import hashlib
import io
import json
import os
import random
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from jobs.commands.app import app
from jobs.wording import program
from tests.chaos.workers import Template
from tests.conftest import Bench, open_bench
from tests.desk import ON_BOTH_EMULATORS, Desk
from tests.jobs.commands.conftest import Twofold, Work
from worker.contract import ClassifyRequest
from worker.predictions import unguarded
from worker.scoring.pipeline import Pipeline
from worker.scoring.sandbox import Sandbox


@pytest.fixture
def endpoint(request: pytest.FixtureRequest) -> str:
    """One emulator, unless a test is about what storage guarantees."""
    url: str = request.getfixturevalue(getattr(request, "param", "ministack"))
    return url


def _fill(folder: Path, digit_images: Path) -> Path:
    """Twelve images in two folders, a copy of one of them, and a damaged one."""
    (folder / "deep down").mkdir(parents=True)
    for number, path in enumerate(sorted(digit_images.rglob("*.png"))[::27][:12]):
        shutil.copy(path, folder / ("deep down" if number % 2 else "") / f"{number:02} é+%.png")
    shutil.copy(folder / "00 é+%.png", folder / "deep down" / "copy.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n, and then nothing")
    return folder


@dataclass(frozen=True)
class Submitted:
    """A job that is complete, of a folder that each test finds as it was submitted."""

    bench: Bench
    photos: Path


@pytest.fixture(scope="module")
def submitted(
    ministack: str, models: Path, digit_images: Path, sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> Submitted:
    """One for all tests that do not change it."""
    bench = open_bench(ministack)
    photos = _fill(tmp_path_factory.mktemp("job") / "photos", digit_images)
    with pytest.MonkeyPatch.context() as patch:
        storage = bench.storage(patch)
        for name, value in _settings(bench).items():
            patch.setenv(name, value)
        allowed = (f"s3://{bench.bucket}/",)
        with Pipeline(storage=storage, sandbox=sandbox, allowed_prefixes=allowed, fetchers=4) as pipeline:
            desk = Desk(bench, storage, pipeline, bench.put_bundle(models))
            done = CliRunner().invoke(app, ["batch", "submit", str(photos), "--job-id", "june"])
            assert done.exit_code == 0, done.output
            desk.handle(_request(bench))
    return Submitted(bench, photos)


def _request(bench: Bench) -> ClassifyRequest:
    (message,) = bench.sqs.receive_message(QueueUrl=bench.queues.requests_url)["Messages"]
    return ClassifyRequest.parse(message["Body"])


def _settings(bench: Bench) -> dict[str, str]:
    """The environment of a command."""
    settings = {"QUEUE_URL": bench.queues.requests_url, "OUTPUT_URI": bench.output_uri}
    settings["MODEL_URI"] = f"s3://{bench.bucket}/models/digits/champion.json"
    return bench.environment | {f"TWOFOLD_{key}": value for key, value in settings.items()}


@pytest.fixture
def photos(submitted: Submitted, digit_images: Path) -> Path:
    """The folder, as it was submitted."""
    shutil.rmtree(submitted.photos)
    return _fill(submitted.photos, digit_images)


@pytest.fixture
def june(submitted: Submitted, photos: Path, command: Twofold, monkeypatch: pytest.MonkeyPatch) -> Twofold:
    """The command, when the job ``june`` of these photos is complete."""
    for name, value in _settings(submitted.bench).items():
        monkeypatch.setenv(name, value)
    return command


@pytest.fixture
def own_photos(digit_images: Path, tmp_path: Path) -> Path:
    """Such a folder, for a job of its own."""
    return _fill(tmp_path / "photos", digit_images)


def _tree(folder: Path) -> dict[str, str]:
    """The digests of all files below a folder, by name; without the list."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "piles.csv"
    }


def _answers(twofold: Twofold, job_id: str, out: Path) -> list[dict[str, str]]:
    twofold("results", job_id, "-o", str(out), "--force")
    return list(csv.DictReader(io.StringIO(out.read_text(encoding="utf-8"), newline="")))


def _expected(rows: list[dict[str, str]], low: float = 1.0, high: float = 1.0) -> set[str]:
    """Where the pictures of a folder must be, by the table."""
    found = set()
    for row in rows:
        unsure = row["score"] and low <= float(row["score"]) < high
        pile = "failed" if row["error_code"] else "unsure" if unsure else row["label"]
        found.add(f"{pile}/{unguarded(row['file'])}")
    return found


def _sort(twofold: Twofold, to: Path | str, *options: str, status: int = 0) -> dict[str, Any]:
    found, output = twofold("sort", "june", "--to", str(to), "--yes", "--json", *options)
    assert found == status, output
    result: dict[str, Any] = json.loads(output.splitlines()[0])
    assert sum(result["piles"].values()) + len(result["unplaced"]) + result["listed_twice"] == result["images"]
    return result


@pytest.mark.parametrize("how", ["copy", "link", "move"])
def test_every_picture_is_in_the_pile_of_its_answer_under_its_own_name(
    june: Twofold, photos: Path, tmp_path: Path, how: str
) -> None:
    """Copied, linked or moved from where it was submitted; a second time there is nothing to do."""
    before, piles = _tree(photos), tmp_path / "piles"
    rows = _answers(june, "june", tmp_path / "june.csv")
    found = _sort(june, piles, "--how", how)
    assert set(_tree(piles)) == _expected(rows)
    assert found["new"] == found["images"] == 14
    assert sorted(_tree(piles).values()) == sorted(before.values())
    assert _tree(photos) == ({} if how == "move" else before)
    if how == "link":
        assert all((piles / file).samefile(photos / file.partition("/")[2]) for file in _tree(piles))
    again = _sort(june, piles, "--how", how)
    assert (again["new"], again["already_there"], again["piles"]) == (0, 14, found["piles"])
    assert [path.name for path in piles.iterdir() if path.is_file()] == ["piles.csv"]
    lines = list(csv.DictReader(io.StringIO((piles / "piles.csv").read_text(encoding="utf-8"), newline="")))
    assert {line["file"] for line in lines} == set(_tree(piles))
    assert {line["how"] for line in lines} == {how}
    assert {line["file"]: line["sha256"] for line in lines} == _tree(piles)


def test_what_was_moved_is_put_back_byte_for_byte(june: Twofold, photos: Path, tmp_path: Path) -> None:
    """With times and modes, also into a folder that is gone, and from another pile into which a person has put it."""
    os.utime(photos / "broken.png", ns=(10**18, 10**18 + 1))
    (photos / "broken.png").chmod(0o640)
    before, status = _tree(photos), (photos / "broken.png").stat()
    piles = tmp_path / "piles"
    _sort(june, piles, "--how", "move")
    shutil.rmtree(photos)
    (piles / "by hand").mkdir()
    (piles / "failed" / "broken.png").rename(piles / "by hand" / "broken.png")
    found, output = june("sort", "--undo", str(piles / "piles.csv"), "--json")
    assert (found, json.loads(output)["restored"]) == (0, 14), output
    assert _tree(photos) == before
    restored = (photos / "broken.png").stat()
    assert (restored.st_mtime_ns, restored.st_mode) == (status.st_mtime_ns, status.st_mode)
    assert _tree(piles) == {}
    found, output = june("sort", "--undo", str(piles))
    assert (found, f"There is no piles.csv in {piles}" in output) == (1, True), output


def test_a_file_that_has_the_name_of_a_moved_one_by_now_is_not_overwritten(
    june: Twofold, photos: Path, tmp_path: Path
) -> None:
    """Nor is the picture: it stays in its pile, is named, and comes back once its name is free."""
    before, piles = _tree(photos), tmp_path / "piles"
    _sort(june, piles, "--how", "move")
    (photos / "broken.png").write_bytes(b"another")
    status, output = june("sort", "--undo", str(piles / "piles.csv"))
    assert status == 1
    assert "broken.png: another file has its name now, so it stays in its pile" in output
    assert ((photos / "broken.png").read_bytes(), len(_tree(photos))) == (b"another", 14)
    (photos / "broken.png").unlink()
    assert june("sort", "--undo", str(piles / "piles.csv"))[0] == 0
    assert _tree(photos) == before


def test_with_a_band_the_uncertain_ones_have_a_pile_of_their_own_and_go_over_when_it_changes(
    june: Twofold, photos: Path, tmp_path: Path
) -> None:
    """In each picture's one pile; those that a person has put elsewhere stay there."""
    rows, piles = _answers(june, "june", tmp_path / "june.csv"), tmp_path / "piles"
    _sort(june, piles)
    found = _sort(june, piles, "--unsure", "0.001:0.999")
    assert set(_tree(piles)) == _expected(rows, 0.001, 0.999)
    assert found["moved_over"] == found["piles"]["unsure"] > 0
    assert sorted(_tree(piles).values()) == sorted(_tree(photos).values())
    mine = next(path for path in (piles / "unsure").iterdir() if path.is_file())
    (piles / "eight").mkdir(exist_ok=True)
    mine.rename(piles / "eight" / mine.name)
    for _ in range(2):
        again = _sort(june, piles, "--unsure", "0.001:0.999")
        assert (piles / "eight" / mine.name).is_file()
        assert not mine.exists()
        assert again["piles"]["unsure"] == found["piles"]["unsure"] - 1
    assert _sort(june, piles)["piles"]["eight"] >= 1
    assert sorted(_tree(piles).values()) == sorted(_tree(photos).values())


@pytest.mark.parametrize(
    ("estimate", "said"),
    [
        (None, "june has no audit. Run '{0} batch audit june'"),
        (b'{"unsure": null}', "The audit of june proposes no band."),
        (b'{"unsure": [0.7, 0.3]}', "is not what 'batch audit' wrote"),
        (b"[]", "is not what 'batch audit' wrote"),
        (b'{"unsure": [0.6, 0.7]}', "must hold the threshold"),
        (b'{"unsure": [0.001, 0.999], "more": 1}', ""),
    ],
)
def test_the_band_can_be_the_one_that_the_audit_proposes(
    submitted: Submitted, june: Twofold, tmp_path: Path, estimate: bytes | None, said: str
) -> None:
    """Where there is none, the message says what to type."""
    if estimate is not None:
        submitted.bench.put("predictions/june/audit/estimate.json", estimate)
    status, output = june("sort", "june", "--to", str(tmp_path / "piles"), "--unsure", "audit", "--json")
    assert (status, said.format(program()) in output) == (1 if said else 0, True), output
    if not said:
        rows = _answers(june, "june", tmp_path / "june.csv")
        assert set(_tree(tmp_path / "piles")) == _expected(rows, 0.001, 0.999)


def test_a_decision_of_the_job_makes_the_pile_unsure_unless_it_is_left_out(
    twofold: Twofold, work: Work, own_photos: Path, tmp_path: Path
) -> None:
    """Of the model or of the submit."""
    twofold("submit", str(own_photos), "--job-id", "june", "--unsure", "0.001:0.999")
    work()
    rows = _answers(twofold, "june", tmp_path / "june.csv")
    _sort(twofold, tmp_path / "piles")
    assert set(_tree(tmp_path / "piles")) == _expected(rows, 0.001, 0.999)
    _sort(twofold, tmp_path / "piles", "--unsure", "none")
    assert set(_tree(tmp_path / "piles")) == _expected(rows)


def test_a_redriven_picture_changes_its_pile_with_its_new_bytes(
    twofold: Twofold, work: Work, own_photos: Path, tmp_path: Path
) -> None:
    """What it was before is set aside, and nothing is lost."""
    piles = tmp_path / "piles"
    broken = (own_photos / "broken.png").read_bytes()
    twofold("submit", str(own_photos), "--job-id", "june")
    work()
    _sort(twofold, piles)
    shutil.copy(next(own_photos.glob("0*.png")), own_photos / "broken.png")
    twofold("redrive", "june")
    work()
    status, output = twofold("sort", "june-r1", "--to", str(piles))
    assert (status, "june-r1 is a redrive of june." in output) == (1, True), output
    found = _sort(twofold, piles)
    assert (found["new"], found["set_aside"], "failed" in found["piles"]) == (1, 1, False)
    (aside,) = (piles / "replaced").iterdir()
    assert aside.read_bytes() == broken
    shutil.rmtree(piles / "replaced")
    assert set(_tree(piles)) == _expected(_answers(twofold, "june", tmp_path / "june.csv"))


def test_a_file_with_the_name_of_a_picture_is_never_overwritten(june: Twofold, photos: Path, tmp_path: Path) -> None:
    """It is named, the exit status is 1, and the rest goes on. One with the same bytes counts as there."""
    rows, piles = _answers(june, "june", tmp_path / "june.csv"), tmp_path / "piles"
    mine, same = sorted(file for file in _expected(rows) if "failed" not in file)[:2]
    for file, body in ((mine, b"mine"), (same, (photos / same.partition("/")[2]).read_bytes())):
        (piles / file).parent.mkdir(parents=True, exist_ok=True)
        (piles / file).write_bytes(body)
    status, output = june("sort", "june", "--to", str(piles))
    assert (status, f"{mine}: there is another file of that name" in output) == (1, True), output
    assert (piles / mine).read_bytes() == b"mine"
    assert set(_tree(piles)) == _expected(rows)
    (piles / mine).unlink()
    again = _sort(june, piles)
    assert (again["new"], again["already_there"]) == (1, 13)


def test_a_link_in_the_target_is_never_followed(june: Twofold, tmp_path: Path) -> None:
    """Neither one in the place of a pile, nor one in the place of a picture, nor one in the place of the list."""
    rows = _answers(june, "june", tmp_path / "june.csv")
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("eight", "_piles", ".twofold-drafts"):
        piles = tmp_path / f"piles-{name}"
        piles.mkdir()
        (piles / name).symlink_to(outside)
        status, output = june("sort", "june", "--to", str(piles))
        assert (status, f"{name} is not a folder, or a link to one. Links are not followed" in output) == (1, True)
    piles = tmp_path / "piles"
    file = min(_expected(rows))
    (piles / file).parent.mkdir(parents=True)
    (piles / file).symlink_to(outside / "new.png")
    assert june("sort", "june", "--to", str(piles))[0] == 1
    assert (piles / file).is_symlink()
    assert list(outside.iterdir()) == []


def test_what_is_not_on_this_machine_any_more_comes_from_where_it_was_uploaded(
    june: Twofold, photos: Path, tmp_path: Path
) -> None:
    """Gone, changed, or a link: the piles have what was scored, and a changed file is not moved."""
    before = _tree(photos)
    (photos / "00 é+%.png").unlink()
    (photos / "02 é+%.png").write_bytes(b"edited")
    (photos / "04 é+%.png").rename(tmp_path / "elsewhere.png")
    (photos / "04 é+%.png").symlink_to(tmp_path / "elsewhere.png")
    found = _sort(june, tmp_path / "piles", "--how", "move")
    assert (found["new"], found["copied_instead"]) == (14, 3)
    assert sorted(_tree(tmp_path / "piles").values()) == sorted(before.values())
    assert set(_tree(photos)) == {"02 é+%.png", "04 é+%.png"}
    assert june("sort", "--undo", str(tmp_path / "piles" / "piles.csv"))[0] == 0
    assert set(before) - set(_tree(photos)) == {"00 é+%.png"}


def test_a_file_outside_the_folder_that_was_submitted_is_not_moved(
    twofold: Twofold, work: Work, own_photos: Path, tmp_path: Path
) -> None:
    """Whoever can write to the job's folder could otherwise move any file whose bytes they know."""
    secret = tmp_path / "known.png"
    shutil.copy(own_photos / "00 é+%.png", secret)
    (own_photos / "list.csv").write_text("source_ref\n../known.png\n00 é+%.png\n")
    twofold("submit", str(own_photos / "list.csv"), "--job-id", "june")
    work()
    found = _sort(twofold, tmp_path / "piles", "--how", "move")
    assert (found["new"], found["copied_instead"]) == (2, 1)
    assert secret.is_file()
    assert not (own_photos / "00 é+%.png").exists()
    assert {Path(file).name for file in _tree(tmp_path / "piles")} == {"known.png", "00 é+%.png"}


def test_a_row_that_names_nothing_that_may_be_read_is_named_and_nothing_is_read(
    bench: Bench, desk: Desk, twofold: Twofold, digit_images: Path, tmp_path: Path
) -> None:
    """A list may name what its author must not see, and the worker refused it. What is gone is named, too."""
    body = next(digit_images.rglob("*.png")).read_bytes()
    bench.s3.create_bucket(Bucket=f"{bench.bucket}-private")
    bench.s3.put_object(Bucket=f"{bench.bucket}-private", Key="secret.png", Body=body)
    refs = [
        "no URI",
        f"s3://{bench.bucket}-private/secret.png",
        bench.put("in/a.png", body),
        bench.put("in/b.png", body),
    ]
    desk.handle(ClassifyRequest(schema_version=1, job_id="june", images=(*refs, refs[2])))
    bench.s3.delete_object(Bucket=bench.bucket, Key="in/b.png")
    status, output = twofold("sort", "june", "--to", str(tmp_path / "piles"), "--json")
    found = json.loads(output.splitlines()[0])
    assert (status, found["listed_twice"], sum(found["piles"].values())) == (1, 1, 1)
    assert [one["picture"] for one in found["unplaced"]] == [refs[0], refs[1], refs[3]]
    assert "no such object" in found["unplaced"][2]["reason"]
    assert [Path(file).name for file in _tree(tmp_path / "piles")] == ["a.png"]


@ON_BOTH_EMULATORS
def test_pictures_in_buckets_are_sorted_into_a_folder_or_a_prefix(
    bench: Bench, desk: Desk, twofold: Twofold, work: Work, digit_images: Path, tmp_path: Path
) -> None:
    """Below the prefix that was submitted, they keep their names; the copies in S3 have the same bytes and tags."""
    for number, path in enumerate(sorted(digit_images.rglob("*.png"))[::60][:5]):
        bench.put(f"in/{number % 2}/a é+%{number // 2}.png", path.read_bytes())
    bench.put("in/1/A É+%0.png", b"not an image")
    bench.s3.put_object_tagging(
        Bucket=bench.bucket, Key="in/0/a é+%0.png", Tagging={"TagSet": [{"Key": "owner", "Value": "ada"}]}
    )
    twofold("submit", f"s3://{bench.bucket}/in/", "--job-id", "june")
    work()
    rows = _answers(twofold, "june", tmp_path / "june.csv")
    wanted = {f"{row['label'] or 'failed'}/{row['source_ref'].partition('/in/')[2]}" for row in rows}
    folder = _sort(twofold, tmp_path / "piles")
    names = set(_tree(tmp_path / "piles"))
    assert len(wanted) == 6
    assert {re.sub("-[0-9a-f]{8}", "", name) for name in names} == wanted  # one has the name of another, in capitals
    prefix = f"s3://{bench.bucket}/sorted/piles"
    found = _sort(twofold, prefix)
    assert found["piles"] == folder["piles"]
    assert {key.removeprefix("sorted/piles/") for key in bench.keys("sorted/")} == {*names, "piles.csv"}
    for name in names:
        assert bench.get(f"{prefix}/{name}") == (tmp_path / "piles" / name).read_bytes()
    over = _sort(twofold, prefix, "--unsure", "0:1")
    assert over["piles"] == {"unsure": 5, "failed": 1}
    assert {key.split("/")[2] for key in bench.keys("sorted/piles/")} == {"unsure", "failed", "piles.csv"}
    assert _sort(twofold, prefix, "--unsure", "0:1")["already_there"] == 6
    tagged = bench.s3.get_object_tagging(Bucket=bench.bucket, Key="sorted/piles/unsure/0/a é+%0.png")["TagSet"]
    assert tagged == [{"Key": "owner", "Value": "ada"}]


def test_a_copy_in_a_bucket_overwrites_nothing(submitted: Submitted, june: Twofold, tmp_path: Path) -> None:
    """An object of another content is named, and one with the same content counts as there."""
    bench = submitted.bench
    rows = _answers(june, "june", tmp_path / "june.csv")
    mine, same = sorted(file for file in _expected(rows) if "failed" not in file)[:2]
    (body,) = (bench.get(row["source_ref"]) for row in rows if same.endswith(f"/{row['file']}"))
    bench.put(f"piles/{mine}", b"mine")
    bench.put(f"piles/{same}", body)
    found = _sort(june, f"s3://{bench.bucket}/piles/", status=1)
    assert [one["reason"] for one in found["unplaced"]] == [f"{mine}: there is another file of that name"]
    assert (found["new"], found["already_there"]) == (12, 1)
    assert bench.get(f"s3://{bench.bucket}/piles/{mine}") == b"mine"


@ON_BOTH_EMULATORS
def test_tags_are_added_to_the_objects_and_taken_away_again(
    bench: Bench, desk: Desk, twofold: Twofold, work: Work, digit_images: Path, tmp_path: Path
) -> None:
    """Other tags stay, also those that were added since; an object with ten tags is named."""
    for number, path in enumerate(sorted(digit_images.rglob("*.png"))[::100][:3]):
        bench.put(f"in/{number}.png", path.read_bytes())

    def tags(number: int) -> dict[str, str]:
        found = bench.s3.get_object_tagging(Bucket=bench.bucket, Key=f"in/{number}.png")["TagSet"]
        return {tag["Key"]: tag["Value"] for tag in found}

    def tag(number: int, **values: str) -> None:
        pairs = [{"Key": key, "Value": value} for key, value in values.items()]
        bench.s3.put_object_tagging(Bucket=bench.bucket, Key=f"in/{number}.png", Tagging={"TagSet": pairs})

    tag(0, owner="ada")
    tag(2, **{f"k{number}": "v" for number in range(10)})
    twofold("submit", f"s3://{bench.bucket}/in/", "--job-id", "june")
    work()
    labels = [row["label"] for row in _answers(twofold, "june", tmp_path / "june.csv")]
    found = _sort(twofold, tmp_path / "list", "--how", "tag", status=1)
    assert (tags(0), tags(1)) == ({"owner": "ada", "twofold-pile": labels[0]}, {"twofold-pile": labels[1]})
    assert len(tags(2)) == 10
    assert "it has 10 tags already" in found["unplaced"][0]["reason"]
    again = _sort(twofold, tmp_path / "list", "--how", "tag", "--unsure", "0:1", status=1)
    assert (again["moved_over"], tags(1)) == (2, {"twofold-pile": "unsure"})
    tag(1, added="since", **tags(1))
    status, output = twofold("sort", "--undo", str(tmp_path / "list" / "piles.csv"), "--json")
    assert (status, json.loads(output)["restored"]) == (0, 2), output
    assert (tags(0), tags(1), len(tags(2))) == ({"owner": "ada"}, {"added": "since"}, 10)


def test_a_dry_run_counts_pictures_and_bytes_and_does_nothing(june: Twofold, photos: Path, tmp_path: Path) -> None:
    """By pile."""
    size = sum(path.stat().st_size for path in photos.rglob("*.png"))
    found = _sort(june, tmp_path / "piles", "--dry-run", "--how", "move")
    assert (found["size_bytes"], found["is_estimate"], sum(found["piles"].values())) == (size, False, 14)
    assert not (tmp_path / "piles").exists()
    status, output = june("sort", "june", "--to", str(tmp_path / "piles"), "--dry-run")
    assert (status, output.splitlines()[0]) == (0, f"june: 14 images, {size / 1e3:,.0f} kB")
    assert output.endswith("Nothing was done.\n")


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["june"], 2, "name a folder for the piles, such as --to june-piles"),
        (["june", "--how", "tag"], 2, "name a folder for its list"),
        (["june", "--to", "x", "--how", "throw"], 2, "must be copy, link, move or tag, not 'throw'"),
        (["june", "--to", "s3://a-bucket/x", "--how", "move"], 2, "puts files into a folder of this machine"),
        (["june", "--to", "s3://A/x"], 2, "must be s3://BUCKET or s3://BUCKET/PREFIX"),
        (["june", "--to", "https://x/y"], 2, "must be a folder or an s3:// prefix"),
        (["june", "--to", "x", "--unsure", "some"], 2, "must be two scores from 0 to 1"),
        ([], 2, "name the job, or an older list with --undo"),
        (["june", "--to", "x", "--unsure", "0.6:0.7"], 1, "must hold the threshold: 0.5 is not from 0.6 to 0.7"),
        (["june", "--to", "x", "--how", "tag"], 1, "files of this machine, which have no tags"),
        (["june", "--to", "x", "--how", "move"], 1, "nobody can be asked here. Add --yes to do it"),
        (["nowhere", "--to", "x"], 1, "No job named nowhere"),
        (["--undo", "x/piles.csv"], 1, "There is no piles.csv in x"),
        (["--undo", "x/other.csv"], 1, "x/other.csv is not a list that 'batch sort' wrote"),
    ],
)
def test_what_cannot_be_sorted_is_refused_with_the_next_step(
    june: Twofold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], status: int, said: str
) -> None:
    """Before anything is written."""
    monkeypatch.chdir(tmp_path)
    found, output = june("sort", *options)
    assert (found, said in " ".join(output.split())) == (status, True), output
    assert not (tmp_path / "x").exists()


def test_piles_and_results_are_kept_apart(
    submitted: Submitted, june: Twofold, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a job that is not complete is refused."""
    status, output = june("sort", "june", "--to", f"{submitted.bench.output_uri}june/piles")
    assert (status, "must be apart. Choose another --to" in output) == (1, True), output
    (tmp_path / "list.csv").write_text("source_ref\nno URI\n")
    monkeypatch.setenv("TWOFOLD_QUEUE_URL", bench.queues.requests_url)
    assert june("submit", str(tmp_path / "list.csv"), "--job-id", "july")[0] == 0
    status, output = june("sort", "july", "--to", str(tmp_path / "x"))
    assert (status, "july is not complete yet. Wait for it:" in output) == (1, True), output


@pytest.fixture(scope="module")
def commands() -> Iterator[Template]:
    """Starts commands quickly."""
    loaded = (
        "jobs.commands.batch_commands",
        "jobs.batch.folder_placer",
        "jobs.batch.s3_placers",
        "jobs.batch.unsorting",
    )
    with Template(*loaded) as template:
        yield template


def _contents(*folders: Path) -> list[str]:
    """The digests of all pictures below some folders."""
    return sorted(digest for folder in folders for digest in _tree(folder).values())


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("how", ["copy", "move", "s3"])
def test_a_sort_that_is_killed_and_typed_again_loses_and_doubles_no_picture(
    submitted: Submitted, photos: Path, commands: Template, tmp_path: Path, how: str, kills: int
) -> None:
    """SIGKILL at random instants, and other bands in between; what was moved is undone under kills as well."""
    luck, bench = random.Random(kills), submitted.bench
    before, piles = _contents(photos), tmp_path / "piles"
    prefix = f"killed-{kills}/piles"
    to = f"s3://{bench.bucket}/{prefix}" if how == "s3" else str(piles)
    command = ("batch", "sort", "june", "--to", to, "--how", "move" if how == "move" else "copy", "--yes")

    def sorted_now() -> list[str]:
        if how != "s3":
            return _contents(piles)
        keys = [key for key in bench.keys(f"{prefix}/") if not key.endswith(".csv")]
        return sorted(hashlib.sha256(bench.get(f"s3://{bench.bucket}/{key}")).hexdigest() for key in keys)

    def run(*arguments: str, kill_after: str | None = None) -> None:
        log = tmp_path / f"log-{luck.random()}"
        environment = os.environ | _settings(bench)
        started = commands.start("jobs.cli", *arguments, environment=environment, log=log)
        if kill_after is None:
            assert started.wait() == 0, started.text()
            return
        started.wait_for(kill_after)
        time.sleep(luck.uniform(0.0, 0.25 if how == "s3" else 0.06))
        started.kill()

    for number in range(kills):
        band = ("--unsure", "0.001:0.999") if number % 3 == 2 else ()
        run(*command, *band, kill_after="✓ Reading the rows")
        assert set(before) <= {*_contents(photos), *sorted_now()}
    run(*command)
    assert sorted_now() == before
    assert _contents(photos) == ([] if how == "move" else before)
    if how == "move":
        undo = ("batch", "sort", "--undo", str(piles / "piles.csv"))
        for _ in range(kills // 3):
            run(*undo, kill_after="")
            assert set(before) <= {*_contents(photos), *sorted_now()}
        if (piles / "piles.csv").exists():  # otherwise the last one was done before it was killed
            run(*undo)
        assert (_contents(photos), sorted_now()) == (before, [])
