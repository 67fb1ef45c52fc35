"""From a folder to labelled images in three splits."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.data.dataset import LabelledImage
from jobs.data.loader import ImageLoader
from jobs.user_error import UserError
from tests.jobs.data.image_folders import folder, open_data, pack, write_image


def _refs(images: list[LabelledImage]) -> set[str]:
    return {image.ref for image in images}


def test_two_folders_are_split_three_ways_without_overlap(tmp_path: Path) -> None:
    """Every image is in exactly one split, and each split has the classes in their proportion."""
    found = open_data(folder(tmp_path, cats=50, dogs=100))
    parts = [found.train, found.validation, found.test]
    assert [len(part) for part in parts] == [96, 24, 30]
    assert sum(len(_refs(part)) for part in parts) == len(set().union(*map(_refs, parts))) == 150
    assert [sum(image.label for image in part) for part in parts] == [64, 16, 20]
    assert [{image.split for image in part} for part in parts] == [{"train"}, {"validation"}, {"test"}]
    assert found.labels == ("cats", "dogs")


@pytest.mark.parametrize("name", ["test", "validation"])
def test_a_folder_for_testing_is_the_test_set(tmp_path: Path, name: str) -> None:
    """It may be called validation, as in cats_and_dogs_filtered. 20 % of train/ is then used for validation."""
    folder(tmp_path / "train", cats=20, dogs=20)
    folder(tmp_path / name, cats=4, dogs=4)
    found = open_data(tmp_path)
    assert [len(part) for part in (found.train, found.validation, found.test)] == [32, 8, 8]
    assert all(ref.startswith(f"{name}/") for ref in _refs(found.test))


def test_three_folders_are_the_splits_of_their_names(tmp_path: Path) -> None:
    """Nothing is split off then."""
    for name, count in (("train", 6), ("validation", 4), ("test", 2)):
        folder(tmp_path / name, cats=count, dogs=count)
    found = open_data(tmp_path)
    assert [len(part) for part in (found.train, found.validation, found.test)] == [12, 8, 4]
    assert all(ref.startswith("validation/") for ref in _refs(found.validation))


def test_a_folder_around_the_dataset_is_ignored(tmp_path: Path) -> None:
    """As archives often have one: names and digest are those of the dataset in it."""
    data = folder(tmp_path / "pets", cats=5, dogs=5)
    around = tmp_path / "around"
    shutil.copytree(data, around / "pets-v1" / "pets")
    assert open_data(around).digest == open_data(data).digest
    folder(tmp_path / "split" / "train", cats=5, dogs=5)  # train/ is not such a folder
    assert all(ref.startswith("train/") for ref in _refs(open_data(tmp_path / "split").train))


def test_the_same_seed_gives_the_same_split(tmp_path: Path) -> None:
    """Another seed gives another."""
    data = folder(tmp_path, cats=20, dogs=20)
    assert open_data(data) == open_data(data)
    assert open_data(data) != open_data(data, seed=124)


def test_files_of_the_operating_system_are_ignored(tmp_path: Path) -> None:
    """And hidden files. A folder of thumbnails would otherwise be a third class."""
    data = folder(tmp_path, cats=5, dogs=5)
    digest = open_data(data).digest
    for name in ("cats/.DS_Store", "cats/Thumbs.db", "cats/@eaDir/000.png", "__MACOSX/cats/._000.png", ".git/config"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text("x")
    (data / "lost+found").mkdir()
    (data / "README.txt").write_text("outside the class folders")
    assert open_data(data).digest == digest


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "found none"),
        ({"cats": 3}, "found 1: cats"),
        ({"cats": 3, "dogs": 3, "eels": 3}, "found 3: cats, dogs, eels"),
        ({"cats": 0, "dogs": 3}, "cats holds no images. A class needs at least two"),
        ({"cats": 1, "dogs": 3}, "cats holds 1 file. A class needs at least two"),
        (
            {"cats": 3, "dogs": 3},
            r"6 images \(3 of cats and 3 of dogs\) are too few to split into [a-z, ]+. Each class needs at least 4",
        ),
        ({"test": 2, "validation": 2}, "no train"),
    ],
)
def test_a_dataset_without_two_classes_is_refused(tmp_path: Path, counts: dict[str, int], message: str) -> None:
    """The message has what was found."""
    with pytest.raises(UserError, match=message):
        open_data(folder(tmp_path, **counts))


@pytest.mark.parametrize("split", [0.05, 0.1, 0.2, 0.5, 0.9])
def test_as_many_images_as_the_message_asks_for_are_enough(tmp_path: Path, split: float) -> None:
    """And one less of each class is not."""
    with pytest.raises(UserError, match="too few to split") as caught:
        open_data(folder(tmp_path / "few", cats=2, dogs=2), test_split=split, validation_split=split)
    needed = int(str(caught.value).split()[-1].rstrip("."))
    shares = {"test_split": split, "validation_split": split}
    assert len(open_data(folder(tmp_path / "enough", cats=needed, dogs=needed), **shares)) == 2 * needed
    with pytest.raises(UserError, match=f"at least {needed}"):
        open_data(folder(tmp_path / "less", cats=needed - 1, dogs=needed - 1), **shares)


def test_a_data_set_next_to_photographs_that_are_not_sorted_is_not_taken_for_a_class(tmp_path: Path) -> None:
    """The folder around both was meant to be the one with the classes. The error names that, and a way to insist."""
    folder(tmp_path / "sorted", cats=5, dogs=5)
    folder(tmp_path, unsorted=5)
    with pytest.raises(UserError) as caught:
        open_data(tmp_path)
    assert f"sorted holds no images, but the folders cats and dogs: did you mean --data {tmp_path}/sorted?" in str(
        caught.value
    )
    assert open_data(tmp_path / "sorted").labels == ("cats", "dogs")
    (tmp_path / "unsorted").rename(tmp_path / "images")
    (tmp_path / "unsorted").mkdir()
    (tmp_path / "images").rename(tmp_path / "unsorted/all")  # as the message says
    assert open_data(tmp_path).labels == ("sorted", "unsorted")
    packed = tmp_path / "packed"
    folder(packed / "sorted" / "train", cats=5, dogs=5)
    folder(packed, unsorted=5)
    with pytest.raises(UserError, match="pack only sorted if these are the classes"):
        open_data(pack(packed, tmp_path / "home.zip"), cache=tmp_path / "cache")


@pytest.mark.parametrize(
    "names",
    [
        ("cats/2024/1", "cats/2025/1", "dogs/2024/1", "dogs/2025/1"),
        ("cats/kittens/1", "cats/adults/1", "dogs/puppies/1", "dogs/adults/1"),
        ("cats/2024/1", "cats/2025/1", "dogs/1", "dogs/2"),
        ("cats/a/1", "cats/b/1", "cats/c/1", "dogs/1", "dogs/2"),
        ("cats/kittens/1", "cats/adults/1", "cats/1", "dogs/1", "dogs/2"),
    ],
)
def test_folders_within_a_class_folder_are_part_of_the_class(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Such as one for each year."""
    for number, name in enumerate([*names, *(f"{name}{copy}" for name in names for copy in range(4))]):
        write_image(tmp_path / f"{name}.png", number)
    assert open_data(tmp_path).labels == ("cats", "dogs")


def test_classes_that_differ_between_splits_are_refused(tmp_path: Path) -> None:
    """A test set of other classes would make the model look bad."""
    folder(tmp_path / "train", cats=4, dogs=4)
    folder(tmp_path / "test", cats=4, eels=4)
    with pytest.raises(UserError, match="cats, eels"):
        open_data(tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("no-such-folder", "no-such-folder does not exist in /"),
        ("ftp://u:secret@host/a.zip", "ftp://host/a.zip is not a folder or an archive"),
    ],
)
def test_a_missing_folder_is_named(data: str, message: str) -> None:
    """Without the password, if it is an address."""
    with pytest.raises(UserError, match=message):
        open_data(data)


def test_a_class_may_be_named_like_a_formula(tmp_path: Path) -> None:
    """A spreadsheet would run it, so the CSV writer guards it."""
    assert open_data(folder(tmp_path, **{"=cmd|' C calc'!A0": 5, "dogs": 5})).labels == ("=cmd|' C calc'!A0", "dogs")


def test_a_class_name_that_no_bundle_can_hold_is_refused_at_once(tmp_path: Path) -> None:
    """Not when the model is trained."""
    with pytest.raises(UserError, match="cannot be the name of a class"):
        open_data(folder(tmp_path, **{"x" * 129: 5, "dogs": 5}))


def test_links_in_a_folder_are_followed_but_never_in_a_circle(tmp_path: Path) -> None:
    """Datasets of links are common. A broken link is left out with its reason."""
    originals = folder(tmp_path / "all", one=5, two=40)
    (tmp_path / "links" / "dogs").mkdir(parents=True)
    (tmp_path / "links" / "cats").symlink_to(originals / "one")
    for path in (originals / "two").iterdir():
        (tmp_path / "links" / "dogs" / path.name).symlink_to(path)
    (tmp_path / "links" / "dogs" / "circle").symlink_to(tmp_path / "links")
    (tmp_path / "links" / "dogs" / "nothing.png").symlink_to("gone.png")
    found = open_data(tmp_path / "links")
    assert len(found) == 45
    assert [(item.image.ref, item.reason.code) for item in found.quarantined] == [("dogs/nothing.png", "not_a_file")]


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def _grow(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(33 * 1024**2)


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        pytest.param(lambda path: path.write_text("<html>"), "not_an_image", id="not_an_image"),
        pytest.param(lambda path: path.write_bytes(b""), "empty", id="empty"),
        pytest.param(_truncate, "damaged", id="damaged"),
        pytest.param(_grow, "too_many_bytes", id="too_many_bytes"),
    ],
)
def test_an_image_that_cannot_be_decoded_is_left_out(
    tmp_path: Path, damage: Callable[[Path], object], code: str
) -> None:
    """It has its reason, and every other image is read."""
    data = folder(tmp_path, cats=5, dogs=5)
    damage(data / "cats" / "002.png")
    found = open_data(data)
    loaded = ImageLoader(32).load(found.train + found.validation + found.test)
    assert len(loaded.images) == len(loaded.pixels) == 9
    assert [(item.image.ref, item.reason.code) for item in loaded.quarantined] == [("cats/002.png", code)]


def test_the_dataset_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    """Equal for a copy, and different as soon as one image has another name or other bytes."""
    data = folder(tmp_path / "one", cats=5, dogs=5)
    copy = Path(shutil.copytree(data, tmp_path / "two"))
    assert open_data(copy).digest == open_data(data).digest
    (copy / "cats" / "000.png").rename(copy / "cats" / "900.png")
    renamed = open_data(copy).digest
    write_image(copy / "cats" / "900.png", 1)
    assert len({open_data(data).digest, renamed, open_data(copy).digest}) == 3


def test_every_odd_image_is_read_or_quarantined(shared: Path, tmp_path: Path) -> None:
    """Among test files of image libraries, not one is lost, and not one stops the others from being read."""
    odd = sorted((shared / "data/odd_images").iterdir())
    data = folder(tmp_path, cats=10, dogs=10)
    for number, path in enumerate(odd):
        shutil.copy(path, data / ("cats", "dogs")[number % 2] / path.name)
    found = open_data(data)
    loaded = ImageLoader(32).load(found.train + found.validation + found.test)
    read = {image.ref for image in loaded.images}
    listed = {item.image.ref for item in found.quarantined + loaded.quarantined}
    every = {path.relative_to(data).as_posix() for path in data.rglob("*") if path.is_file()}
    assert read | listed == every
    assert not read & listed
    assert len(every) == 20 + len(odd)
    assert {"cats/MADE_html_error_page.jpg", "dogs/MADE_html_error_page.jpg"} & listed
    assert len(read) > 30
