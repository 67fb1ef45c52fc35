"""From a folder to labelled images."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from jobs.config import TrainConfig
from jobs.dataset import open_dataset
from jobs.errors import UserError
from jobs.labelled import Dataset, LabelledImage
from jobs.progress import Reporter
from jobs.quarantine import quarantine_csv
from jobs.reader import Reader
from tests.conftest import REPOSITORY


def _folder(root: Path, **counts: int) -> Path:
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (40, 30), (number * 20 % 256, 90, 30)).save(root / name / f"{number:03d}.png")
    return root


def _open(data: Path, **options: object) -> Dataset:
    config = TrainConfig.model_validate({"data": data, "output": "out", **options})
    return open_dataset(config, Reporter(quiet=True))


def _refs(images: list[LabelledImage]) -> set[str]:
    return {image.ref for image in images}


def test_two_folders_are_split_three_ways_without_overlap(tmp_path: Path) -> None:
    """Every image is in exactly one split, and each split has both classes in their proportion."""
    splits = _open(_folder(tmp_path, cats=50, dogs=100))
    parts = [splits.train, splits.validation, splits.test]
    assert [len(part) for part in parts] == [96, 24, 30]
    assert sum(len(_refs(part)) for part in parts) == len(set().union(*map(_refs, parts))) == 150
    assert [sum(image.label for image in part) for part in parts] == [64, 16, 20]
    assert splits.labels == ("cats", "dogs")


@pytest.mark.parametrize("name", ["test", "validation"])
def test_a_test_set_of_its_own_is_the_test_set(tmp_path: Path, name: str) -> None:
    """As in the seed's data, where the folder is called validation; 20 % of train/ validates."""
    _folder(tmp_path / "train", cats=20, dogs=20)
    _folder(tmp_path / name, cats=4, dogs=4)
    splits = _open(tmp_path)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [32, 8, 8]
    assert all(ref.startswith(f"{name}/") for ref in _refs(splits.test))


def test_three_folders_are_what_they_are_called(tmp_path: Path) -> None:
    """Nothing is split then."""
    for name, count in (("train", 6), ("validation", 4), ("test", 2)):
        _folder(tmp_path / name, cats=count, dogs=count)
    splits = _open(tmp_path)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [12, 8, 4]
    assert all(ref.startswith("validation/") for ref in _refs(splits.validation))


def test_the_same_seed_is_the_same_split(tmp_path: Path) -> None:
    """And another seed is another."""
    data = _folder(tmp_path, cats=20, dogs=20)
    assert _open(data) == _open(data)
    assert _open(data) != _open(data, seed=124)


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({}, "found 0: none"),
        ({"cats": 3}, "found 1: cats"),
        ({"cats": 3, "dogs": 3, "eels": 3}, "found 3: cats, dogs, eels"),
        ({"cats": 0, "dogs": 3}, "holds 0 files"),
        ({"cats": 1, "dogs": 3}, "holds 1 files"),
        ({"cats": 2, "dogs": 2}, "too few to split"),
    ],
)
def test_what_is_no_two_class_dataset_is_named(tmp_path: Path, counts: dict[str, int], said: str) -> None:
    """With what was found there."""
    with pytest.raises(UserError, match=said):
        _open(_folder(tmp_path, **counts))


def test_classes_that_differ_between_splits_are_refused(tmp_path: Path) -> None:
    """A test set of other classes would be reported as a bad model."""
    _folder(tmp_path / "train", cats=4, dogs=4)
    _folder(tmp_path / "test", cats=4, eels=4)
    with pytest.raises(UserError, match="cats, eels"):
        _open(tmp_path)


def test_a_missing_folder_is_named() -> None:
    """Before anything slow happens."""
    with pytest.raises(UserError, match="no-such-folder"):
        _open(REPOSITORY / "no-such-folder")


def test_what_cannot_be_decoded_is_left_out_and_listed(tmp_path: Path) -> None:
    """Never a crash, never silent."""
    data = _folder(tmp_path, cats=5, dogs=5)
    (data / "cats" / "page.jpg").write_text("<html>")
    (data / "dogs" / "empty.png").touch()
    splits = _open(data)
    reader = Reader(32)
    counted: list[int] = []
    kept = [
        image
        for chunk in reader.chunks(splits.train + splits.validation + splits.test, counted.append)
        for image in chunk.images
    ]
    assert (len(kept), sum(counted)) == (10, 12)
    lines = sorted(quarantine_csv(reader.quarantined).decode().splitlines())
    assert [line.split(",")[:2] for line in lines[:2]] == [
        ["cats/page.jpg", "not_an_image"],
        ["dogs/empty.png", "empty"],
    ]


def test_the_dataset_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    """Equal for a copy, another when a single image is another."""
    data = _folder(tmp_path / "one", cats=5, dogs=5)
    copy = Path(shutil.copytree(data, tmp_path / "two"))
    assert _open(copy).digest == _open(data).digest
    Image.new("RGB", (40, 30), "white").save(copy / "cats" / "000.png")
    assert _open(copy).digest != _open(data).digest
