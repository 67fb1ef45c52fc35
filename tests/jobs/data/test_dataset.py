"""Images that are left out of a dataset, and when there are too many of them."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.data.dataset import (
    COLUMNS,
    Dataset,
    DatasetCode,
    LabelledImage,
    Quarantined,
    Reason,
    check_share,
    quarantine_csv,
)
from jobs.data.loader import ImageLoader
from jobs.user_error import UserError
from tests.conftest import REPOSITORY
from tests.jobs.data.image_folders import folder, open_data
from tests.jobs.report.strict_html import HOSTILE
from worker.errors import ErrorCode

SPLITS = ("train", "validation", "test")


def _splits(root: Path) -> Path:
    for split, count in (("train", 20), ("validation", 6), ("test", 4)):
        folder(root / split, cats=count, dogs=count)
    return root


def _copy(data: Path, original: str, *copies: str) -> None:
    for copy in copies:
        shutil.copy(data / original, data / copy)


def _codes(dataset: Dataset) -> dict[str, str]:
    return {item.image.ref: item.reason.code.value for item in dataset.quarantined}


@pytest.mark.parametrize(
    ("original", "copy", "leaves"),
    [
        ("train/cats/000.png", "test/cats/copy.png", "train/cats/000.png"),
        ("train/cats/000.png", "validation/cats/copy.png", "train/cats/000.png"),
        ("validation/cats/000.png", "test/cats/copy.png", "validation/cats/000.png"),
    ],
)
def test_a_duplicate_stays_in_the_split_that_takes_precedence(
    tmp_path: Path, original: str, copy: str, leaves: str
) -> None:
    """Test before validation before training. The reason names the image that stays."""
    data = _splits(tmp_path)
    _copy(data, original, copy)
    found = open_data(data)
    assert _codes(found) == {leaves: "duplicate"}
    stays = copy if leaves == original else original
    assert stays in found.quarantined[0].reason.message
    assert len(found) == 60


def test_copies_within_one_split_and_class_stay(tmp_path: Path) -> None:
    """They do no harm. They stay even if a third copy is left out of another split."""
    data = _splits(tmp_path)
    _copy(data, "train/cats/001.png", "test/cats/twice.png", "test/cats/thrice.png")
    _copy(data, "train/cats/000.png", "train/cats/copy.png")
    _copy(data, "test/cats/000.png", "test/cats/copy.png")
    found = open_data(data)
    assert (_codes(found), len(found)) == ({"train/cats/001.png": "duplicate"}, 63)


def test_an_image_in_both_classes_is_left_out_with_all_its_copies(tmp_path: Path) -> None:
    """Even from the test set, because it has no right answer."""
    data = _splits(tmp_path)
    copies = ("train/dogs/copy.png", "test/cats/copy.png")
    _copy(data, "train/cats/000.png", *copies)
    found = open_data(data, max_quarantined=0.1)
    assert _codes(found) == dict.fromkeys(("train/cats/000.png", *copies), "conflicting_label")
    reasons = {item.image.ref: item.reason.message for item in found.quarantined}
    assert "train/dogs/copy.png" in reasons["test/cats/copy.png"]


def test_a_split_never_separates_copies_of_an_image(tmp_path: Path) -> None:
    """With three copies of each image, no test image is also trained on."""
    data = folder(tmp_path, cats=20, dogs=20)
    for path in list(data.rglob("*.png")):
        _copy(data, path.relative_to(data).as_posix(), *(f"{path.parent.name}/{path.stem}-{n}.png" for n in range(2)))
    found = open_data(data)
    seen = [{image.sha256 for image in getattr(found, split)} for split in SPLITS]
    assert not seen[0] & seen[1]
    assert not seen[1] & seen[2]
    assert not seen[0] & seen[2]
    assert len(set().union(*seen)) == 40
    assert len(found) + len(found.quarantined) == 120


def test_copies_that_cannot_be_decoded_keep_their_own_reason(tmp_path: Path) -> None:
    """Empty files are all equal. They are reported as empty and not as in conflict."""
    data = _splits(tmp_path)
    for name in ("train/cats/a.png", "train/dogs/a.png", "test/cats/a.png"):
        (data / name).touch()
    found = open_data(data)
    loader = ImageLoader(32)
    left_out = loader.load(found.train + found.validation + found.test).quarantined
    assert _codes(found) == {}
    assert {item.reason.code for item in left_out} == {ErrorCode.EMPTY}
    assert len(left_out) == 3


def test_a_split_without_images_after_deduplication_is_an_error(tmp_path: Path) -> None:
    """Otherwise the model would be validated on one class only."""
    data = _splits(tmp_path)
    for path in (data / "validation" / "cats").iterdir():
        _copy(data, f"validation/cats/{path.name}", f"test/cats/copy-{path.name}")
    with pytest.raises(UserError, match="validation split has no image of class cats left"):
        open_data(data)


def _left_out(dataset: Dataset, count: int) -> list[Quarantined]:
    cats = [image for image in dataset.train if image.label == 0]
    return [Quarantined(image, Reason(ErrorCode.DAMAGED, "breaks off")) for image in cats[:count]]


def test_too_many_left_out_of_a_class_stop_the_job(tmp_path: Path) -> None:
    """Of 30 cats, one is 3 % and two are 7 %. The message has the count, the files, and the option to allow it."""
    found = open_data(_splits(tmp_path))
    check_share(found, _left_out(found, 1), 0.05)
    with pytest.raises(UserError, match="2 of the 30 files of class cats") as caught:
        check_share(found, _left_out(found, 2), 0.05)
    assert "train/cats/001.png: damaged, breaks off" in str(caught.value)
    assert "more than 5 %:" in str(caught.value)
    assert str(caught.value).endswith("--max-quarantined 0.07")
    with pytest.raises(UserError, match=r"At least 2 of the 30 [^+]*--max-quarantined 0.07 or more"):
        check_share(found, _left_out(found, 2), 0.05, counted_all=False)
    check_share(found, _left_out(found, 2), 0.07)
    with pytest.raises(UserError, match="and 7 more"):
        check_share(found, _left_out(found, 12), 0.05)


def test_the_share_in_the_message_lets_every_class_pass(tmp_path: Path) -> None:
    """Both are named, and the advice is that for the class that lost more."""
    found = open_data(_splits(tmp_path))
    dogs = [Quarantined(image, Reason(ErrorCode.EMPTY, "no bytes")) for image in found.train if image.label == 1][:3]
    with pytest.raises(UserError, match="2 of the 30 files of class cats") as caught:
        check_share(found, _left_out(found, 2) + dogs, 0.05)
    assert "3 of the 30 files of class dogs" in str(caught.value)
    assert str(caught.value).endswith("--max-quarantined 0.1")
    check_share(found, _left_out(found, 2) + dogs, 0.1)


def test_duplicates_do_not_count_and_conflicts_do(tmp_path: Path) -> None:
    """After a duplicate is left out, the class still has the image. After a conflict, no class has it."""
    data = _splits(tmp_path)
    for number in range(4):
        _copy(data, f"train/cats/00{number}.png", f"test/cats/copy{number}.png")
    found = open_data(data)
    assert len(found.quarantined) == 4
    check_share(found, found.quarantined + _left_out(found, 1), 0.05)
    for number in range(4, 6):
        _copy(data, f"train/cats/00{number}.png", f"train/dogs/copy{number}.png")
    with pytest.raises(UserError, match="conflicting_label"):
        open_data(data)
    assert len(open_data(data, max_quarantined=0.1).quarantined) == 8


def test_quarantine_csv_says_where_each_file_is_and_why_it_was_left_out(tmp_path: Path) -> None:
    """Its text is guarded, so that a spreadsheet does not run it."""
    data = _splits(tmp_path)
    _copy(data, "train/cats/000.png", "test/cats/=cmd.png")
    found = open_data(data)
    left_out = found.quarantined + _left_out(found, 1)
    lines = list(csv.reader(quarantine_csv(("=cats", "dogs"), left_out).decode().splitlines()))
    assert tuple(lines[0]) == COLUMNS
    assert lines[1][:4] == ["train/cats/000.png", "train", "'=cats", "duplicate"]
    assert "test/cats/=cmd.png" in lines[1][4]
    assert lines[2] == ["train/cats/001.png", "train", "'=cats", "damaged", "breaks off"]


@pytest.mark.parametrize(("text", "shown"), HOSTILE)
def test_no_name_hides_in_quarantine_csv(tmp_path: Path, text: str, shown: str) -> None:
    """Names, labels and messages are shown as in the report, in one line each, and no address with its signature."""
    image = LabelledImage(tmp_path, text, label=0, split="train")
    body = quarantine_csv((text, "dogs"), [Quarantined(image, Reason(ErrorCode.DAMAGED, text))]).decode()
    assert len(body.splitlines()) == 2
    guarded = f"'{shown}" if shown.startswith("=") else shown
    assert list(csv.reader(body.splitlines()))[1] == [guarded, "train", guarded, "damaged", guarded]


def test_a_message_about_files_left_out_shows_their_names_as_the_report_does(tmp_path: Path) -> None:
    """It is printed on a terminal, which control characters could rewrite."""
    found = open_data(_splits(tmp_path))
    hostile = [replace(item, image=replace(item.image, ref="a\x1b[2J\u202e.jpg")) for item in _left_out(found, 3)]
    with pytest.raises(UserError, match=r"a\\x1b\[2J\\u202e\.jpg: damaged"):
        check_share(found, hostile, 0.05)


def test_the_readme_explains_every_reason() -> None:
    """A user who finds a code in quarantine.csv can look it up."""
    readme = (REPOSITORY / "jobs/README.md").read_text()
    assert [code for code in DatasetCode if f"`{code}`" not in readme] == []
    assert f"`{','.join(COLUMNS)}`" in readme
