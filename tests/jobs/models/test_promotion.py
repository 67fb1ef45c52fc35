"""Promotion's promises: what is worse or damaged stays out, what is in use can always be replaced or gone back from."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from jobs.models.champion import Champions
from jobs.models.gate import Gate, Refused
from jobs.models.promotion import Change, promote, rollback
from jobs.progress import Reporter
from jobs.store import FolderStore, Store
from jobs.user_error import UserError
from tests.jobs.models.versions import FILES, add_version, images_of, state, with_mistakes
from worker.contract import ChampionPointer

_QUIET = Reporter(quiet=True)


def _promote(store: Store, version: str, *, margin: float = 0.005, **options: Any) -> Change:
    return promote(store, "digits", version, Gate(margin=margin, reporter=_QUIET, **options))


def _champion(store: Store) -> str:
    return ChampionPointer.model_validate_json(store.read("digits/champion.json") or b"").version


@pytest.fixture
def folder(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "models")


@pytest.fixture
def refused(folder: FolderStore) -> Callable[..., str]:
    """Promotes a version, which must be refused and change nothing; returns the reason."""

    def attempt(version: str, **options: Any) -> str:
        before = state(folder)
        with pytest.raises(UserError) as caught:
            _promote(folder, version, **options)
        assert state(folder) == before
        return str(caught.value)

    return attempt


def test_what_is_better_or_as_good_is_promoted_and_the_record_says_why(store: Store, bundle: Path) -> None:
    """In a folder and in a bucket; the comparison is on the same pictures, from the scores on record."""
    images = images_of(bundle)
    for version, wrong in (("v1", {1, 2, 3}), ("v2", {3}), ("v3", {9})):
        add_version(store, bundle, version, images=with_mistakes(images, wrong))
    assert _promote(store, "v1").how == "first"
    change = _promote(store, "v2")
    assert (change.replaced, change.how, change.moved) == ("v1", "promoted", True)
    assert change.comparison
    assert change.comparison["accuracy_difference"]["value"] == pytest.approx(2 / 72)
    assert (change.comparison["only_challenger_right"], change.comparison["champion_scores"]) == (2, "recorded")
    assert _promote(store, "v3").moved  # a tie
    assert _champion(store) == "v3"
    assert Champions(store, "digits").history()[1].comparison == change.comparison


def test_racing_promotions_are_decided_one_after_the_other(folder: FolderStore, bundle: Path) -> None:
    """Eight at once, each as good as the other: each was compared with the very one it replaced, and none is lost."""
    images = images_of(bundle)
    for number in range(9):
        add_version(folder, bundle, f"v{number}", images=with_mistakes(images, {number}))
    _promote(folder, "v0")
    with ThreadPoolExecutor(8) as pool:
        changes = list(pool.map(lambda number: _promote(folder, f"v{number}"), range(1, 9)))
    history = Champions(folder, "digits").history()
    assert len(history) == 9
    replaced = {record.version: record.replaced.version if record.replaced else None for record in history}
    assert {change.version: change.replaced for change in changes} | {"v0": None} == replaced


def test_what_is_worse_by_more_than_the_margin_is_refused(
    folder: FolderStore, bundle: Path, refused: Callable[..., str]
) -> None:
    """With both accuracies and what can be done; a margin allows it, force does, and both go on record."""
    images = images_of(bundle)
    add_version(folder, bundle, "v1", images=with_mistakes(images, {1}))
    add_version(folder, bundle, "v2", images=with_mistakes(images, {1, 2, 3}))
    _promote(folder, "v1")
    said = refused("v2")
    assert "0.9583 against 0.9861" in said
    assert "at most 0.005 may be lost. --margin allows more, --force" in said
    refused("v2", margin=1.9 / 72)
    assert _promote(folder, "v2", margin=2 / 72).how == "promoted"
    _promote(folder, "v1")
    assert _promote(folder, "v2", force=True).how == "forced"
    record = Champions(folder, "digits").history()[0]
    assert (record.how, record.comparison and record.comparison["only_champion_right"]) == ("forced", 2)


def test_the_champion_itself_is_not_promoted_again(folder: FolderStore, bundle: Path) -> None:
    """Nothing is written, and it is no error."""
    add_version(folder, bundle, "v1")
    _promote(folder, "v1")
    before = state(folder)
    assert not _promote(folder, "v1").moved
    assert state(folder) == before


@pytest.mark.parametrize("labels", [["eight", "nine"], ["three", "eight"]])
def test_another_question_is_refused_and_no_force_helps(
    folder: FolderStore, bundle: Path, refused: Callable[..., str], labels: list[str]
) -> None:
    """Other classes, or the same in the other order: a score would mean something else."""
    add_version(folder, bundle, "v1", labels=labels)
    add_version(folder, bundle, "v2")
    _promote(folder, "v1")
    for force in (False, True):
        assert f"{labels[0]} (0) from {labels[1]} (1)" in refused("v2", force=force)


def test_a_picture_of_both_classes_is_refused(folder: FolderStore, bundle: Path, refused: Callable[..., str]) -> None:
    """One of the two test sets is wrong about it, and nobody here knows which."""
    images = images_of(bundle)
    contested = images[5].model_copy(update={"true_label": "three"})
    assert images[5].true_label == "eight"
    add_version(folder, bundle, "v1", images=[*images[:5], contested, *images[6:]])
    add_version(folder, bundle, "v2")
    _promote(folder, "v1")
    assert f"{images[5].source_ref} is of both classes" in refused("v2")
    assert _promote(folder, "v2", force=True).how == "forced"


def test_on_other_pictures_the_champion_is_scored_again(
    folder: FolderStore, bundle: Path, digit_images: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    """Which needs the pictures: without them, or with a folder that lacks some, it says what to type."""
    images = images_of(bundle)
    add_version(folder, bundle, "v1", images=images[10:])
    add_version(folder, bundle, "v2", images=images[:40])
    _promote(folder, "v1")
    assert "not tested on the same pictures. Add --data FOLDER" in refused("v2")
    assert "40 of the 40 test pictures are not in" in refused("v2", data=tmp_path)
    change = _promote(folder, "v2", data=digit_images)
    assert change.picture_scored
    assert change.comparison
    assert (change.comparison["n"], change.comparison["champion_scores"]) == (40, "scored again")
    # It is the same graph: the very same answers.
    assert change.comparison["log_loss_difference"]["value"] == pytest.approx(0, abs=1e-7)


def test_a_champion_that_tells_no_truth_is_scored_again(
    folder: FolderStore, bundle: Path, digit_images: Path, refused: Callable[..., str]
) -> None:
    """As one of an older version: its graph is all it takes."""
    add_version(folder, bundle, "v1")
    folder.write("digits/v1/test_predictions.csv", b"row,source_ref\n")
    add_version(folder, bundle, "v2")
    Champions(folder, "digits").crown("v1", seen=None, how="first")
    assert "v1/test_predictions.csv: 15 bytes, not" in refused("v2")
    assert _promote(folder, "v2", data=digit_images).how == "promoted"


def test_a_version_without_test_images_cannot_be_compared(
    folder: FolderStore, bundle: Path, refused: Callable[..., str]
) -> None:
    """And says so, instead of dividing by their number."""
    add_version(folder, bundle, "v1")
    add_version(folder, bundle, "v2", images=[])
    _promote(folder, "v1")
    assert "contains no test images" in refused("v2")


@pytest.mark.parametrize("name", FILES)
def test_a_version_with_a_file_altered_or_missing_is_refused_by_force_too(
    folder: FolderStore, bundle: Path, refused: Callable[..., str], name: str
) -> None:
    """Naming the file; the champion stays."""
    add_version(folder, bundle, "v1")
    add_version(folder, bundle, "v2")
    _promote(folder, "v1")
    body = bytearray(folder.read(f"digits/v2/{name}") or b"")
    body[len(body) // 2] ^= 1
    folder.write(f"digits/v2/{name}", bytes(body))
    assert name in refused("v2", force=True)
    folder.remove(f"digits/v2/{name}")
    assert name in refused("v2", force=True)


def test_a_graph_that_scores_something_else_than_it_says_is_refused(
    folder: FolderStore, bundle: Path, digit_images: Path, refused: Callable[..., str]
) -> None:
    """Seen where a picture is at hand."""
    add_version(folder, bundle, "v1", images=with_mistakes(images_of(bundle), {0}))
    assert "when v1 was trained" in refused("v1", data=digit_images)


def test_a_champion_that_is_gone_can_be_replaced_by_force(
    folder: FolderStore, bundle: Path, refused: Callable[..., str]
) -> None:
    """There is nothing left to compare with, and nothing to wait for."""
    Champions(folder, "digits").crown("v1", seen=None, how="first")
    add_version(folder, bundle, "v2")
    assert "--force" in refused("v2")
    assert _promote(folder, "v2", force=True).how == "forced"


def test_rollback_goes_back_one_each_time(store: Store, bundle: Path) -> None:
    """To a bundle that was opened and checked first; before the first champion there is nothing."""
    for version in ("v1", "v2", "v3"):
        add_version(store, bundle, version)
        _promote(store, version)
    for version, replaced in (("v2", "v3"), ("v1", "v2")):
        change = rollback(store, "digits", _QUIET)
        assert (change.version, change.replaced, change.how) == (version, replaced, "rolled back")
        assert _champion(store) == version
    with pytest.raises(Refused, match="no record of a champion before v1"):
        rollback(store, "digits", _QUIET)
    with pytest.raises(Refused, match="has no champion"):
        rollback(store, "cats", _QUIET)


def test_racing_rollbacks_never_go_back_further_than_one_each(folder: FolderStore, bundle: Path) -> None:
    """Who was overtaken is told, and does not go on from there."""
    for version in ("v1", "v2", "v3", "v4", "v5"):
        add_version(folder, bundle, version)
        _promote(folder, version)

    def attempt(_: int) -> bool:
        try:
            return rollback(folder, "digits", _QUIET).moved
        except Refused:
            return False

    with ThreadPoolExecutor(3) as pool:
        went = list(pool.map(attempt, range(3)))
    assert _champion(folder) == f"v{5 - went.count(True)}"
    assert went.count(True) >= 1


def test_a_rollback_to_a_damaged_bundle_is_refused(folder: FolderStore, bundle: Path) -> None:
    """Naming the file and the way out."""
    for version in ("v1", "v2"):
        add_version(folder, bundle, version)
        _promote(folder, version)
    folder.remove("digits/v1/model.tflite")
    with pytest.raises(Refused, match=r"model\.tflite: missing.*twofold model promote .*--force"):
        rollback(folder, "digits", _QUIET)
    assert _champion(folder) == "v2"
