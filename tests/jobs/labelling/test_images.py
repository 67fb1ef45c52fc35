"""The images to label: where they are found, how a list names them, and which are drawn."""

import os
from collections import Counter
from pathlib import Path

import pytest

from jobs.batch.tally import in_words
from jobs.labelling.images import MAX_IMAGES, ImageSource, SourceImage, as_listed, choose, drawn, list_ref
from jobs.user_error import UserError
from tests.conftest import Bench
from worker.errors import ErrorCode, Reject


def _write(path: Path, data: bytes = b"GIF89a") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _many(*folders: tuple[str, int]) -> list[SourceImage]:
    places = [f"{folder}/{n}.jpg" for folder, count in folders for n in range(count)]
    return [SourceImage(f"photos/{place}", f"/photos/{place}", place) for place in places]


def test_a_folder_has_its_images_in_order_and_what_is_not_one_is_counted(tmp_path: Path) -> None:
    """As for submit: by suffix or, without one, by content; hidden files are left out."""
    for name in ("b/2.jpg", "a/1.PNG", "without", ".hidden/3.jpg", "notes.txt"):
        _write(tmp_path / "photos" / name)
    source = ImageSource(tmp_path)
    found = source.find(str(tmp_path / "photos"))
    assert [image.source_ref for image in found] == ["photos/a/1.PNG", "photos/b/2.jpg", "photos/without"]
    assert [image.name for image in found] == ["1.PNG", "2.jpg", "without"]
    assert in_words(source.skipped.groups()) == ["1 hidden: .hidden/3.jpg", "1 not an image: notes.txt"]
    assert source.read(found[0]) == b"GIF89a"


def test_a_list_names_images_next_to_it_and_in_buckets(tmp_path: Path) -> None:
    """Each once. A name without a file, and a file that is not an image, are counted."""
    _write(tmp_path / "lists/pets/rex.jpg")
    _write(tmp_path / "lists/notes.txt")
    rows = ["pets/rex.jpg", "s3://shelter/in/1.jpg", "pets/rex.jpg", "gone.jpg", "notes.txt", "nothing"]
    _write(tmp_path / "lists/list.csv", "\n".join(["source_ref,label", *(f"{row},cat" for row in rows)]).encode())
    source = ImageSource(tmp_path)
    found = source.find(str(tmp_path / "lists/list.csv"))
    assert [image.source_ref for image in found] == ["lists/pets/rex.jpg", "s3://shelter/in/1.jpg"]
    assert source.skipped.total == 3


def test_a_prefix_and_a_list_in_a_bucket_name_objects(ministack_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without a suffix, but not those of other files. Private buckets need no presigned addresses."""
    bench = ministack_bench
    for name, value in bench.environment.items():
        monkeypatch.setenv(name, value)
    for key in ("in/1.jpg", "in/2", "in/readme.txt"):
        bench.put(key, b"GIF89a")
    bench.put("list.csv", f"source_ref\ns3://{bench.bucket}/in/1.jpg\nnext.jpg\n".encode())
    source = ImageSource(Path())
    found = source.find(f"s3://{bench.bucket}/in/")
    assert [image.place for image in found] == ["1.jpg", "2"]
    assert source.read(found[1]) == b"GIF89a"
    assert [image.name for image in source.find(f"s3://{bench.bucket}/list.csv")] == ["1.jpg"]
    with pytest.raises(Reject):
        source.find(f"s3://{bench.bucket}/empty/")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("gone", "gone is not a folder, a list or an s3:// URI."),
        ("empty", "There are no images in empty."),
        ("texts", "There are no images in texts.\n  1 not an image: a.txt"),
        ("texts/a.txt", "texts/a.txt is neither an image nor a list of images"),
    ],
)
def test_a_source_without_images_is_explained(
    source: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what was found instead."""
    monkeypatch.chdir(tmp_path)
    _write(tmp_path / "texts/a.txt", b"one two three\n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"^{words}"):
        ImageSource(tmp_path).find(source)


def test_a_name_that_a_list_cannot_hold_is_left_out(tmp_path: Path) -> None:
    """Linux allows names that are not UTF-8."""
    _write(tmp_path / "photos/1.jpg")
    try:
        (Path(os.fsdecode(bytes(tmp_path / "photos") + b"/\xff.jpg"))).write_bytes(b"GIF89a")
    except OSError:
        pytest.skip("this file system has no such names")
    source = ImageSource(tmp_path)
    assert [image.name for image in source.find(str(tmp_path / "photos"))] == ["1.jpg"]
    assert list(source.skipped.groups()) == ["a name that is not UTF-8, which a list cannot hold"]


def test_a_list_and_its_images_can_be_moved_together(tmp_path: Path) -> None:
    """A path below the list's folder is relative to it; any other is absolute. Links stay links."""
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert list_ref(tmp_path / "photos/../photos/1.jpg", tmp_path) == "photos/1.jpg"
    assert list_ref(tmp_path / "link/1.jpg", tmp_path) == "link/1.jpg"
    assert list_ref(tmp_path / "photos/1.jpg", tmp_path / "lists") == f"{tmp_path}/photos/1.jpg"
    assert list_ref(Path("1.jpg"), Path()) == "1.jpg"


def test_an_image_keeps_the_spelling_that_its_list_has(tmp_path: Path) -> None:
    """Or it would be labelled twice."""
    images = [
        SourceImage("photos/1.jpg", str(tmp_path / "photos/1.jpg"), "1.jpg"),
        SourceImage("photos/2.jpg", str(tmp_path / "photos/2.jpg"), "2.jpg"),
        SourceImage("s3://shelter/3.jpg", "s3://shelter/3.jpg", "3.jpg"),
    ]
    listed = as_listed(images, [f"{tmp_path}/photos/1.jpg", "./photos/2.jpg", "s3://shelter/3.jpg"], tmp_path)
    spelt = [f"{tmp_path}/photos/1.jpg", "./photos/2.jpg", "s3://shelter/3.jpg"]
    assert [image.source_ref for image in listed] == spelt


def test_the_draw_is_the_same_every_time_and_a_larger_one_has_the_smaller_one_in_it() -> None:
    """Wherever the images are, in whatever order they are listed, and whichever list their labels go to."""
    images = _many(("a", 300), ("b", 100))
    places = [image.place for image in drawn(images)]
    moved = [SourceImage(f"/mnt/{image.place}", f"/mnt/{image.place}", image.place) for image in reversed(images)]
    assert [image.place for image in drawn(moved)] == places
    assert [image.place for image in choose(images, 40, "photos")] == places[:40]
    assert places[:40] != sorted(places[:40])


def test_every_folder_has_its_share_of_a_draw() -> None:
    """To within one image, however many are drawn."""
    sizes = {"a": 600, "b": 300, "c": 90, "d": 10}
    images = _many(*sizes.items())
    for number in (10, 50, 200, 777):
        counts = Counter(image.folder for image in choose(images, number, "photos"))
        assert all(abs(counts[folder] - number * size / 1000) <= 1 for folder, size in sizes.items()), counts


def test_a_draw_has_nothing_to_do_with_names() -> None:
    """Names are often in the order of time: the mean place of 200 of 10,000 is within four standard errors of it."""
    images = _many(("a", 10_000))
    numbers = [int(Path(image.place).stem) for image in choose(images, 200, "photos")]
    assert abs(sum(numbers) / 200 - 5000) < 4 * 10_000 / 12**0.5 / 200**0.5


def test_all_images_are_in_their_order_up_to_what_a_page_holds() -> None:
    """More than that is refused, with what to type."""
    images = _many(("a", MAX_IMAGES))
    assert choose(images, None, "photos") == images
    with pytest.raises(UserError, match=r"photos has 5,001 images, and a page holds at most 5,000\. .* -n 200"):
        choose([*images, *_many(("b", 1))], None, "photos")


def test_a_file_that_cannot_be_read_is_a_reason(tmp_path: Path) -> None:
    """One that is gone, and one that is larger than any image may be."""
    source = ImageSource(tmp_path)
    with pytest.raises(Reject, match="access_denied: cannot be read: No such file"):
        source.read(SourceImage("1.jpg", str(tmp_path / "1.jpg"), "1.jpg"))
    with (tmp_path / "2.jpg").open("wb") as file:
        file.truncate(40 * 1024 * 1024)
    with pytest.raises(Reject) as caught:
        source.read(SourceImage("2.jpg", str(tmp_path / "2.jpg"), "2.jpg"))
    assert caught.value.code is ErrorCode.TOO_MANY_BYTES
