"""A dataset is the same wherever it is stored."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest

from jobs.cli import main
from jobs.config import TrainConfig
from jobs.data.bucket import read_prefix
from jobs.user_error import UserError
from tests.conftest import Bench
from tests.jobs.data.image_folders import QUIET, folder, open_data, pack, write_image
from tests.jobs.data.serving import serve
from worker.aws.clients import open_session
from worker.aws.storage import Listed, Storage
from worker.errors import ErrorCode, Reject, Retry


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Two classes, files to ignore, and names that an archive or a bucket could change."""
    data = folder(tmp_path / "pets", cats=10, dogs=10)
    for number, name in enumerate(["é ü.png", "plus+percent%20.png", "two  spaces.png", "a:b.png"]):
        write_image(data / "cats" / "more" / name, 1000 + number)
    (data / "dogs" / "Thumbs.db").write_bytes(b"x")
    (data / "README.md").write_text("outside the class folders")
    return data


Place = Callable[[Path], AbstractContextManager[str]]


@contextmanager
def _as_folder(pets: Path) -> Iterator[str]:
    yield str(pets)


def _as_archive(name: str) -> Place:
    @contextmanager
    def there(pets: Path) -> Iterator[str]:
        yield str(pack(pets, pets.parent / name))

    return there


@contextmanager
def _behind_an_address(pets: Path) -> Iterator[str]:
    with serve(pack(pets, pets.parent / "web.zip").read_bytes()) as site:
        site.cuts = [5000]
        yield site.url


PLACES: dict[str, Place] = {
    "folder": _as_folder,
    "zip": _as_archive("pets.zip"),
    "tar": _as_archive("pets.tar"),
    "tar.gz": _as_archive("pets.tar.gz"),
    "tgz without its name": _as_archive("download.bin"),
    "address": _behind_an_address,
}


@pytest.mark.parametrize("place", PLACES)
def test_every_place_gives_the_same_dataset(pets: Path, tmp_path: Path, place: str) -> None:
    """Digest, names, classes and splits are equal, and again the second time, from the cache."""
    want = open_data(pets)
    assert len(want) == 24
    with PLACES[place](pets) as data:
        for _ in range(2):
            found = open_data(data, cache=tmp_path / "cache")
            assert (found.digest, found.labels) == (want.digest, want.labels)
            for split in ("train", "validation", "test"):
                assert [i.ref for i in getattr(found, split)] == [i.ref for i in getattr(want, split)]
            assert all(hashlib.sha256(i.path.read_bytes()).hexdigest() == i.sha256 for i in found.train)


def _use(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connects the sources to the emulator, through one session for all of a test's datasets."""
    for name, value in bench.environment.items():
        monkeypatch.setenv(name, value)
    session = open_session()
    monkeypatch.setattr("jobs.store.open_session", lambda: session)


def _upload(bench: Bench, data: Path, prefix: str) -> str:
    for path in data.rglob("*"):
        if path.is_file():
            bench.put(f"{prefix}{path.relative_to(data).as_posix()}", path.read_bytes())
    return f"s3://{bench.bucket}/{prefix}"


def test_a_prefix_gives_the_same_dataset_and_is_read_once(
    pets: Path, tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed object is read again, an unchanged one is not, and one outside the prefix never is."""
    _use(bench, monkeypatch)
    data = _upload(bench, pets, "pets/")
    bench.put("pets/cats/", b"")  # a folder, as the S3 console creates it
    bench.put("pets-of-others/eels/1.png", b"x")
    assert open_data(data, cache=tmp_path / "cache").digest == open_data(pets).digest
    objects = [path for path in (tmp_path / "cache/data/objects").rglob("*") if path.is_file()]
    assert len(objects) == 25  # with README.md, which is outside the class folders, but without Thumbs.db
    before = {path: path.stat().st_mtime_ns for path in objects}
    write_image(pets / "cats" / "000.png", 77)
    bench.put("pets/cats/000.png", (pets / "cats" / "000.png").read_bytes())
    assert open_data(data.rstrip("/"), cache=tmp_path / "cache").digest == open_data(pets).digest
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache/data/objects").rglob("*") if path.is_file()}
    assert before.items() <= after.items()
    assert len(after) == 26


def test_an_archive_in_a_bucket_is_read_in_ranges_and_once(
    pets: Path, tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read again when it has changed."""
    _use(bench, monkeypatch)
    monkeypatch.setattr("jobs.data.bucket._RANGE_BYTES", 3000)
    uri = bench.put("in/pets.zip", pack(pets, tmp_path / "pets.zip").read_bytes())
    digest = open_data(pets).digest
    assert open_data(uri, cache=tmp_path / "cache").digest == digest
    whole = next((tmp_path / "cache/data/downloads").rglob("whole"))
    loaded = whole.stat().st_mtime_ns
    assert open_data(uri, cache=tmp_path / "cache").digest == digest
    assert whole.stat().st_mtime_ns == loaded
    write_image(pets / "cats" / "000.png", 77)
    bench.put("in/pets.zip", pack(pets, tmp_path / "pets.zip").read_bytes())
    assert open_data(uri, cache=tmp_path / "cache").digest == open_data(pets).digest != digest


def test_an_object_that_cannot_be_read_is_left_out_with_its_reason(
    pets: Path, tmp_path: Path, ministack_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A size over the limit is known from the listing, so the object is not read. The others are."""
    _use(ministack_bench, monkeypatch)
    monkeypatch.setattr("jobs.data.bucket.MAX_BYTES", 1500)
    data = _upload(ministack_bench, pets, "pets/")
    ministack_bench.put("pets/dogs/large.png", b"x" * 1501)
    found = open_data(data, cache=tmp_path / "cache", max_quarantined=0.1)
    assert [(item.image.ref, item.reason.code) for item in found.quarantined] == [("dogs/large.png", "too_many_bytes")]
    assert len(found) == 24


class _FailingStorage:
    """Ten objects. Reading the one at ``fails_at`` is throttled."""

    def __init__(self) -> None:
        self.fails_at = 7
        self.read_uris: list[str] = []

    def list(self, prefix_uri: str) -> Iterator[Listed]:
        yield from (Listed(f"{prefix_uri}cats/{number}", 1, datetime.now(UTC), f"tag{number}") for number in range(10))

    def read(self, uri: str, *, max_bytes: int, etag: str | None) -> bytes:
        if uri.endswith(f"/{self.fails_at}"):
            raise Retry(ErrorCode.UNAVAILABLE, f"{uri}: slow down")
        self.read_uris.append(uri)
        return b"x"


def test_reading_a_bucket_resumes_where_storage_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says so, and no object is read twice."""
    monkeypatch.setattr("jobs.data.bucket._READERS", 1)
    storage = _FailingStorage()
    with pytest.raises(UserError, match=r"slow down.*are kept: run the same command again"):
        read_prefix("s3://shelter/pets/", tmp_path, cast(Storage, storage), QUIET)
    assert len(storage.read_uris) >= 7
    storage.fails_at = -1
    assert len(read_prefix("s3://shelter/pets/", tmp_path, cast(Storage, storage), QUIET).files) == 10
    assert len(storage.read_uris) == len(set(storage.read_uris)) == 10


def test_an_object_that_changes_after_it_was_listed_is_not_cached(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under its old entity tag, the next run would take it for the old version."""
    bench.put("pets/cats/1.png", b"old")
    storage = bench.storage(monkeypatch)
    listed = list(storage.list(f"s3://{bench.bucket}/pets/"))
    bench.put("pets/cats/1.png", b"new")
    monkeypatch.setattr(storage, "list", lambda _: iter(listed))
    with pytest.raises(UserError, match="changed while it was read"):
        read_prefix(f"s3://{bench.bucket}/pets/", tmp_path, storage, QUIET)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_the_command_unpacks_to_the_users_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It reports what is wrong with the dataset before TensorFlow is started."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    archive = pack(folder(tmp_path / "zoo", cats=2, dogs=2, eels=2), tmp_path / "zoo.tgz")
    assert main(["train", "run", "--data", str(archive), "--output", str(tmp_path / "out")]) == 1
    assert "zoo.tgz/zoo must hold exactly two class folders; found 3: cats, dogs, eels" in capsys.readouterr().err
    assert (tmp_path / "home/twofold/data/unpacked").is_dir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/a.txt").touch()
    assert main(["train", "run", "--data", str(tmp_path / "empty"), "--output", str(tmp_path / "out")]) == 1
    assert "two class folders; found none." in capsys.readouterr().err


def test_a_missing_bucket_or_object_is_reported(
    tmp_path: Path, ministack_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And an address that is not valid."""
    _use(ministack_bench, monkeypatch)
    for data, message in (
        ("s3://nobody-has-this-bucket/pets/", "no such bucket"),
        ("s3://nobody-has-this-bucket/pets.zip", "no such bucket"),
        ("s3://No_Bucket/pets/", "not of the form"),
        (f"s3://{ministack_bench.bucket}/none.zip", "no such object"),
        (f"s3://{ministack_bench.bucket}/none/", "found none"),
        (f"s3://{ministack_bench.bucket}/none/#sha256={'0' * 64}", "is for an archive"),
    ):
        with pytest.raises((UserError, Reject), match=message):
            open_data(data, cache=tmp_path / "cache")


def test_a_digest_in_the_address_is_checked(pets: Path, tmp_path: Path) -> None:
    """A file with another digest is refused and not kept. One with the right digest is not requested again."""
    body = pack(pets, tmp_path / "pets.zip").read_bytes()
    with serve(body) as site:
        wrong, right = hashlib.sha256(b"another").hexdigest(), hashlib.sha256(body).hexdigest()
        with pytest.raises(UserError, match="is not the expected file"):
            open_data(f"{site.url}#sha256={wrong}", cache=tmp_path / "cache")
        assert list((tmp_path / "cache").rglob("whole")) == []
        for _ in range(2):
            assert open_data(f"{site.url}#sha256={right.upper()}", cache=tmp_path / "cache").digest
        assert len(site.requests) == 2
        assert not any("sha256" in str(headers) for headers in site.requests)
    with pytest.raises(UserError, match="64 hexadecimal digits"):
        open_data("https://host/pets.zip#sha256=abc", cache=tmp_path / "cache")


def test_a_download_that_cannot_be_unpacked_is_not_kept(pets: Path, tmp_path: Path) -> None:
    """If the server does not send the length, half of a file looks complete, and would be used for ever."""
    with serve(pack(pets, tmp_path / "pets.zip").read_bytes()) as site:
        site.has_length, site.cuts = False, [5000]
        with pytest.raises(UserError, match="damaged"):
            open_data(site.url, cache=tmp_path / "cache")
        assert open_data(site.url, cache=tmp_path / "cache").digest == open_data(pets).digest


def test_training_names_the_host_that_a_web_address_redirects_to(
    pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And follows the redirect with the option that the message shows. The query of neither address is printed."""
    body = pack(pets, tmp_path / "pets.zip").read_bytes()
    with serve(b"") as site, serve(body) as other:
        site.redirect = f"{other.url.replace('127.0.0.1', 'localhost')}?X-Amz-Signature=secret"
        data, output = f"{site.url}?X-Amz-Signature=secret", str(tmp_path / "out")
        options = ["--data", data, "--output", output, "--cache", str(tmp_path / "cache")]
        assert main(["train", "run", *options]) == 1
        printed = capsys.readouterr().err
        assert "another host, localhost, which is not followed. If you trust it: --redirect-hosts localhost" in printed
        assert "secret" not in printed
        assert other.requests == []
        again = open_data(data, cache=tmp_path / "cache", redirect_hosts="localhost")
        assert again.digest == open_data(pets).digest


def test_a_bundle_does_not_record_a_signature_or_the_cache() -> None:
    """A presigned URL is a secret for as long as it works. The cache is a local path and changes no result."""
    digest = "0" * 64
    for data, recorded in (
        ("https://host/pets.zip?X-Amz-Signature=secret", "https://host/pets.zip"),
        (f"https://host/pets.zip?sig=secret#sha256={digest}", f"https://host/pets.zip#sha256={digest}"),
        ("HTTPS://host/pets.zip?sig=secret", "https://host/pets.zip"),
        ("s3://shelter/pets?/", "s3://shelter/pets?/"),
        ("pets?/", "pets?/"),
    ):
        dump = TrainConfig(data=data, output="out").model_dump(mode="json")
        assert dump["data"] == recorded
        assert "cache" not in dump


def test_an_archive_on_disk_that_changed_is_unpacked_again(pets: Path, tmp_path: Path) -> None:
    """It is identified by its content, not by its name or date."""
    archive = pack(pets, tmp_path / "pets.tar")
    first = open_data(archive, cache=tmp_path / "cache").digest
    shutil.copy(pets / "cats" / "001.png", pets / "cats" / "900.png")
    pack(pets, archive)
    assert open_data(archive, cache=tmp_path / "cache").digest == open_data(pets).digest != first
