"""A bundle is copied from store to store, complete, checked and never over another."""

import json
from pathlib import Path

import pytest

from jobs.models.bundle import Bundle, read_bundle
from jobs.models.copying import copy_bundle, output_of
from jobs.models.location import find_bundle
from jobs.progress import Reporter
from jobs.store import FolderStore, Store
from jobs.user_error import UserError
from tests.jobs.models.versions import FILES, add_version, state
from worker.contract import ModelManifest

QUIET = Reporter(quiet=True)


@pytest.fixture
def source(tmp_path: Path, bundle: Path) -> FolderStore:
    """``digits/v1``, with a small graph."""
    store = FolderStore(tmp_path / "source")
    add_version(store, bundle, "v1", graph=b"a graph")
    return store


def _read(store: Store) -> Bundle:
    return read_bundle(store, "digits", "v1", QUIET)


class _Dying(FolderStore):
    """A folder of a process that dies when it has written so many files."""

    def __init__(self, root: Path, *, writes: int) -> None:
        super().__init__(root)
        self.left = writes

    def write_once(self, name: str, body: bytes) -> bool:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return super().write_once(name, body)


class _Lossy(FolderStore):
    """A folder that stores one byte less."""

    def write_once(self, name: str, body: bytes) -> bool:
        return super().write_once(name, body[:-1])


def test_a_copy_has_the_same_bytes_in_a_folder_and_in_a_bucket_and_back(
    source: FolderStore, store: Store, tmp_path: Path
) -> None:
    """All files of the bundle, and no other."""
    source.write("digits/v1/Thumbs.db", b"not part of it")
    copied = copy_bundle(_read(source), store, QUIET)
    assert (copied.files, copied.new_files, copied.uri) == (len(FILES), len(FILES), f"{store.uri}/digits/v1")
    back = FolderStore(tmp_path / "back")
    copy_bundle(_read(store), back, QUIET)
    source.remove("digits/v1/Thumbs.db")
    assert state(source) == state(store) == state(back)
    assert copied.size_bytes == sum(len(source.read(name) or b"") for name in source.names(""))


@pytest.mark.parametrize("writes", range(len(FILES)))
def test_an_interrupted_copy_goes_on_where_it_was(source: FolderStore, tmp_path: Path, writes: int) -> None:
    """Until it is complete there is no model.json, so that no worker opens it."""
    dying = _Dying(tmp_path / "copy", writes=writes)
    with pytest.raises(KeyboardInterrupt):
        copy_bundle(_read(source), dying, QUIET)
    assert not dying.exists("digits/v1/model.json")
    copied = copy_bundle(_read(source), FolderStore(tmp_path / "copy"), QUIET)
    assert copied.new_files == len(FILES) - writes
    assert state(dying) == state(source)


@pytest.mark.parametrize("name", FILES)
def test_a_copy_never_overwrites_other_bytes(source: FolderStore, store: Store, name: str) -> None:
    """The message names the file, and nothing is written next to it."""
    store.write(f"digits/v1/{name}", b"another")
    before = state(store)
    with pytest.raises(UserError, match=rf"digits/v1/{name} exists with other bytes"):
        copy_bundle(_read(source), store, QUIET)
    assert state(store) == before


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_bundle_is_not_copied(source: FolderStore, tmp_path: Path, name: str) -> None:
    """Its digests are checked before anything is written."""
    body = source.read(f"digits/v1/{name}") or b""
    changed = json.dumps(json.loads(body) | {"threshold": 0.1}).encode() if name == "model.json" else body[:-1]
    source.write(f"digits/v1/{name}", changed)
    target = FolderStore(tmp_path / "copy")
    with pytest.raises(UserError, match=rf"is not what training wrote: {name}: .* Nothing was copied"):
        copy_bundle(_read(source), target, QUIET)
    assert target.names("") == []


def test_what_was_written_is_read_back(source: FolderStore, tmp_path: Path) -> None:
    """A store that loses a byte is noticed before model.json is there."""
    target = _Lossy(tmp_path / "copy")
    with pytest.raises(UserError, match="is not what was written"):
        copy_bundle(_read(source), target, QUIET)
    assert not target.exists("digits/v1/model.json")


@pytest.mark.parametrize(
    ("to", "output"),
    [
        ("out/models", "out/models"),
        ("out/models/digits/", "out/models"),
        ("out/models/digits/v1", "out/models"),
        ("out/models/digits/champion.json", "out/models"),
        ("digits", "."),
        ("/digits", "/"),
        ("s3://shelter/models", "s3://shelter/models"),
        ("s3://shelter/models/digits", "s3://shelter/models"),
        ("s3://shelter/digits/v1/", "s3://shelter"),
        ("s3://digits", "s3://digits"),
        ("s3://digits/v1", "s3://digits/v1"),
    ],
)
def test_the_target_may_be_the_output_the_model_or_the_version(to: str, output: str, source: FolderStore) -> None:
    """Whatever one types first: the bundle is always at <output>/digits/v1. A bucket keeps its name."""
    manifest = ModelManifest.model_validate_json(source.read("digits/v1/model.json") or b"")
    assert output_of(to, manifest) == output


def test_a_folder_with_one_model_means_its_champion(source: FolderStore, bundle: Path) -> None:
    """With more than one, they are named."""
    add_version(source, bundle, "v2", graph=b"")
    with pytest.raises(UserError, match=r"has no champion. Name one of its versions: v1, v2"):
        find_bundle(source.uri)
    source.write("digits/champion.json", b'{"name": "digits", "version": "v1", "promoted_at": "2026-11-24T00:00:00Z"}')
    found = find_bundle(source.uri)
    assert (found.name, found.version) == ("digits", "v1")
    assert find_bundle(f"{source.uri}/digits").version == "v1"
    assert find_bundle(f"{source.uri}/digits/v2").version == "v2"
    add_version(source, bundle, "v1", name="cats", graph=b"")
    with pytest.raises(UserError, match=rf"has 2 models: cats, digits\. Name one of them, such as {source.uri}/cats"):
        find_bundle(source.uri)
