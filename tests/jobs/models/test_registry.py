"""Finding and listing models, whatever a user types or has stored there."""

from pathlib import Path
from typing import get_args

import pytest

from jobs.models.champion import Champions
from jobs.models.location import _NAME, find
from jobs.models.registry import find_all
from jobs.store import BucketStore, FolderStore, Store, open_store
from jobs.user_error import UserError
from tests.conftest import Bench
from tests.jobs.models.versions import add_version
from worker.contract import Name


def _listed(where: str) -> list[tuple[str, str, bool]]:
    return [(version.name, version.version, version.champion) for version in find_all(where)]


@pytest.fixture
def stocked(tmp_path: Path, bundle: Path) -> FolderStore:
    """Two versions of ``digits``. The newer one, ``a``, is the champion."""
    store = FolderStore(tmp_path / "models")
    _stock(store, bundle)
    return store


def _stock(store: Store, bundle: Path) -> None:
    add_version(store, bundle, "b", graph=b"", created_at="2026-11-23T00:00:00Z")
    add_version(store, bundle, "a", graph=b"", created_at="2026-11-24T00:00:00Z")
    Champions(store, "digits").set_champion("a", expected=None, how="first")


def test_versions_are_listed_by_age_with_the_champion_marked(stocked: FolderStore) -> None:
    """For an output, and for one model of it."""
    for where in ("", "/digits/"):
        assert _listed(f"{stocked.uri}{where}") == [("digits", "b", False), ("digits", "a", True)]


def test_a_model_or_version_is_found_by_its_folder_or_by_its_file(stocked: FolderStore) -> None:
    """With or without a slash at the end."""
    for where in ("digits/", "digits/champion.json"):
        location = find(f"{stocked.uri}/{where}")
        assert (location.store.uri, location.name, location.version) == (stocked.uri, "digits", None)
        assert location.bundle() == "a"
    for where in ("digits/b", "digits/b/model.json"):
        location = find(f"{stocked.uri}/{where}")
        assert (location.store.uri, location.name, location.version) == (stocked.uri, "digits", "b")


@pytest.mark.parametrize("prefix", [pytest.param("", id="top"), pytest.param("/our/models", id="prefix")])
def test_a_bucket_is_read_like_a_folder(
    ministack_bench: Bench, monkeypatch: pytest.MonkeyPatch, bundle: Path, prefix: str
) -> None:
    """At the top of the bucket and below a prefix."""
    uri = f"s3://{ministack_bench.bucket}{prefix}"
    _stock(BucketStore(uri, ministack_bench.storage(monkeypatch)), bundle)
    assert _listed(f"{uri}/") == [("digits", "b", False), ("digits", "a", True)]
    assert find(f"{uri}/digits").bundle() == "a"
    location = find(f"{uri}/digits/b/model.json")
    assert (location.store.uri, location.name, location.version) == (uri, "digits", "b")
    with pytest.raises(UserError, match="twofold model list"):
        find(f"{uri}/digits/v9")


def test_an_unreadable_version_is_listed_with_its_problem(stocked: FolderStore) -> None:
    """The others are listed as usual. Files that are not bundles are left out."""
    stocked.write("digits/broken/model.json", b"{}")
    stocked.write("digits/champions/notes.txt", b"")
    stocked.write("digits/ spaced/model.json", b"{}")
    found = {version.version: version.problem for version in find_all(stocked.uri)}
    assert set(found) == {"a", "b", "broken"}
    assert found["a"] is None
    assert "cannot be read as a model.json" in (found["broken"] or "")


_NOWHERE = ("nothing", "digits/v9", "../digits", "digits/..", "digits/a/../b", "a b", "digits/_history", "-", "x" * 65)


def test_a_missing_model_is_an_error_and_creates_nothing(stocked: FolderStore) -> None:
    """The message gives the next step. No folder is created, and no name leads out of the output."""
    before = stocked.names("")
    for name in _NOWHERE:
        with pytest.raises(UserError, match=r"twofold model list|such as s3://|Did you mean"):
            find(f"{stocked.uri}/{name}")
    assert stocked.names("") == before


def test_a_partly_written_bundle_is_not_reported_as_missing(stocked: FolderStore) -> None:
    """Only its model.json is missing, and the message says so."""
    stocked.remove("digits/b/model.json")
    with pytest.raises(UserError, match=r"has no model\.json.*partly written"):
        find(f"{stocked.uri}/digits/b")


@pytest.mark.parametrize("where", ["s3://", "s3://x", "s3:///models", "s3://UPPER/models/pets", "s3://a_b/models"])
def test_a_malformed_address_is_reported_without_a_request(where: str) -> None:
    """You need no credentials to find a typing mistake."""
    with pytest.raises(UserError, match="s3://bucket/prefix"):
        find_all(where)


def test_for_a_folder_without_models_the_error_says_how_to_train_one(tmp_path: Path) -> None:
    """A folder that does not exist is not created."""
    with pytest.raises(UserError, match="twofold train run"):
        find_all(str(tmp_path))
    with pytest.raises(UserError, match="is not a folder"):
        find_all(str(tmp_path / "none"))
    assert list(tmp_path.iterdir()) == []


def test_a_misspelled_folder_brings_up_the_one_that_is_there(
    stocked: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is like it, the message names a list only if that has something to show."""
    monkeypatch.chdir(Path(stocked.uri).parent)
    for search in (find, find_all):
        with pytest.raises(UserError, match=r"Did you mean models\?$"):
            search("modles")
    with pytest.raises(UserError, match=r"at models/digitz\. Did you mean models/digits\?$"):
        find("models/digitz")
    with pytest.raises(UserError, match=r"at models/zebra\. Run '.*twofold model list models' to list those"):
        find("models/zebra")
    with pytest.raises(UserError, match=r"at nothing/at/all\. Give OUTPUT/NAME or .*what you passed to training"):
        find("nothing/at/all")


def test_a_location_is_written_as_it_was_typed(stocked: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative one stays relative, so that a hint can be compared with what was typed."""
    monkeypatch.chdir(Path(stocked.uri).parent)
    assert find("models/digits/a").store.uri == "models"
    assert find("models/digits").store.uri == "models"
    monkeypatch.chdir("models/digits")
    assert (find("a").name, find("a").version, find(".").name, find("../digits/b").version) == (
        "digits",
        "a",
        "digits",
        "b",
    )


@pytest.mark.parametrize("where", ["s3://BUCKET/models", "s3://MY_BUCKET/models/pets"])
def test_the_placeholder_of_a_bucket_is_called_one(where: str) -> None:
    """Pages write BUCKET, and somebody pastes that."""
    with pytest.raises(UserError, match=r"_?BUCKET' is not the name of a bucket, .* Put the name of your own bucket"):
        open_store(where)


def test_a_model_name_follows_the_contract() -> None:
    """Both patterns are the same."""
    assert get_args(Name)[1].pattern == f"^{_NAME}$"


def test_for_a_model_without_a_champion_the_error_lists_its_versions(tmp_path: Path, bundle: Path) -> None:
    """Which version is meant is not guessed."""
    store = FolderStore(tmp_path)
    add_version(store, bundle, "v1", graph=b"")
    with pytest.raises(UserError, match=r"has no champion\. Name one of its versions: v1"):
        find(str(tmp_path / "digits")).bundle()
