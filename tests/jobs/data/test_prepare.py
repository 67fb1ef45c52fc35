"""From a folder to labelled images."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.data.dataset import LabelledImage
from jobs.data.loader import Reader
from jobs.user_error import UserError
from tests.jobs.data.pictures import folder, open_data, picture


def _refs(images: list[LabelledImage]) -> set[str]:
    return {image.ref for image in images}


def test_two_folders_are_split_three_ways_without_overlap(tmp_path: Path) -> None:
    """Every image is in exactly one split, and each split has both classes in their proportion."""
    found = open_data(folder(tmp_path, cats=50, dogs=100))
    parts = [found.train, found.validation, found.test]
    assert [len(part) for part in parts] == [96, 24, 30]
    assert sum(len(_refs(part)) for part in parts) == len(set().union(*map(_refs, parts))) == 150
    assert [sum(image.label for image in part) for part in parts] == [64, 16, 20]
    assert [{image.split for image in part} for part in parts] == [{"train"}, {"validation"}, {"test"}]
    assert found.labels == ("cats", "dogs")


@pytest.mark.parametrize("name", ["test", "validation"])
def test_a_test_set_of_its_own_is_the_test_set(tmp_path: Path, name: str) -> None:
    """As in the seed's data, where the folder is called validation; 20 % of train/ validates."""
    folder(tmp_path / "train", cats=20, dogs=20)
    folder(tmp_path / name, cats=4, dogs=4)
    found = open_data(tmp_path)
    assert [len(part) for part in (found.train, found.validation, found.test)] == [32, 8, 8]
    assert all(ref.startswith(f"{name}/") for ref in _refs(found.test))


def test_three_folders_are_what_they_are_called(tmp_path: Path) -> None:
    """Nothing is split then."""
    for name, count in (("train", 6), ("validation", 4), ("test", 2)):
        folder(tmp_path / name, cats=count, dogs=count)
    found = open_data(tmp_path)
    assert [len(part) for part in (found.train, found.validation, found.test)] == [12, 8, 4]
    assert all(ref.startswith("validation/") for ref in _refs(found.validation))


def test_a_folder_around_the_dataset_is_looked_through(tmp_path: Path) -> None:
    """As archives have it: names and digest are those of what lies in it."""
    data = folder(tmp_path / "pets", cats=5, dogs=5)
    around = tmp_path / "around"
    shutil.copytree(data, around / "pets-v1" / "pets")
    assert open_data(around).digest == open_data(data).digest
    folder(tmp_path / "split" / "train", cats=5, dogs=5)  # train/ is no wrapper
    assert all(ref.startswith("train/") for ref in _refs(open_data(tmp_path / "split").train))


def test_the_same_seed_is_the_same_split(tmp_path: Path) -> None:
    """And another seed is another."""
    data = folder(tmp_path, cats=20, dogs=20)
    assert open_data(data) == open_data(data)
    assert open_data(data) != open_data(data, seed=124)


def test_what_systems_leave_behind_is_ignored(tmp_path: Path) -> None:
    """Hidden files and those of a system; a folder of thumbnails would be images too, and a third class."""
    data = folder(tmp_path, cats=5, dogs=5)
    digest = open_data(data).digest
    for name in ("cats/.DS_Store", "cats/Thumbs.db", "cats/@eaDir/000.png", "__MACOSX/cats/._000.png", ".git/config"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text("x")
    (data / "lost+found").mkdir()
    (data / "README.txt").write_text("beside the class folders")
    assert open_data(data).digest == digest


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({}, "found 0: none"),
        ({"cats": 3}, "found 1: cats"),
        ({"cats": 3, "dogs": 3, "eels": 3}, "found 3: cats, dogs, eels"),
        ({"cats": 0, "dogs": 3}, "cats holds 0 files"),
        ({"cats": 1, "dogs": 3}, "cats holds 1 files"),
        ({"cats": 2, "dogs": 2}, "too few to split"),
        ({"test": 2, "validation": 2}, "no train"),
    ],
)
def test_what_is_no_two_class_dataset_is_named(tmp_path: Path, counts: dict[str, int], said: str) -> None:
    """With what was found there."""
    with pytest.raises(UserError, match=said):
        open_data(folder(tmp_path, **counts))


def test_classes_that_differ_between_splits_are_refused(tmp_path: Path) -> None:
    """A test set of other classes would be reported as a bad model."""
    folder(tmp_path / "train", cats=4, dogs=4)
    folder(tmp_path / "test", cats=4, eels=4)
    with pytest.raises(UserError, match="cats, eels"):
        open_data(tmp_path)


@pytest.mark.parametrize(
    ("data", "said"),
    [("no-such-folder", "no-such-folder is no folder"), ("ftp://u:secret@host/a.zip", "ftp://host/a.zip is no folder")],
)
def test_a_missing_folder_is_named(data: str, said: str) -> None:
    """Before anything slow happens, and without a secret."""
    with pytest.raises(UserError, match=said):
        open_data(data)


def test_a_label_that_is_a_formula_is_a_label(tmp_path: Path) -> None:
    """What a spreadsheet would run is text here; the CSV writer guards it."""
    assert open_data(folder(tmp_path, **{"=cmd|' C calc'!A0": 5, "dogs": 5})).labels == ("=cmd|' C calc'!A0", "dogs")


def test_a_label_that_no_bundle_could_hold_is_refused_at_once(tmp_path: Path) -> None:
    """And not when all is trained."""
    with pytest.raises(UserError, match="cannot be the name of a class"):
        open_data(folder(tmp_path, **{"x" * 129: 5, "dogs": 5}))


def test_links_in_a_folder_are_followed_but_never_in_a_circle(tmp_path: Path) -> None:
    """A dataset of links is a common thing; a link to nothing is left out, with its reason."""
    pictures = folder(tmp_path / "all", one=5, two=40)
    (tmp_path / "view" / "dogs").mkdir(parents=True)
    (tmp_path / "view" / "cats").symlink_to(pictures / "one")
    for path in (pictures / "two").iterdir():
        (tmp_path / "view" / "dogs" / path.name).symlink_to(path)
    (tmp_path / "view" / "dogs" / "circle").symlink_to(tmp_path / "view")
    (tmp_path / "view" / "dogs" / "nothing.png").symlink_to("gone.png")
    found = open_data(tmp_path / "view")
    assert len(found) == 45
    assert [(item.image.ref, item.reason.code) for item in found.quarantined] == [("dogs/nothing.png", "not_a_file")]


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def _grow(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(33 * 1024**2)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda path: path.write_text("<html>"), "not_an_image"),
        (lambda path: path.write_bytes(b""), "empty"),
        (_truncate, "damaged"),
        (_grow, "too_many_bytes"),
    ],
)
def test_what_cannot_be_decoded_is_left_out(tmp_path: Path, spoil: Callable[[Path], object], code: str) -> None:
    """Never a crash, never silent: each other image is read, and the odd one has its reason."""
    data = folder(tmp_path, cats=5, dogs=5)
    spoil(data / "cats" / "002.png")
    found = open_data(data)
    chunk = Reader(32).read(found.train + found.validation + found.test)
    assert len(chunk.images) == len(chunk.pixels) == 9
    assert [(item.image.ref, item.reason.code) for item in chunk.left_out] == [("cats/002.png", code)]


def test_the_dataset_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    """Equal for a copy, another when a single image is another or is called something else."""
    data = folder(tmp_path / "one", cats=5, dogs=5)
    copy = Path(shutil.copytree(data, tmp_path / "two"))
    assert open_data(copy).digest == open_data(data).digest
    (copy / "cats" / "000.png").rename(copy / "cats" / "900.png")
    renamed = open_data(copy).digest
    picture(copy / "cats" / "900.png", 1)
    assert len({open_data(data).digest, renamed, open_data(copy).digest}) == 3


def test_the_odd_images_are_read_or_listed_each(shared: Path, tmp_path: Path) -> None:
    """A folder salted with files that image libraries keep as test inputs: none is lost, none stops the rest."""
    odd = sorted((shared / "data/odd_images").iterdir())
    data = folder(tmp_path, cats=10, dogs=10)
    for number, path in enumerate(odd):
        shutil.copy(path, data / ("cats", "dogs")[number % 2] / path.name)
    found = open_data(data)
    chunk = Reader(32).read(found.train + found.validation + found.test)
    read = {image.ref for image in chunk.images}
    listed = {item.image.ref for item in found.quarantined + chunk.left_out}
    every = {path.relative_to(data).as_posix() for path in data.rglob("*") if path.is_file()}
    assert read | listed == every
    assert not read & listed
    assert len(every) == 20 + len(odd)
    assert {"cats/MADE_html_error_page.jpg", "dogs/MADE_html_error_page.jpg"} & listed
    assert len(read) > 30
