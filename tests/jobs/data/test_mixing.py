"""Several sources as one data set: the last label counts, and no image leaves a test set."""

import hashlib
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.config import TrainConfig
from jobs.data.class_folders import SPLITS
from jobs.data.dataset import Dataset, LabelledImage, count_sources, describe_sources
from jobs.data.mixing import SourceEntries, SourceEntry, mix
from jobs.user_error import UserError
from tests.jobs.data.image_folders import folder, open_data
from tests.jobs.data.lists import write_list

CONFIG = TrainConfig(data="any", output="any")


def _images(dataset: Dataset) -> list[LabelledImage]:
    return [*dataset.train, *dataset.validation, *dataset.test]


def _by_content(dataset: Dataset) -> dict[str, tuple[str, str]]:
    """The class and the split of each image."""
    return {image.sha256: (dataset.labels[image.label], image.split) for image in _images(dataset)}


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@st.composite
def _sources(draw: st.DrawFn) -> list[SourceEntries]:
    """A few sources that share some of twelve images. Some are lists, some have a test set, some contradict."""
    found = []
    for number in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["list", "folders", "test set"]))
        splits = st.just("") if kind == "list" else st.sampled_from(SPLITS)
        contents = draw(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 1), splits), max_size=8))
        entries = [
            SourceEntry(LabelledImage(Path(), f"{place}.png", label, f"sha{content}", split, source=number))
            for place, (content, label, split) in enumerate(contents)
        ]
        found.append(SourceEntries(f"source{number}", entries, kind == "test set", kind == "list"))
    return found


def _numbered(sources: list[SourceEntries]) -> list[SourceEntries]:
    """The sources, whose images name them by their place."""
    return [
        replace(source, entries=[replace(one, image=replace(one.image, source=number)) for one in source.entries])
        for number, source in enumerate(sources)
    ]


def _splits_of(entries: Iterable[SourceEntry]) -> dict[str, set[str]]:
    splits: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        splits[entry.image.sha256].add(entry.image.split)
    return splits


@settings(max_examples=50)
@given(_sources())
def test_every_image_is_that_of_the_last_source_that_has_it(sources: list[SourceEntries]) -> None:
    """Whatever the sources are. Nothing is lost: each image is in the result, or counted as replaced."""
    entries, replaced = mix(sources, CONFIG)
    last = {image.sha256: number for number, source in enumerate(sources) for image in source.hashed()}
    assert [last[entry.image.sha256] for entry in entries] == [entry.image.source for entry in entries]
    assert {entry.image.sha256 for entry in entries} == set(last)
    assert len(entries) + sum(replaced) == sum(len(source.entries) for source in sources)
    assert len({(entry.image.source, entry.image.ref) for entry in entries}) == len(entries)
    owners = defaultdict(set)
    for entry in entries:
        owners[entry.image.ref].add(entry.image.source)
    assert all(len(sources) == 1 for sources in owners.values())  # a name is that of one source


@settings(max_examples=50)
@given(_sources())
def test_no_image_of_a_test_set_is_ever_trained_on(sources: list[SourceEntries]) -> None:
    """It is in the test set whichever source gives its label. Copies within one source are judged later, as ever."""
    entries, _ = mix(sources, CONFIG)
    tests = {
        image.sha256 for source in sources if source.has_test_set for image in source.hashed() if image.split == "test"
    }
    holders = Counter(content for source in sources for content in {image.sha256 for image in source.hashed()})
    for content, splits in _splits_of(entries).items():
        assert splits <= set(SPLITS)
        if holders[content] > 1:
            assert len(splits) == 1
        if content in tests:
            assert "test" in splits


@settings(max_examples=50)
@given(_sources(), _sources())
def test_a_source_that_is_added_later_moves_no_image(sources: list[SourceEntries], more: list[SourceEntries]) -> None:
    """Unless it has a test set, which says where its images belong. Of copies in one split each, the last counts."""
    added = [source for source in more if not source.has_test_set]
    before = _splits_of(mix(sources, CONFIG)[0])
    after = _splits_of(mix(_numbered([*sources, *added]), CONFIG)[0])
    for content, splits in before.items():
        assert after[content] == splits or after[content] == {max(splits, key=SPLITS.index)}


def test_a_reviewed_list_corrects_a_folder(tmp_path: Path) -> None:
    """Its labels replace those of the folder, for images that it names by another path; the splits stay."""
    pets = folder(tmp_path / "pets", cats=20, dogs=20)
    alone = open_data(pets)
    corrected = {alone.train[0], alone.test[0], alone.validation[0]}
    other = {image: "dogs" if image.label == 0 else "cats" for image in corrected}
    shutil.copytree(pets, tmp_path / "copies")
    reviewed = write_list(
        tmp_path / "reviewed.csv", {f"copies/{image.ref}": label for image, label in other.items()}, reviewed=True
    )
    mixed = open_data([pets, reviewed])
    want = _by_content(alone) | {image.sha256: (label, image.split) for image, label in other.items()}
    assert _by_content(mixed) == want
    assert mixed.digest != alone.digest
    counts = count_sources(mixed, _images(mixed))
    assert [(c["images"], c["reviewed"], c["replaced"]) for c in counts] == [(37, 0, 3), (3, 3, 0)]
    assert describe_sources({"sources": counts}) == f"The images: 37 from {pets}, 3 from {reviewed} (all reviewed)."


def test_an_image_of_a_test_folder_stays_there_when_a_list_names_it(tmp_path: Path) -> None:
    """Before or after the folder. The images that only the list has are split."""
    folder(tmp_path / "pets/train", cats=10, dogs=10)
    folder(tmp_path / "pets/test", cats=4, dogs=4)
    folder(tmp_path / "more", cats=20, dogs=20)
    tests = {_content(path) for path in (tmp_path / "pets/test").rglob("*.png")}
    named = {path: path.parent.name for path in tmp_path.rglob("*.png")}
    everything = write_list(
        tmp_path / "all.csv", {str(path.relative_to(tmp_path)): name for path, name in named.items()}
    )
    for sources in ([tmp_path / "pets", everything], [everything, tmp_path / "pets"]):
        found = open_data(sources)
        assert len(found) == 68
        own = {image.sha256 for image in found.test} - tests
        assert tests <= {image.sha256 for image in found.test}
        assert own == {_content(path) for path in (tmp_path / "more").rglob("*.png")} & own
        assert len(own) == 8  # 20 % of the 40


def test_a_list_that_grows_keeps_its_images_where_they_are(tmp_path: Path) -> None:
    """A hundred more lines move a few of the first hundred; a split by their order would move a third."""
    images = folder(tmp_path / "photos", cats=100, dogs=100)
    named = {str(path.relative_to(tmp_path)): path.parent.name for path in sorted(images.rglob("*.png"))[::-1]}
    half = dict(list(named.items())[::2])
    before = _by_content(open_data(write_list(tmp_path / "half.csv", half)))
    after = _by_content(open_data(write_list(tmp_path / "all.csv", named)))
    assert sum(after[content] != split for content, split in before.items()) <= 10
    assert [sum(split == name for _, split in after.values()) for name in SPLITS] == [128, 32, 40]


def test_a_contradiction_in_one_source_is_quarantined_and_a_later_source_settles_it(tmp_path: Path) -> None:
    """In a list as in folders: an image of both classes has no right answer there."""
    pets = folder(tmp_path / "pets", cats=10, dogs=10)
    shutil.copy(pets / "cats/001.png", pets / "dogs/twice.png")
    listed = write_list(tmp_path / "list.csv", {"pets/cats/002.png": "cats"})
    with listed.open("a") as file:
        file.write("pets/cats/002.png,dogs,,,\n")
    found = open_data([pets, listed], max_quarantined=0.2)
    assert sorted((item.image.ref, item.reason.code) for item in found.quarantined) == [
        ("cats/001.png", "conflicting_label"),
        ("dogs/twice.png", "conflicting_label"),
        ("pets/cats/002.png", "conflicting_label"),
        ("pets/cats/002.png", "conflicting_label"),
    ]
    settled = write_list(tmp_path / "settled.csv", {"pets/cats/001.png": "dogs", "pets/cats/002.png": "cats"})
    again = open_data([pets, listed, settled])
    assert again.quarantined == []
    contents = _by_content(again)
    assert contents[_content(pets / "cats/001.png")][0] == "dogs"
    assert contents[_content(pets / "cats/002.png")][0] == "cats"


def test_names_that_two_sources_have_stay_apart(tmp_path: Path) -> None:
    """Two folders with cats/000.png each: the second one has its folder in front."""
    one, two = folder(tmp_path / "one", cats=5, dogs=5), folder(tmp_path / "two", cats=5, dogs=5)
    found = open_data([one, two])
    refs = [image.ref for image in _images(found)]
    assert len(refs) == len(set(refs)) == 20
    assert {"cats/000.png", f"{two}/cats/000.png"} <= set(refs)


def test_the_same_source_twice_is_the_same_images(tmp_path: Path) -> None:
    """All of the first are replaced."""
    pets = folder(tmp_path / "pets", cats=10, dogs=10)
    found = open_data([pets, pets])
    assert _by_content(found) == _by_content(open_data(pets))
    assert [source.replaced for source in found.sources] == [20, 0]


def test_the_classes_of_all_sources_must_agree(tmp_path: Path) -> None:
    """The message names the two sources that differ. A list may name one of the classes alone."""
    pets = folder(tmp_path / "pets", cats=10, dogs=10)
    singular = write_list(tmp_path / "singular.csv", {"pets/cats/001.png": "cat"})
    with pytest.raises(
        UserError, match=r"pets has the classes cats and dogs, but .*singular\.csv has cat\. Give a class"
    ):
        open_data([pets, singular])
    with pytest.raises(UserError, match=r"singular\.csv must name exactly two classes; found 1: cat\."):
        open_data(singular)
    only_cats = write_list(tmp_path / "cats.csv", {"pets/dogs/001.png": "cats"})
    assert len(open_data([pets, only_cats])) == 20
    only_dogs = write_list(tmp_path / "dogs.csv", {f"pets/dogs/{n:03d}.png": "dogs" for n in range(2, 10)})
    more_cats = write_list(tmp_path / "more.csv", {f"pets/cats/{n:03d}.png": "cats" for n in range(8)})
    assert open_data([more_cats, only_dogs]).labels == ("cats", "dogs")


def test_one_folder_has_the_digest_that_it_always_had(tmp_path: Path) -> None:
    """Of contents and names alone, so that versions which are there already count as trained on the same images."""
    pets = folder(tmp_path / "pets", cats=5, dogs=5)
    lines = sorted(f"{_content(path)} {path.relative_to(pets).as_posix()}\0" for path in pets.rglob("*.png"))
    found = open_data(pets)
    assert found.digest == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert (found.sources, describe_sources({})) == ((), "")
