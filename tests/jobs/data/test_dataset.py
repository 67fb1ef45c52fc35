"""What is left out, and when it is too much."""

import csv
import shutil
from pathlib import Path

import pytest

from jobs.data.dataset import COLUMNS, Dataset, DatasetCode, Quarantined, Reason, check_share, quarantine_csv
from jobs.data.loader import Reader
from jobs.user_error import UserError
from tests.conftest import REPOSITORY
from tests.jobs.data.pictures import folder, open_data
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
def test_of_copies_in_two_splits_the_one_that_counts_for_more_stays(
    tmp_path: Path, original: str, copy: str, leaves: str
) -> None:
    """Test before validation before training; the reason names the one that stays."""
    data = _splits(tmp_path)
    _copy(data, original, copy)
    found = open_data(data)
    assert _codes(found) == {leaves: "duplicate"}
    stays = copy if leaves == original else original
    assert stays in found.quarantined[0].reason.message
    assert len(found) == 60


def test_copies_within_a_split_and_a_class_stay(tmp_path: Path) -> None:
    """They promise nothing that is not true, and stay also where a third copy leaves another split."""
    data = _splits(tmp_path)
    _copy(data, "train/cats/001.png", "test/cats/twice.png", "test/cats/thrice.png")
    _copy(data, "train/cats/000.png", "train/cats/copy.png")
    _copy(data, "test/cats/000.png", "test/cats/copy.png")
    found = open_data(data)
    assert (_codes(found), len(found)) == ({"train/cats/001.png": "duplicate"}, 63)


def test_a_picture_in_both_classes_leaves_with_all_its_copies(tmp_path: Path) -> None:
    """The test set's copy too: it has no right answer."""
    data = _splits(tmp_path)
    copies = ("train/dogs/copy.png", "test/cats/copy.png")
    _copy(data, "train/cats/000.png", *copies)
    found = open_data(data, max_quarantined=0.1)
    assert _codes(found) == dict.fromkeys(("train/cats/000.png", *copies), "conflicting_label")
    reasons = {item.image.ref: item.reason.message for item in found.quarantined}
    assert "train/dogs/copy.png" in reasons["test/cats/copy.png"]


def test_where_we_split_no_picture_is_on_both_sides(tmp_path: Path) -> None:
    """Each picture is there three times: what is learned from is never what is tested with."""
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


def test_copies_that_are_no_pictures_keep_their_own_reason(tmp_path: Path) -> None:
    """Empty files are all equal; they are empty, and not in conflict."""
    data = _splits(tmp_path)
    for name in ("train/cats/a.png", "train/dogs/a.png", "test/cats/a.png"):
        (data / name).touch()
    found = open_data(data)
    reader = Reader(32)
    left_out = reader.read(found.train + found.validation + found.test).left_out
    assert _codes(found) == {}
    assert {item.reason.code for item in left_out} == {ErrorCode.EMPTY}
    assert len(left_out) == 3


def test_a_split_that_copies_leave_empty_is_told(tmp_path: Path) -> None:
    """A model of one class would be the alternative."""
    data = _splits(tmp_path)
    for path in (data / "validation" / "cats").iterdir():
        _copy(data, f"validation/cats/{path.name}", f"test/cats/copy-{path.name}")
    with pytest.raises(UserError, match="validation split has no image of class cats left"):
        open_data(data)


def _left_out(dataset: Dataset, count: int) -> list[Quarantined]:
    cats = [image for image in dataset.train if image.label == 0]
    return [Quarantined(image, Reason(ErrorCode.DAMAGED, "breaks off")) for image in cats[:count]]


def test_too_many_left_out_of_a_class_stop_the_job(tmp_path: Path) -> None:
    """30 cats: one is 3 %, two are 7 %. The message names the count, the files, and the way to allow it."""
    found = open_data(_splits(tmp_path))
    check_share(found, _left_out(found, 1), 0.05)
    with pytest.raises(UserError, match="2 of the 30 files of class cats") as caught:
        check_share(found, _left_out(found, 2), 0.05)
    assert "train/cats/001.png: damaged, breaks off" in str(caught.value)
    assert "--max-quarantined 0.07" in str(caught.value)
    check_share(found, _left_out(found, 2), 0.07)
    with pytest.raises(UserError, match="and 7 more"):
        check_share(found, _left_out(found, 12), 0.05)


def test_duplicates_do_not_count_and_conflicts_do(tmp_path: Path) -> None:
    """Of a duplicate the class still has the picture; of a conflict no class has."""
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


def test_the_list_says_where_each_file_was_and_why_it_left(tmp_path: Path) -> None:
    """As text that a spreadsheet does not run."""
    data = _splits(tmp_path)
    _copy(data, "train/cats/000.png", "test/cats/=cmd.png")
    found = open_data(data)
    left_out = found.quarantined + _left_out(found, 1)
    lines = list(csv.reader(quarantine_csv(("=cats", "dogs"), left_out).decode().splitlines()))
    assert tuple(lines[0]) == COLUMNS
    assert lines[1][:4] == ["train/cats/000.png", "train", "'=cats", "duplicate"]
    assert "test/cats/=cmd.png" in lines[1][4]
    assert lines[2] == ["train/cats/001.png", "train", "'=cats", "damaged", "breaks off"]


def test_the_readme_explains_every_reason() -> None:
    """Whoever finds a code in the list finds it there too."""
    readme = (REPOSITORY / "jobs/README.md").read_text()
    assert [code for code in DatasetCode if f"`{code}`" not in readme] == []
    assert f"`{','.join(COLUMNS)}`" in readme
