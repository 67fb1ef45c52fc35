"""Where models are, and which there are: whatever somebody types, or has put there."""

from pathlib import Path
from typing import get_args

import pytest

from jobs.models.champion import Champions
from jobs.models.location import _NAME, find
from jobs.models.registry import find_all
from jobs.store import BucketStore, FolderStore, Store
from jobs.user_error import UserError
from tests.conftest import Bench
from tests.jobs.models.versions import add_version
from worker.contract import Name


def _listed(where: str) -> list[tuple[str, str, bool]]:
    return [(version.name, version.version, version.champion) for version in find_all(where)]


@pytest.fixture
def stocked(tmp_path: Path, bundle: Path) -> FolderStore:
    """Two versions of ``digits``, the younger one, ``a``, the champion."""
    store = FolderStore(tmp_path / "models")
    _stock(store, bundle)
    return store


def _stock(store: Store, bundle: Path) -> None:
    add_version(store, bundle, "b", graph=b"", created_at="2026-11-23T00:00:00Z")
    add_version(store, bundle, "a", graph=b"", created_at="2026-11-24T00:00:00Z")
    Champions(store, "digits").crown("a", seen=None, how="first")


def test_models_are_listed_by_age_from_their_output_or_by_one_of_them(stocked: FolderStore) -> None:
    """The champion marked."""
    for where in ("", "/digits/"):
        assert _listed(f"{stocked.uri}{where}") == [("digits", "b", False), ("digits", "a", True)]


def test_a_model_and_a_version_are_found_by_what_one_would_type(stocked: FolderStore) -> None:
    """With or without a slash, and by their files."""
    for where in ("digits/", "digits/champion.json"):
        place = find(f"{stocked.uri}/{where}")
        assert (place.store.uri, place.name, place.version, place.bundle()) == (stocked.uri, "digits", None, "a")
    for where in ("digits/b", "digits/b/model.json"):
        place = find(f"{stocked.uri}/{where}")
        assert (place.store.uri, place.name, place.version) == (stocked.uri, "digits", "b")


@pytest.mark.parametrize("prefix", ["", "/models/of/ours"])
def test_a_bucket_is_read_as_a_folder_is(
    ministack_bench: Bench, monkeypatch: pytest.MonkeyPatch, bundle: Path, prefix: str
) -> None:
    """From its top, where a model's address has one part, and below a prefix."""
    uri = f"s3://{ministack_bench.bucket}{prefix}"
    _stock(BucketStore(uri, ministack_bench.storage(monkeypatch)), bundle)
    assert _listed(f"{uri}/") == [("digits", "b", False), ("digits", "a", True)]
    assert find(f"{uri}/digits").bundle() == "a"
    place = find(f"{uri}/digits/b/model.json")
    assert (place.store.uri, place.name, place.version) == (uri, "digits", "b")
    with pytest.raises(UserError, match="twofold model list"):
        find(f"{uri}/digits/v9")


def test_a_version_that_cannot_be_read_is_listed_with_its_problem(stocked: FolderStore) -> None:
    """And costs the others nothing; a name that is none of ours is not listed."""
    stocked.write("digits/broken/model.json", b"{}")
    stocked.write("digits/champions/notes.txt", b"")
    stocked.write("digits/ spaced/model.json", b"{}")
    found = {version.version: version.problem for version in find_all(stocked.uri)}
    assert set(found) == {"a", "b", "broken"}
    assert found["a"] is None
    assert "is no model manifest" in (found["broken"] or "")


_NOWHERE = ("nothing", "digits/v9", "../digits", "digits/..", "digits/a/../b", "a b", "digits/_history", "-", "x" * 65)


def test_what_is_not_there_is_told_and_nothing_is_made(stocked: FolderStore) -> None:
    """With the next step; no folder appears by asking for it, and no name climbs out."""
    before = stocked.names("")
    for name in _NOWHERE:
        with pytest.raises(UserError, match=r"twofold model list|such as s3://"):
            find(f"{stocked.uri}/{name}")
    assert stocked.names("") == before


def test_an_upload_that_broke_off_is_told_from_one_that_never_was(stocked: FolderStore) -> None:
    """Its model.json is what is missing."""
    stocked.remove("digits/b/model.json")
    with pytest.raises(UserError, match=r"has no model\.json.*broke off"):
        find(f"{stocked.uri}/digits/b")


@pytest.mark.parametrize("where", ["s3://", "s3://x", "s3:///models", "s3://UPPER/models/pets", "s3://a_b/models"])
def test_what_is_no_bucket_is_told_without_a_request(where: str) -> None:
    """No credentials are needed to learn of a slip."""
    with pytest.raises(UserError, match="s3://bucket/prefix"):
        find_all(where)


def test_a_folder_without_models_says_how_to_make_one(tmp_path: Path) -> None:
    """And one that is not there is not made."""
    with pytest.raises(UserError, match="twofold train run"):
        find_all(str(tmp_path))
    with pytest.raises(UserError, match="is no folder"):
        find_all(str(tmp_path / "none"))
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_what_the_contract_says() -> None:
    """What cannot be written to a model.json is not looked for."""
    assert get_args(Name)[1].pattern == f"^{_NAME}$"


def test_a_model_without_a_champion_names_its_versions(tmp_path: Path, bundle: Path) -> None:
    """What is meant is not guessed."""
    store = FolderStore(tmp_path)
    add_version(store, bundle, "v1", graph=b"")
    with pytest.raises(UserError, match="has no champion: name a version, one of v1"):
        find(str(tmp_path / "digits")).bundle()
