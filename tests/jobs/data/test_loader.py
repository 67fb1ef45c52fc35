"""Values of images: in order, computed once, and with a record of the images that are left out."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from jobs.data import loader as loader_module
from jobs.data.cache import ArrayCache
from jobs.data.dataset import LabelledImage
from jobs.data.loader import ImageLoader, ImageValues
from jobs.store import FolderStore, Store
from jobs.training.features import Extractor
from tests.jobs.data.image_folders import folder, open_data, write_image
from worker.errors import ErrorCode, Reject
from worker.scoring.decoder import Pixels, decode


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few images make several chunks."""
    monkeypatch.setattr(loader_module, "_CHUNK_IMAGES", 4)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledImage]:
    """Fourteen images. Six are damaged: 2, 3, and 8 to 11, which are one chunk."""
    root = tmp_path_factory.mktemp("images")
    found = []
    for number in range(14):
        path = write_image(root / f"{number:02d}.png", number)
        if number in (2, 3, 8, 9, 10, 11):
            path.write_bytes(path.read_bytes()[: 20 * (number % 4)])
        found.append(LabelledImage(path, path.name, number % 2, sha256=f"{number:064x}", split="train"))
    return found


def _mean(pixels: Pixels, images: Sequence[LabelledImage]) -> NDArray[np.float64]:
    """Returns a row for each image that identifies it."""
    means: NDArray[np.float64] = pixels.mean(axis=(1, 2))
    return means


def _compute(loader: ImageLoader, images: list[LabelledImage], cache: ArrayCache) -> ImageValues:
    return loader.compute(images, _mean, cache=cache, advance=lambda _: None)


def _check(found: ImageValues, images: list[LabelledImage]) -> None:
    kept = [image for image in images if int(image.ref[:2]) not in (2, 3, 8, 9, 10, 11)]
    assert found.images == kept
    expected = [decode(image.path.read_bytes(), size_px=32).mean(axis=(0, 1)) for image in kept]
    assert np.array_equal(found.values, expected)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.integers(0, 3)))
def test_values_are_in_order_whatever_is_cached(
    images: list[LabelledImage], tmp_path_factory: pytest.TempPathFactory, gone: set[int]
) -> None:
    """With any of the chunks cached and the others computed, each image that decodes has its row."""
    store = FolderStore(tmp_path_factory.mktemp("cache"))
    cache = ArrayCache(store, "s")
    first = ImageLoader(32)
    _check(_compute(first, images, cache), images)
    for number, name in enumerate(store.names("")):
        if number in gone:
            store.remove(name)
    second = ImageLoader(32)
    _check(_compute(second, images, cache), images)
    assert second.quarantined == first.quarantined
    assert [item.image.ref[:2] for item in second.quarantined] == ["02", "03", "08", "09", "10", "11"]
    assert second.quarantined[2].reason.code is ErrorCode.EMPTY


def test_features_of_unchanged_images_are_computed_once(store: Store, tmp_path: Path) -> None:
    """A second job with another seed decodes nothing: by then, the files are damaged."""
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
                image.path.write_bytes(b"damaged")
        features = extractor.extract(
            [*dataset.train, *dataset.validation],
            ImageLoader(32),
            variants=2,
            cache=ArrayCache(store, "features"),
            advance=lambda _: None,
        )
        assert features.split("train").images == dataset.train
        assert features.split("validation").images == dataset.validation
        found.append({image.sha256: features.variants[:, row].tolist() for row, image in enumerate(features.images)})
    assert sum(counts) == 36
    assert found[0] == found[1]


def test_a_file_that_cannot_be_opened_is_tried_again(images: list[LabelledImage], tmp_path: Path) -> None:
    """It has no digest, so its chunk is not cached, and two such files are not confused."""
    cache = ArrayCache(FolderStore(tmp_path / "cache"), "s")
    good, missing, other = images[0], replace(images[1], sha256=""), replace(images[4], sha256="")
    missing = replace(missing, path=tmp_path / "not-there.png")
    loader = ImageLoader(32)
    found = _compute(loader, [good, missing, other], cache)
    assert found.images == [good, other]
    assert len(found.values) == 2
    assert [(item.image, item.reason.code) for item in loader.quarantined] == [(missing, ErrorCode.ACCESS_DENIED)]
    write_image(missing.path, 1)
    assert _compute(ImageLoader(32), [good, missing, other], cache).images == [good, missing, other]


def test_a_chunk_with_an_unopened_file_is_not_confused_with_one_without(
    images: list[LabelledImage], tmp_path: Path
) -> None:
    """An empty digest counts in the name of a chunk."""
    cache = ArrayCache(FolderStore(tmp_path), "s")
    _compute(ImageLoader(32), [images[0]], cache)
    unopened = replace(images[1], sha256="")
    _check(_compute(ImageLoader(32), [images[0], unopened], cache), [images[0], unopened])


def test_values_are_held_once(tmp_path: Path, images: list[LabelledImage]) -> None:
    """In one array from the first chunk on, not in a list of arrays that is then copied."""
    found = _compute(ImageLoader(32), images, ArrayCache(FolderStore(tmp_path), "s"))
    assert found.values.base is not None
    assert len(found.values.base) == len(images)


def test_images_that_all_fail_to_decode_give_no_values(tmp_path: Path, images: list[LabelledImage]) -> None:
    """And no error: the caller decides what that means."""
    loader = ImageLoader(32)
    found = _compute(loader, images[8:12], ArrayCache(FolderStore(tmp_path), "s"))
    assert (found.images, len(found.values), len(loader.quarantined)) == ([], 0, 4)


@pytest.mark.parametrize(
    ("code", "kept_next_time"),
    [(ErrorCode.TOO_SLOW, 1), (ErrorCode.DECODER_CRASHED, 1), (ErrorCode.TOO_MUCH_MEMORY, 1), (ErrorCode.DAMAGED, 0)],
)
def test_what_a_busy_machine_may_have_left_out_is_tried_again_by_the_next_job(
    images: list[LabelledImage], tmp_path: Path, code: ErrorCode, kept_next_time: int
) -> None:
    """A damaged image stays damaged, so that is remembered."""

    def refuse(data: bytes, *, size_px: int) -> Pixels:
        raise Reject(code, "as scripted")

    cache = ArrayCache(FolderStore(tmp_path), "s")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader_module, "decode", refuse)
        assert _compute(ImageLoader(32), images[:1], cache).images == []
    assert len(_compute(ImageLoader(32), images[:1], cache).images) == kept_next_time
