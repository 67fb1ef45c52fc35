"""Images to values: in order, once, and those left out remembered."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from jobs.data import loader as reader_module
from jobs.data.cache import Shelf
from jobs.data.dataset import LabelledImage
from jobs.data.loader import Reader, Seen
from jobs.store import FolderStore, Store
from jobs.training.features import Extractor
from tests.jobs.data.pictures import folder, open_data, picture
from worker.errors import ErrorCode
from worker.scoring.decoder import Pixels, decode


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few images make several."""
    monkeypatch.setattr(reader_module, "_CHUNK", 4)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledImage]:
    """Fourteen; 2, 3 and all of 8 to 11, which are one chunk, are damaged, each in another way."""
    root = tmp_path_factory.mktemp("images")
    found = []
    for number in range(14):
        path = picture(root / f"{number:02d}.png", number)
        if number in (2, 3, 8, 9, 10, 11):
            path.write_bytes(path.read_bytes()[: 20 * (number % 4)])
        found.append(LabelledImage(path, path.name, number % 2, sha256=f"{number:064x}", split="train"))
    return found


def _mean(pixels: Pixels, images: Sequence[LabelledImage]) -> NDArray[np.float64]:
    """A row for each image, from which one can tell which it was."""
    means: NDArray[np.float64] = pixels.mean(axis=(1, 2))
    return means


def _compute(reader: Reader, images: list[LabelledImage], shelf: Shelf) -> Seen:
    return reader.compute(images, _mean, shelf=shelf, advance=lambda _: None)


def _check(seen: Seen, images: list[LabelledImage]) -> None:
    kept = [image for image in images if int(image.ref[:2]) not in (2, 3, 8, 9, 10, 11)]
    assert seen.images == kept
    expected = [decode(image.path.read_bytes(), size_px=32).mean(axis=(0, 1)) for image in kept]
    assert np.array_equal(seen.values, expected)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.integers(0, 3)))
def test_values_are_in_order_whatever_comes_from_the_shelf(
    images: list[LabelledImage], tmp_path_factory: pytest.TempPathFactory, gone: set[int]
) -> None:
    """Any of the chunks there, the others computed; a row for each image kept, and the same left out."""
    store = FolderStore(tmp_path_factory.mktemp("shelf"))
    shelf = Shelf(store, "s")
    first = Reader(32)
    _check(_compute(first, images, shelf), images)
    for number, name in enumerate(store.names("")):
        if number in gone:
            store.remove(name)
    second = Reader(32)
    _check(_compute(second, images, shelf), images)
    assert second.quarantined == first.quarantined
    assert [item.image.ref[:2] for item in second.quarantined] == ["02", "03", "08", "09", "10", "11"]
    assert second.quarantined[2].reason.code is ErrorCode.EMPTY


def test_features_of_unchanged_images_are_computed_once(store: Store, tmp_path: Path) -> None:
    """A second job with another seed decodes nothing and computes nothing: its files are spoiled by then."""
    data = folder(tmp_path / "data/train", cats=9, dogs=9).parent
    folder(data / "test", cats=3, dogs=3)
    counts: list[int] = []

    def run(pixels: Pixels) -> NDArray[np.float32]:
        counts.append(len(pixels))
        means: NDArray[np.float32] = pixels.mean(axis=(1, 2)).astype(np.float32)
        return means

    extractor = Extractor(run, "key")
    found = []
    for seed in (1, 2):
        dataset = open_data(data, seed=seed, threshold="max-f1", l2=0.1 * seed)
        if seed == 2:
            for image in [*dataset.train, *dataset.validation]:
                image.path.write_bytes(b"spoiled")
        learned = extractor.learn(
            [*dataset.train, *dataset.validation],
            Reader(32),
            views=2,
            shelf=Shelf(store, "features"),
            advance=lambda _: None,
        )
        assert learned.of("train").images == dataset.train
        assert learned.of("validation").images == dataset.validation
        found.append({image.sha256: learned.views[:, row].tolist() for row, image in enumerate(learned.images)})
    assert sum(counts) == 36
    assert found[0] == found[1]


def test_a_file_that_cannot_be_opened_is_tried_again(images: list[LabelledImage], tmp_path: Path) -> None:
    """It has no digest, so nothing is known by its contents; and two of them are not taken for one another."""
    shelf = Shelf(FolderStore(tmp_path / "shelf"), "s")
    whole, missing, other = images[0], replace(images[1], sha256=""), replace(images[4], sha256="")
    missing = replace(missing, path=tmp_path / "not-there.png")
    reader = Reader(32)
    seen = _compute(reader, [whole, missing, other], shelf)
    assert seen.images == [whole, other]
    assert len(seen.values) == 2
    assert [(item.image, item.reason.code) for item in reader.quarantined] == [(missing, ErrorCode.ACCESS_DENIED)]
    picture(missing.path, 1)
    assert _compute(Reader(32), [whole, missing, other], shelf).images == [whole, missing, other]


def test_a_chunk_with_an_unopened_file_is_not_taken_for_one_without(
    images: list[LabelledImage], tmp_path: Path
) -> None:
    """An empty digest is a place in the list, too."""
    shelf = Shelf(FolderStore(tmp_path), "s")
    _compute(Reader(32), [images[0]], shelf)
    unopened = replace(images[1], sha256="")
    _check(_compute(Reader(32), [images[0], unopened], shelf), [images[0], unopened])


def test_values_are_held_once(tmp_path: Path, images: list[LabelledImage]) -> None:
    """One array from the first chunk on, not a list of them and then a copy."""
    seen = _compute(Reader(32), images, Shelf(FolderStore(tmp_path), "s"))
    assert seen.values.base is not None
    assert len(seen.values.base) == len(images)


def test_images_of_which_none_can_be_decoded_give_no_values(tmp_path: Path, images: list[LabelledImage]) -> None:
    """And no error: who asked says what that means."""
    reader = Reader(32)
    seen = _compute(reader, images[8:12], Shelf(FolderStore(tmp_path), "s"))
    assert (seen.images, len(seen.values), len(reader.quarantined)) == ([], 0, 4)
