"""The shards of a job before they are written to a bucket."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.desk import fill
from worker.batch.shards import Shards, read_shard
from worker.errors import ErrorCode, Reject
from worker.manifest.formats import ImageRef

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
refs = st.builds(ImageRef, text, st.none() | text.filter(bool), st.dictionaries(text, text, max_size=3))


@given(st.lists(refs, min_size=1, max_size=20), st.integers(1, 40))
def test_the_shards_hold_all_images_in_order(images: list[ImageRef], times: int) -> None:
    """Each shard but the last has 500 lines, and rows are numbered across the shards."""
    asked = images * times
    with Shards() as shards:
        fill(shards, asked)
        assert (shards.images, shards.count) == (len(asked), -(-len(asked) // 500))
        read = [read_shard(shard, "s3://b/s") for shard in shards]
    assert [len(shard) for shard in read[:-1]] == [500] * (len(read) - 1)
    lines = [line for shard in read for line in shard]
    assert [ImageRef(line.source_ref, line.version_id, line.columns) for line in lines] == asked
    assert [line.row for line in lines] == list(range(len(asked)))


@given(st.lists(refs, min_size=1, max_size=8), st.lists(refs, min_size=1, max_size=8))
def test_the_digest_identifies_the_list(one: list[ImageRef], other: list[ImageRef]) -> None:
    """The same images in the same order have the same digest, and other lists have another."""
    with Shards() as first, Shards() as second, Shards() as again:
        assert (fill(first, one).digest == fill(second, other).digest) == (one == other)
        assert fill(again, one).digest == first.digest


def test_images_of_a_redrive_keep_their_rows() -> None:
    """They are the rows of the first job."""
    with Shards() as shards:
        shards.add(ImageRef("s3://b/k"), row=7)
        shards.add(ImageRef("s3://b/l"), row=900)
        (shard,) = shards
    assert [line.row for line in read_shard(shard, "")] == [7, 900]


def test_too_many_images_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Part numbers have five digits."""
    monkeypatch.setattr("worker.batch.shards._MAX_IMAGES", 3)
    with Shards() as shards, pytest.raises(Reject, match="over 3 images"):
        fill(shards, [ImageRef("a")] * 4)


def test_a_shard_that_would_be_too_large_is_refused_as_it_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each shard has the whole limit for itself."""
    monkeypatch.setattr("worker.batch.shards.MAX_SHARD_BYTES", 60_000)
    with Shards() as shards:
        fill(shards, [ImageRef("s3://b/k", columns={"note": "x" * 50})] * 1000)
        assert max(map(len, shards)) <= 60_000
    with Shards() as shards:
        fill(shards, [ImageRef("s3://b/k", columns={"note": "x" * 50})] * 500)
        with pytest.raises(Reject, match=r"images 500 to 9\d\d: their columns take over") as caught:
            fill(shards, [ImageRef("s3://b/k", columns={"note": "x" * 90})] * 500)
    assert caught.value.code is ErrorCode.BAD_MANIFEST


def test_the_names_of_columns_take_no_more_than_their_values() -> None:
    """Each line repeats them: eight long ones once made shards of 495 MB."""
    columns = {f"{number}{'n' * 120_000}": "x" * 2000 for number in range(8)}
    with Shards() as shards:
        fill(shards, [ImageRef.of("s3://b/k", columns=columns)] * 500)
        (shard,) = shards
        assert [len(name) for name in shards.columns] == [1025] * 8  # with an ellipsis
    assert len(shard) < 500 * 8 * 2100


@pytest.mark.parametrize(
    "line", [b"", b"{}", b"x", b'{"row": -1, "source-ref": "a"}', b'{"row": 0, "source-ref": "a", "colour": "red"}']
)
def test_a_shard_that_was_altered_is_rejected(line: bytes) -> None:
    """Twofold writes shards itself, so any other line comes from another program."""
    good = json.dumps({"row": 0, "source-ref": "a"}).encode()
    assert len(read_shard(good, "s3://b/s")) == 1
    with pytest.raises(Reject) as caught:
        read_shard(good + b"\n" + line + b"\n", "s3://b/s")
    assert caught.value.code is ErrorCode.BAD_MANIFEST
