"""Storage, on two emulators over HTTP."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import Bench
from worker.clients import open_session, open_storage
from worker.errors import ErrorCode, Reject, Retry
from worker.storage import Storage, _decide

#: Keys that people really have, and keys that obstore would change or refuse.
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


@pytest.mark.parametrize("key", KEYS)
def test_an_object_is_read_by_exactly_its_key(bench: Bench, storage: Storage, key: str) -> None:
    """Whatever a key looks like, its own bytes come back."""
    uri = bench.put(key, key.encode())
    assert storage.read(uri, max_bytes=1000) == key.encode()


def test_a_leading_slash_is_another_object(ministack_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """``/a.jpg`` and ``a.jpg`` are two objects; obstore alone would read the second for the first."""
    storage = ministack_bench.storage(monkeypatch)
    with_slash, without = ministack_bench.put("/a.jpg", b"slash"), ministack_bench.put("a.jpg", b"none")
    assert storage.read(with_slash, max_bytes=10) == b"slash"
    assert storage.read(without, max_bytes=10) == b"none"


def test_a_range_is_of_the_version_that_was_asked_for(bench: Bench, storage: Storage) -> None:
    """What changed in between is no half of it: it may be read again from its start."""
    uri = bench.put("large.zip", b"0123456789")
    etag = next(storage.list(uri)).etag
    assert storage.read_range(uri, start=2, end=5, etag=etag) == b"234"
    assert storage.read_range(uri, start=8, end=10, etag=None) == b"89"
    bench.put("large.zip", b"abcdefghij")
    with pytest.raises(Retry, match="changed while it was read"):
        storage.read_range(uri, start=2, end=5, etag=etag)
    with pytest.raises(Reject, match="no such object"):
        storage.read_range(f"{uri}.gone", start=0, end=1, etag=etag)


@pytest.mark.parametrize("key", ["a.jpg", "by//boto3.jpg"])
def test_an_object_is_read_only_as_the_version_that_was_asked_for(bench: Bench, storage: Storage, key: str) -> None:
    """By its entity tag, whichever library reads it."""
    uri = bench.put(key, b"old")
    etag = next(storage.list(uri)).etag
    assert storage.read(uri, max_bytes=10, etag=etag) == b"old"
    bench.put(key, b"new")
    with pytest.raises(Retry, match="changed while it was read"):
        storage.read(uri, max_bytes=10, etag=etag)


@pytest.mark.parametrize("key", ["missing.jpg", "missing//by-boto3.jpg"])
def test_a_missing_object_can_never_be_read(bench: Bench, storage: Storage, key: str) -> None:
    """Not found is a decision, not a thing to try again."""
    with pytest.raises(Reject) as caught:
        storage.read(f"s3://{bench.bucket}/{key}", max_bytes=10)
    assert caught.value.code is ErrorCode.NOT_FOUND


def test_a_missing_bucket_can_never_be_read(storage: Storage) -> None:
    """And the message says that it is the bucket."""
    with pytest.raises(Reject, match="no such bucket") as caught:
        storage.read("s3://nobody-has-this-bucket/a.jpg", max_bytes=10)
    assert caught.value.code is ErrorCode.NOT_FOUND


@pytest.mark.parametrize("key", ["large.bin", "large//by-boto3.bin"])
def test_a_large_object_is_refused_before_it_is_read(bench: Bench, storage: Storage, key: str) -> None:
    """The length in the answer's header decides."""
    uri = bench.put(key, b"x" * 1001)
    with pytest.raises(Reject) as caught:
        storage.read(uri, max_bytes=1000)
    assert caught.value.code is ErrorCode.TOO_MANY_BYTES


def test_of_eight_racing_writers_exactly_one_wins(bench: Bench, storage: Storage) -> None:
    """A part is committed once, whoever comes when."""
    uri = f"s3://{bench.bucket}/part.csv"

    def write(writer: int) -> bool:
        return storage.write_once(uri, f"{writer}".encode(), content_type="text/csv", metadata={"writer": f"{writer}"})

    with ThreadPoolExecutor(8) as pool:
        won = [writer for writer, wrote in enumerate(pool.map(write, range(8))) if wrote]
    assert len(won) == 1
    assert bench.get(uri) == f"{won[0]}".encode()
    assert storage.metadata(uri) == {"writer": f"{won[0]}"}


def test_metadata_of_nothing_is_none(bench: Bench, storage: Storage) -> None:
    """Absence is an answer here, not an error."""
    assert storage.metadata(f"s3://{bench.bucket}/none") is None


def test_no_answer_is_to_be_tried_again(monkeypatch: pytest.MonkeyPatch, ministack_bench: Bench) -> None:
    """A storage that cannot be reached says nothing about the object."""
    storage = ministack_bench.storage(monkeypatch)
    ministack_bench.environment["AWS_ENDPOINT_URL"] = "http://127.0.0.1:9"
    unreachable = ministack_bench.storage(monkeypatch)
    uri = ministack_bench.put("a.jpg", b"a")
    assert storage.read(uri, max_bytes=10) == b"a"
    with pytest.raises(Retry) as caught:
        unreachable.read(uri, max_bytes=10)
    assert caught.value.code is ErrorCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("status", "code", "decision"),
    [
        (None, "", "retry unavailable"),
        (500, "InternalError", "retry unavailable"),
        (503, "SlowDown", "retry unavailable"),
        (429, "", "retry unavailable"),
        (409, "ConditionalRequestConflict", "retry unavailable"),
        (400, "RequestTimeout", "retry unavailable"),
        (400, "ExpiredToken", "retry unavailable"),
        (400, "KMS.ThrottlingException", "retry unavailable"),
        (403, "RequestTimeTooSkewed", "retry unavailable"),
        (403, "InvalidAccessKeyId", "retry unavailable"),
        (404, "NoSuchKey", "reject not_found"),
        (403, "AccessDenied", "reject access_denied"),
        (403, "InvalidObjectState", "reject archived"),
        (301, "PermanentRedirect", "reject access_denied"),
        (412, "PreconditionFailed", "retry unavailable"),
        (400, "InvalidArgument", "reject access_denied"),
    ],
)
def test_an_answer_of_the_storage_is_a_decision(status: int | None, code: str, decision: str) -> None:
    """What passes is tried again; credentials and clock of the worker's own say nothing about an object."""
    made = _decide("s3://a-bucket/k", status=status, code=code, detail="")
    assert f"{type(made).__name__.lower()} {made.code.value}" == decision


@pytest.mark.parametrize("key", ["non-2xx status code: 503.jpg", "<Code>SlowDown</Code>.jpg", "Connection error.jpg"])
def test_no_key_steers_the_decision_about_itself(bench: Bench, storage: Storage, key: str) -> None:
    """A missing object is missing, whatever it is called."""
    with pytest.raises(Reject) as caught:
        storage.read(f"s3://{bench.bucket}/{key}", max_bytes=10)
    assert caught.value.code is ErrorCode.NOT_FOUND


@pytest.mark.parametrize("region", ["eu-west-1", "us-east-1"])
def test_without_an_endpoint_of_ones_own_both_readers_ask_the_same_place(
    monkeypatch: pytest.MonkeyPatch, region: str
) -> None:
    """Real AWS, which no emulator can show: obstore is given the endpoint that boto3 chose."""
    for name, value in {"AWS_REGION": region, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    storage = open_storage(open_session())
    config = storage._open_bucket("shelter").config
    assert config["endpoint"] == storage._s3.meta.endpoint_url
    assert "amazonaws.com" in config["endpoint"]
    assert config["region"] == region
