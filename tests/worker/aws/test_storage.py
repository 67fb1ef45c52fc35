"""Storage, on two emulators over HTTP."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import pytest
from botocore.exceptions import IncompleteReadError

from tests.conftest import Bench
from tests.desk import ON_BOTH_EMULATORS
from worker.aws.clients import open_session, open_storage
from worker.aws.storage import Storage
from worker.errors import ErrorCode, Reject, Retry

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from obstore.store import S3Store

#: Keys that occur in practice, and keys that obstore would change or refuse.
KEYS = [
    "plain.jpg",
    "with space.jpg",
    "plus+percent%20.jpg",
    "é ü 😀.jpg",
    "quote'\"&?#[]{}*~.jpg",
    "back\\slash.jpg",
    "two//slashes.jpg",
    "folder/",
    "a/./b.jpg",
    "tab\there.jpg",
]


@pytest.fixture
def storage(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Storage:
    return bench.storage(monkeypatch)


def test_an_object_is_read_by_exactly_its_key(bench: Bench, storage: Storage) -> None:
    """Whatever a key looks like, its own bytes come back."""
    uris = {key: bench.put(key, key.encode()) for key in KEYS}
    assert {key: storage.read(uri, max_bytes=1000).decode() for key, uri in uris.items()} == {key: key for key in KEYS}


def test_a_leading_slash_is_another_object(ministack_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """``/a.jpg`` and ``a.jpg`` are two objects. obstore alone would read the second for the first."""
    storage = ministack_bench.storage(monkeypatch)
    with_slash, without = ministack_bench.put("/a.jpg", b"slash"), ministack_bench.put("a.jpg", b"none")
    assert storage.read(with_slash, max_bytes=10) == b"slash"
    assert storage.read(without, max_bytes=10) == b"none"


@pytest.mark.parametrize("key", ["plain.jpg", "two//slashes.jpg"])
def test_an_object_that_has_not_changed_is_not_read_again(bench: Bench, storage: Storage, key: str) -> None:
    """By its entity tag, in one request; a changed one comes with its new tag."""
    uri = bench.put(key, b"old")
    first = storage.read_if_changed(uri, max_bytes=10, known=None)
    assert first is not None
    assert first == (b"old", next(storage.list(uri)).etag)
    assert storage.read_if_changed(uri, max_bytes=10, known=first[1]) is None
    bench.put(key, b"new")
    again = storage.read_if_changed(uri, max_bytes=10, known=first[1])
    assert again is not None
    assert (again[0], again[1] != first[1]) == (b"new", True)
    with pytest.raises(Reject, match="over the limit of 2"):
        storage.read_if_changed(uri, max_bytes=2, known=None)
    with pytest.raises(Reject, match="not_found"):
        storage.read_if_changed(f"{uri}-gone", max_bytes=10, known=None)


def test_a_range_is_of_the_version_that_is_asked_for(bench: Bench, storage: Storage) -> None:
    """An object that has changed in between is read again from its start."""
    uri = bench.put("large.zip", b"0123456789")
    etag = next(storage.list(uri)).etag
    assert storage.read_range(uri, start=2, end=5, etag=etag) == b"234"
    assert storage.read_range(uri, start=8, end=10, etag=None) == b"89"
    bench.put("large.zip", b"abcdefghij")
    with pytest.raises(Retry, match="changed while it was read"):
        storage.read_range(uri, start=2, end=5, etag=etag)
    with pytest.raises(Reject, match="no such object"):
        storage.read_range(f"{uri}.gone", start=0, end=1, etag=etag)


def test_an_object_that_has_changed_is_not_read(bench: Bench, storage: Storage) -> None:
    """Its entity tag is compared, whichever library reads it."""
    for key in ("a.jpg", "by//boto3.jpg"):
        uri = bench.put(key, b"old")
        etag = next(storage.list(uri)).etag
        assert storage.read(uri, max_bytes=10, etag=etag) == b"old"
        bench.put(key, b"new")
        with pytest.raises(Retry, match="changed while it was read"):
            storage.read(uri, max_bytes=10, etag=etag)


def _refusal(storage: Storage, uri: str, *, max_bytes: int = 10) -> ErrorCode:
    with pytest.raises(Reject) as caught:
        storage.read(uri, max_bytes=max_bytes)
    return caught.value.code


#: obstore reads the first, boto3 the second; the others look like an error themselves.
MISSING = [
    "missing.jpg",
    "missing//by-boto3.jpg",
    "non-2xx status code: 503.jpg",
    "e",  # a letter of nearly every error
    "<Code>SlowDown</Code>.jpg",
    "Connection error.jpg",
]


def test_a_missing_object_can_never_be_read(bench: Bench, storage: Storage) -> None:
    """Not found is a rejection, whatever the key says: no key decides about itself."""
    codes = {key: _refusal(storage, f"s3://{bench.bucket}/{key}") for key in MISSING}
    assert codes == dict.fromkeys(MISSING, ErrorCode.NOT_FOUND)


def test_a_missing_bucket_can_never_be_read(storage: Storage) -> None:
    """The message says that it is the bucket."""
    with pytest.raises(Reject, match="no such bucket") as caught:
        storage.read("s3://nobody-has-this-bucket/a.jpg", max_bytes=10)
    assert caught.value.code is ErrorCode.NOT_FOUND


def test_a_large_object_is_refused_before_it_is_read(bench: Bench, storage: Storage) -> None:
    """The length in the answer's header decides."""
    for key in ("large.bin", "large//by-boto3.bin"):
        uri = bench.put(key, b"x" * 1001)
        assert _refusal(storage, uri, max_bytes=1000) is ErrorCode.TOO_MANY_BYTES
        assert len(storage.read(uri, max_bytes=1001)) == 1001


def test_of_eight_racing_writers_exactly_one_wins(bench: Bench, storage: Storage) -> None:
    """A part is committed once, however many workers try."""
    uri = f"s3://{bench.bucket}/part.csv"

    def write(writer: int) -> bool:
        return storage.write_once(uri, f"{writer}".encode(), content_type="text/csv", metadata={"writer": f"{writer}"})

    with ThreadPoolExecutor(8) as pool:
        won = [writer for writer, wrote in enumerate(pool.map(write, range(8))) if wrote]
    assert len(won) == 1
    assert bench.get(uri) == f"{won[0]}".encode()
    assert storage.metadata(uri) == {"writer": f"{won[0]}"}


def test_an_object_is_overwritten_only_as_it_was_seen(bench: Bench, storage: Storage) -> None:
    """Not if it has changed since, or is gone. Its metadata are replaced, too."""
    uri = bench.put("part.csv", b"old")
    seen = storage.look(uri)
    assert seen is not None
    for body, etag, expected in ((b"new", seen.etag, True), (b"newer", seen.etag, False)):
        assert storage.overwrite(uri, body, etag=etag, content_type="text/csv", metadata={"by": "me"}) is expected
    assert (bench.get(uri), storage.metadata(uri)) == (b"new", {"by": "me"})
    storage.remove(uri)
    assert not storage.overwrite(uri, b"newest", etag=seen.etag, content_type="text/csv")
    assert storage.look(uri) is None


def test_a_missing_object_has_no_metadata(bench: Bench, storage: Storage) -> None:
    """That is an answer here, not an error."""
    assert storage.metadata(f"s3://{bench.bucket}/none") is None


def test_an_empty_object_is_an_empty_object(bench: Bench, storage: Storage) -> None:
    """It is there, with its metadata, though storage refuses every range of it."""
    uri = f"s3://{bench.bucket}/empty"
    assert storage.write_once(uri, b"", content_type="text/plain", metadata={"of": "nothing"})
    assert storage.metadata(uri) == {"of": "nothing"}
    assert storage.metadata(bench.put("by another program", b"")) == {}
    assert not storage.write_once(uri, b"", content_type="text/plain", metadata={})


def test_a_storage_that_cannot_be_reached_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, ministack_bench: Bench
) -> None:
    """No answer says nothing about the object."""
    storage = ministack_bench.storage(monkeypatch)
    ministack_bench.environment["AWS_ENDPOINT_URL"] = "http://127.0.0.1:9"
    unreachable = ministack_bench.storage(monkeypatch)
    uri = ministack_bench.put("a.jpg", b"a")
    assert storage.read(uri, max_bytes=10) == b"a"
    with pytest.raises(Retry) as caught:
        unreachable.read(uri, max_bytes=10)
    assert caught.value.code is ErrorCode.UNAVAILABLE


@pytest.mark.parametrize("region", ["eu-west-1", "us-east-1"])
def test_without_an_endpoint_setting_both_libraries_use_the_same_one(
    monkeypatch: pytest.MonkeyPatch, region: str
) -> None:
    """On AWS, which no emulator can show: obstore gets the endpoint that boto3 chose."""
    for name, value in {"AWS_REGION": region, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    storage = open_storage(open_session())
    config = storage._open_bucket("shelter").config
    assert config["endpoint"] == storage._s3.meta.endpoint_url
    assert "amazonaws.com" in config["endpoint"]
    assert config["region"] == region


class _Breaking:
    """A body whose connection breaks after some bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def iter_chunks(self, _: int) -> Iterator[bytes]:
        if self._data:
            yield self._data
        raise IncompleteReadError(actual_bytes=len(self._data), expected_bytes=99)


class _BreakingS3:
    """An S3 client whose first answers break off, each after one of ``lengths`` bytes."""

    def __init__(self, real: Any, *lengths: int) -> None:
        self._real = real
        self._lengths = list(lengths)
        self.asked: list[dict[str, Any]] = []

    def get_object(self, **request: Any) -> Any:
        self.asked.append(request)
        answer = self._real.get_object(**request)
        if self._lengths:
            answer["Body"] = _Breaking(answer["Body"].read()[: self._lengths.pop(0)])
        return answer


def _breaking(bench: Bench, *lengths: int) -> tuple[Storage, _BreakingS3]:
    s3 = _BreakingS3(bench.s3, *lengths)
    return Storage(s3=cast("S3Client", s3), open_bucket=lambda _: cast("S3Store", None)), s3


def test_a_stream_that_breaks_off_continues_where_it_was(bench: Bench) -> None:
    """No byte is lost or repeated, and the rest is of the same object."""
    data = bytes(range(256)) * 40
    uri = bench.put("long.bin", data)
    storage, s3 = _breaking(bench, 100, 3000, 1)
    assert b"".join(storage.stream(uri)) == data
    assert [request.get("Range") for request in s3.asked] == [None, "bytes=100-", "bytes=3100-", "bytes=3101-"]


def test_a_stream_of_an_object_that_is_overwritten_is_refused(bench: Bench) -> None:
    """Half of one object and half of another would be neither."""
    uri = bench.put("long.bin", b"a" * 1000)
    storage, _ = _breaking(bench, 100)
    pieces = storage.stream(uri)
    assert next(pieces) == b"a" * 100
    bench.put("long.bin", b"b" * 1000)
    with pytest.raises(Reject, match="overwritten") as caught:
        list(pieces)
    assert caught.value.code is ErrorCode.CONFLICT


def test_a_stream_that_always_breaks_off_is_tried_again_later(bench: Bench) -> None:
    """After a few tries without a byte."""
    uri = bench.put("long.bin", b"a" * 1000)
    storage, s3 = _breaking(bench, 100, *[0] * 20)
    with pytest.raises(Retry):
        list(storage.stream(uri))
    assert len(s3.asked) < 10


def test_a_stream_of_an_empty_object_has_no_pieces(bench: Bench, storage: Storage) -> None:
    """A missing object is an error."""
    assert b"".join(storage.stream(bench.put("empty", b""))) == b""
    with pytest.raises(Reject) as caught:
        list(storage.stream(f"s3://{bench.bucket}/missing"))
    assert caught.value.code is ErrorCode.NOT_FOUND


def _listed_uris(bench: Bench) -> list[str]:
    """Puts an object at each key, and returns their addresses in S3's order."""
    return sorted((bench.put(f"list/{key}", b"x") for key in KEYS if key != "two//slashes.jpg"), key=str.encode)


@ON_BOTH_EMULATORS  # LocalStack compares keys in their URL encoding here, where é comes before a letter
def test_a_listing_goes_on_after_a_key(bench: Bench, storage: Storage) -> None:
    """In the order of the keys' bytes, as the listing itself."""
    uris = _listed_uris(bench)
    assert [item.uri for item in storage.list(f"s3://{bench.bucket}/list/", start_after=uris[2])] == uris[3:]


def test_a_listing_has_every_key_in_order(bench: Bench, storage: Storage) -> None:
    """Unchanged, from as many pages as there are."""
    uris = _listed_uris(bench)
    assert [item.uri for item in storage.list(f"s3://{bench.bucket}/list/")] == uris
    assert list(storage.list(f"s3://{bench.bucket}/none/")) == []
    with pytest.raises(Reject, match="no such bucket"):
        list(storage.list("s3://nobody-has-this-bucket/"))


def test_folders_are_those_directly_below_a_prefix(bench: Bench, storage: Storage) -> None:
    """Each with its slash. Objects are left out."""
    for key in ("jobs/june/job.json", "jobs/june/shards/0", "jobs/july/job.json", "jobs/file"):
        bench.put(key, b"x")
    found = list(storage.folders(f"s3://{bench.bucket}/jobs/"))
    assert found == [f"s3://{bench.bucket}/jobs/{name}/" for name in ("july", "june")]


def test_the_version_that_is_asked_for_is_read(bench: Bench, storage: Storage) -> None:
    """Whichever library reads it. Without a version it is the latest."""
    bench.s3.put_bucket_versioning(Bucket=bench.bucket, VersioningConfiguration={"Status": "Enabled"})
    for key in ("a.jpg", "odd//a.jpg"):
        old = bench.s3.put_object(Bucket=bench.bucket, Key=key, Body=b"old")["VersionId"]
        uri = bench.put(key, b"new")
        assert storage.read(uri, max_bytes=10, version_id=old) == b"old"
        assert storage.read(uri, max_bytes=10) == b"new"
        assert b"".join(storage.stream(uri, version_id=old)) == b"old"
        with pytest.raises(Reject):
            storage.read(uri, max_bytes=10, version_id="no-such-version")


def test_a_missing_object_is_not_found(bench: Bench, storage: Storage) -> None:
    """None, and not an error. A missing bucket is one."""
    assert storage.find(bench.put("there", b"x"), max_bytes=10) == b"x"
    assert storage.find(f"s3://{bench.bucket}/not-there", max_bytes=10) is None
    with pytest.raises(Reject):
        storage.find("s3://nobody-has-this-bucket/there", max_bytes=10)
