"""A labelled list as a data set: wherever it is, whatever its order, and with every line accounted for."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from jobs.config import TrainConfig
from jobs.data import bucket
from jobs.data.dataset import Dataset
from jobs.data.listed_images import files_of
from jobs.data.loader import ImageLoader
from jobs.data.prepare import open_dataset
from jobs.labelled_list import read_labelled_list
from jobs.progress import Reporter
from jobs.user_error import UserError
from tests.calls import recorded
from tests.conftest import Bench
from tests.jobs.data.image_folders import QUIET, folder, open_data, write_image
from tests.jobs.data.lists import write_list
from tests.jobs.data.serving import serve
from worker.aws.clients import open_session
from worker.contract import PredictionRow
from worker.errors import ErrorCode, Retry
from worker.predictions import to_csv


@pytest.fixture
def photos(tmp_path: Path) -> dict[str, str]:
    """The labels of twenty photographs next to a list, by name."""
    images = folder(tmp_path / "photos", cats=10, dogs=10)
    return {path.relative_to(tmp_path).as_posix(): path.parent.name for path in sorted(images.rglob("*.png"))}


def _contents(dataset: Dataset) -> list[list[tuple[str, int]]]:
    """The images of each split, by content, since their names say where they are stored."""
    parts = (dataset.train, dataset.validation, dataset.test)
    return [sorted((image.sha256, image.label) for image in part) for part in parts]


def _reasons(dataset: Dataset) -> dict[str, str]:
    return {item.image.ref: item.reason.code.value for item in dataset.quarantined}


def test_a_list_is_a_data_set_of_two_classes_in_three_splits(photos: dict[str, str], tmp_path: Path) -> None:
    """Each class in the same proportion; the names are those of the list."""
    found = open_data(write_list(tmp_path / "labels.csv", photos))
    parts = (found.train, found.validation, found.test)
    assert found.labels == ("cats", "dogs")
    assert [[image.label for image in part].count(1) for part in parts] == [6, 2, 2]
    assert {image.ref: found.labels[image.label] for part in parts for image in part} == photos
    assert all(image.path == tmp_path / image.ref for part in parts for image in part)


def test_order_place_and_names_change_neither_digest_nor_splits(photos: dict[str, str], tmp_path: Path) -> None:
    """Labels, contents and the seed do. A list is the same one after a move, with absolute paths, or as JSON Lines."""
    want = open_data(write_list(tmp_path / "labels.csv", photos))
    reversed_list = write_list(tmp_path / "reversed.csv", dict(reversed(photos.items())))
    absolute = write_list(tmp_path / "absolute.csv", {str(tmp_path / ref): label for ref, label in photos.items()})
    lines = tmp_path / "labels.jsonl"
    lines.write_text("".join(json.dumps({"source_ref": r, "label": x}) + "\n" for r, x in photos.items()))
    shutil.copytree(tmp_path / "photos", tmp_path / "moved/elsewhere")
    moved = write_list(
        tmp_path / "moved/labels.txt", {r.replace("photos", "elsewhere"): label for r, label in photos.items()}
    )
    for same in (reversed_list, absolute, lines, moved):
        found = open_data(same)
        assert (found.digest, _contents(found)) == (want.digest, _contents(want)), same
    photos["photos/cats/003.png"] = "dogs"
    assert open_data(write_list(tmp_path / "changed.csv", photos)).digest != want.digest
    assert _contents(open_data(tmp_path / "labels.csv", seed=5)) != _contents(want)


def test_every_line_is_used_counted_or_quarantined(
    photos: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each with the reason that a folder's file would have. A line without a label is undecided, and not used."""
    (tmp_path / "photos/damaged.png").write_bytes((tmp_path / "photos/cats/000.png").read_bytes()[:40])
    os.mkfifo(tmp_path / "photos/pipe.png")
    names = {
        "photos/none.png": "not_found",
        "photos/cats/000.png/no-folder.png": "not_found",
        "photos": "not_a_file",
        "photos/pipe.png": "not_a_file",
        "https://host/a.png?X-Amz-Signature=5ec7e7": "bad_source_ref",
        "photos/\0.png": "not_found",
    }
    listed = photos | dict.fromkeys(names, "dogs") | {"photos/damaged.png": "cats", "/proc/self/mem": "cats"}
    write_list(tmp_path / "labels.csv", listed | {"photos/undecided.png": None, "photos/cats/001.png": None})
    found = open_data(tmp_path / "labels.csv", max_quarantined=1)
    assert _reasons(found) == names
    loader = ImageLoader(32)
    loader.load(found.train + found.validation + found.test)
    loaded = loader.load([*found.train, *found.validation, *found.test])
    assert {item.image.ref: item.reason.code.value for item in loaded.quarantined} == {
        "photos/damaged.png": "damaged",
        "/proc/self/mem": "access_denied",  # a file that opens, and whose bytes cannot be read
    }
    assert [source.undecided for source in found.sources] == [2]
    assert len(loaded.images) == 19
    with pytest.raises(UserError, match=r"6 of the 16 files of class dogs cannot be used.*(?s:.)*--max-quarantined"):
        open_data(tmp_path / "labels.csv")


def test_undecided_lines_are_said(photos: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Once, when the list is read."""
    write_list(tmp_path / "labels.csv", photos | {"photos/x.png": None})
    open_dataset(TrainConfig(data=str(tmp_path / "labels.csv"), output="out", cache=tmp_path / "cache"), Reporter())
    assert "labels.csv: 1 line without a label, not used\n" in capfd.readouterr().err


def test_predictions_without_corrections_are_refused(photos: dict[str, str], tmp_path: Path) -> None:
    """With the column that is missing. The rows that somebody has corrected are a data set."""
    rows = [
        PredictionRow(row=n, source_ref=ref, label="cats", confidence=0.9, score=0.1, threshold=0.5, model_version="v1")
        for n, ref in enumerate(photos)
    ]
    table = tmp_path / "predictions.csv"
    table.write_bytes(to_csv(rows))
    with pytest.raises(UserError, match=r"what a model said, .* Add a column true_label"):
        open_data(table)
    header, *lines = to_csv(rows).decode().splitlines()
    corrected = [
        f"{line},{label if n % 5 else ''}" for n, (line, label) in enumerate(zip(lines, photos.values(), strict=True))
    ]
    table.write_text("\n".join([f"{header},true_label", *corrected]))
    found = open_data(table)
    assert (len(found), found.labels, found.sources[0].undecided) == (16, ("cats", "dogs"), 4)


def _use(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in bench.environment.items():
        monkeypatch.setenv(name, value)
    session = open_session()
    monkeypatch.setattr("jobs.store.open_session", lambda: session)


def test_a_list_in_a_bucket_is_the_same_data_set_and_its_objects_are_read_once(
    photos: dict[str, str], tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative names begin at its own prefix. A changed object is read again, an unchanged one only asked about."""
    _use(bench, monkeypatch)
    want = open_data(write_list(tmp_path / "labels.csv", photos))
    for ref in photos:
        bench.put(f"lists/{ref}", (tmp_path / ref).read_bytes())
    names = {
        f"s3://{bench.bucket}/lists/{ref}" if n % 2 else f"./x/../{ref}": x for n, (ref, x) in enumerate(photos.items())
    }
    uri = bench.put("lists/labels.csv", write_list(tmp_path / "in-bucket.csv", names).read_bytes())
    cache = tmp_path / "cache"
    found = open_data(uri, cache=cache)
    assert (found.digest, _contents(found)) == (want.digest, _contents(want))
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}
    with recorded() as calls:
        assert open_data(uri, cache=cache).digest == want.digest
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()} == before
    assert [call.operation for call in calls] == ["GetObject"] * 21
    write_image(tmp_path / "photos/cats/000.png", 77)
    bench.put("lists/photos/cats/000.png", (tmp_path / "photos/cats/000.png").read_bytes())
    assert open_data(uri, cache=cache).digest == open_data(tmp_path / "labels.csv").digest != want.digest


def test_what_cannot_be_read_of_a_bucket_is_quarantined_with_its_reason(
    photos: dict[str, str], tmp_path: Path, ministack_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object that is not there, one that is too large, and names that lead to no object. The rest is used."""
    _use(ministack_bench, monkeypatch)
    monkeypatch.setattr(bucket, "MAX_BYTES", 1500)
    there = ministack_bench.put("in/large.png", b"x" * 1501)
    names = {
        f"s3://{ministack_bench.bucket}/in/none.png": "not_found",
        there: "too_many_bytes",
        "s3://No_Bucket/a.png": "bad_source_ref",
        "/photos/a.png": "bad_source_ref",
        "../../../a.png": "bad_source_ref",
    }
    for ref in photos:
        ministack_bench.put(f"lists/{ref}", (tmp_path / ref).read_bytes())
    listed = write_list(tmp_path / "labels.csv", photos | dict.fromkeys(names, "cats")).read_bytes()
    uri = ministack_bench.put("lists/labels.csv", listed)
    found = open_data(uri, cache=tmp_path / "cache", max_quarantined=0.5)
    assert _reasons(found) == names
    assert len(found) == 20


def test_a_list_on_the_web_names_objects_only(
    photos: dict[str, str], tmp_path: Path, ministack_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cached as an archive is, and #sha256= is checked. A path in it would be one of this machine."""
    _use(ministack_bench, monkeypatch)
    names = {ministack_bench.put(ref, (tmp_path / ref).read_bytes()): label for ref, label in photos.items()}
    body = write_list(tmp_path / "web.csv", names | {"/etc/hostname": "cats"}).read_bytes()
    with serve(body, "labels.csv") as site:
        digest = hashlib.sha256(body).hexdigest()
        found = open_data(
            f"{site.url}?X-Amz-Signature=5ec7e7#sha256={digest}", cache=tmp_path / "cache", max_quarantined=0.2
        )
        assert (len(found), _reasons(found)) == (20, {"/etc/hostname": "bad_source_ref"})
        assert "5ec7e7" not in found.sources[0].where
        with pytest.raises(UserError, match="is not the expected file"):
            open_data(f"{site.url}#sha256={'0' * 64}", cache=tmp_path / "cache")


def test_reading_a_list_of_objects_resumes_where_storage_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says so, and no object is read twice."""
    monkeypatch.setattr(bucket, "_READERS", 1)

    class Failing:
        def __init__(self) -> None:
            self.fails_at = "s3://b/7"
            self.answers: list[tuple[str, str | None]] = []

        def read_if_changed(self, uri: str, *, max_bytes: int, known: str | None) -> tuple[bytes, str] | None:
            if uri == self.fails_at:
                raise Retry(ErrorCode.UNAVAILABLE, f"{uri}: slow down")
            self.answers.append((uri, known))
            return None if known else (b"x", f"tag of {uri}")

    storage = Failing()
    uris = [f"s3://b/{number}" for number in range(10)]
    with pytest.raises(UserError, match=r"slow down.*are kept: run the same command again"):
        bucket.read_objects(uris, tmp_path, storage, QUIET, title="Reading")  # type: ignore[arg-type]
    storage.fails_at = ""
    copies = bucket.read_objects(uris, tmp_path, storage, QUIET, title="Reading")  # type: ignore[arg-type]
    assert all(path.read_bytes() == b"x" and reason is None for path, reason in copies.values())
    fetched = [uri for uri, known in storage.answers if known is None]
    assert len(fetched) == len(set(fetched)) == 10


def test_the_files_of_any_source_can_be_searched(photos: dict[str, str], tmp_path: Path) -> None:
    """As ``model verify --data`` does: those that are there."""
    listed = write_list(tmp_path / "labels.csv", photos | {"photos/none.png": "cats"})
    files = files_of(str(listed), tmp_path / "cache", QUIET)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in files) == sorted(photos)


def test_a_line_that_was_reviewed_stays_reviewed_when_it_is_there_twice(photos: dict[str, str], tmp_path: Path) -> None:
    """Equal lines are one image."""
    reviewed = write_list(tmp_path / "a.csv", photos, reviewed=True).read_bytes()
    plain = write_list(tmp_path / "b.csv", photos).read_bytes().partition(b"\n")[2]
    (tmp_path / "both.csv").write_bytes(reviewed + plain)
    assert len(read_labelled_list(reviewed + plain, where="both")) == 40
    found = open_data(tmp_path / "both.csv")
    assert len(found) == 20
    assert all(image.reviewed for image in found.train + found.validation + found.test)


def test_a_list_that_is_too_short_is_refused_with_its_counts(photos: dict[str, str], tmp_path: Path) -> None:
    """A split needs an image of each class."""
    few = dict([*list(photos.items())[:2], *list(photos.items())[-2:]])
    with pytest.raises(
        UserError, match=r"The validation split has no image of class cats left\. 4 images in all are too few"
    ):
        open_data(write_list(tmp_path / "labels.csv", few))
