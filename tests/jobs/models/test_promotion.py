"""Promotion: a worse or damaged version is refused, and a champion can always be replaced or rolled back."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from jobs.models.bundle import ImagePlaces
from jobs.models.champion import Champions
from jobs.models.gate import Gate, PromotionRefused
from jobs.models.promotion import Change, promote, rollback
from jobs.progress import Reporter
from jobs.store import FolderStore, Store
from jobs.user_error import UserError
from tests.jobs.models.versions import FILES, add_version, images_of, state, with_mistakes
from worker.contract import ChampionPointer

_QUIET = Reporter(quiet=True)


def _promote(store: Store, version: str, *, margin: float = 0.005, data: Path | None = None, **options: Any) -> Change:
    places = None if data is None else ImagePlaces.of_folder(data)
    return promote(store, "digits", version, Gate(margin=margin, reporter=_QUIET, data=places, **options))


def _champion(store: Store) -> str:
    return ChampionPointer.model_validate_json(store.read("digits/champion.json") or b"").version


@pytest.fixture
def folder(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "models")


@pytest.fixture
def refused(folder: FolderStore) -> Callable[..., str]:
    """Promotes a version, which must be refused and change nothing, and returns the reason."""

    def attempt(version: str, **options: Any) -> str:
        before = state(folder)
        with pytest.raises(UserError) as caught:
            _promote(folder, version, **options)
        assert state(folder) == before
        return str(caught.value)

    return attempt


def test_a_version_that_is_no_worse_is_promoted_and_the_record_says_why(store: Store, bundle: Path) -> None:
    """In a folder and in a bucket. The recorded scores of the same images are compared."""
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
    """Of eight equally good versions, each is compared with the one that it replaces, and none is lost."""
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


def test_a_version_worse_by_more_than_the_margin_is_refused(
    folder: FolderStore, bundle: Path, refused: Callable[..., str]
) -> None:
    """The message gives both accuracies and the options. A margin or force allows it, and goes on record."""
    images = images_of(bundle)
    add_version(folder, bundle, "v1", images=with_mistakes(images, {1}))
    add_version(folder, bundle, "v2", images=with_mistakes(images, {1, 2, 3}))
    _promote(folder, "v1")
    reason = refused("v2")
    assert "0.9583 against 0.9861" in reason
    assert "at most 0.005 may be lost. Only one of the two is right on 2 images: McNemar's p = 0.5." in reason
    command = f"twofold model promote {folder.uri}/digits/v2 --force"
    assert "--force promotes it anyway, and --margin allows more to be lost: " in reason
    assert reason.endswith(command)
    refused("v2", margin=1.9 / 72)
    assert _promote(folder, "v2", margin=2 / 72).how == "promoted"
    _promote(folder, "v1")
    assert _promote(folder, "v2", force=True).how == "forced"
    record = Champions(folder, "digits").history()[0]
    assert (record.how, record.comparison and record.comparison["only_champion_right"]) == ("forced", 2)


def test_a_version_that_was_asked_for_precision_is_refused_with_the_precision_of_both(
    folder: FolderStore, bundle: Path, refused: Callable[..., str]
) -> None:
    """Its accuracy is lower by design, so the difference says little. The rule of the gate is the same."""
    images = images_of(bundle)
    eights = [number for number, image in enumerate(images) if image.true_label == "eight"]
    threes = [number for number, image in enumerate(images) if image.true_label == "three"]
    asked = json.loads((bundle / "model.json").read_text())["training_config"] | {"data": "gone"}
    add_version(folder, bundle, "v1", images=with_mistakes(images, eights[:1]))
    strict = asked | {"threshold": "precision>=0.99"}
    add_version(folder, bundle, "v2", images=with_mistakes(images, threes[:4]), training_config=strict)
    _promote(folder, "v1")
    reason = refused("v2")
    assert " v2 was asked for precision>=0.99, the champion not: its accuracy is lower by design. " in reason
    assert f"its precision is 1.0000 against {len(threes) / (len(threes) + 1):.4f}. --force promotes" in reason
    add_version(folder, bundle, "v3", images=with_mistakes(images, threes[:9]), training_config=strict)
    assert _promote(folder, "v2", force=True).how == "forced"
    assert "by design" not in refused("v3")  # both were asked for the same


def test_promoting_the_champion_changes_nothing(folder: FolderStore, bundle: Path) -> None:
    """It is not an error either."""
    add_version(folder, bundle, "v1")
    _promote(folder, "v1")
    before = state(folder)
    assert not _promote(folder, "v1").moved
    assert state(folder) == before


@pytest.mark.parametrize(
    "labels",
    [pytest.param(["eight", "nine"], id="other classes"), pytest.param(["three", "eight"], id="the other order")],
)
def test_a_version_with_other_classes_is_refused_even_by_force(
    folder: FolderStore, bundle: Path, refused: Callable[..., str], labels: list[str]
) -> None:
    """With other classes, or the same in the other order, a score would mean something else."""
    add_version(folder, bundle, "v1", labels=labels)
    add_version(folder, bundle, "v2")
    _promote(folder, "v1")
    for force in (False, True):
        assert f"{labels[0]} (0) and {labels[1]} (1)" in refused("v2", force=force)


def test_test_sets_that_disagree_on_an_image_are_refused(
    folder: FolderStore, bundle: Path, refused: Callable[..., str]
) -> None:
    """One of the two is wrong about it, and it is unknown which."""
    images = images_of(bundle)
    contested = images[5].model_copy(update={"true_label": "three"})
    assert images[5].true_label == "eight"
    add_version(folder, bundle, "v1", images=[*images[:5], contested, *images[6:]])
    add_version(folder, bundle, "v2")
    _promote(folder, "v1")
    assert f"{images[5].source_ref} has both classes" in refused("v2")
    assert _promote(folder, "v2", force=True).how == "forced"


def test_the_champion_is_scored_again_on_other_test_images(
    folder: FolderStore, bundle: Path, digit_images: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    """That needs the images. Without them, or with a folder that lacks some, the message says what to type."""
    images = images_of(bundle)
    add_version(folder, bundle, "v1", images=images[10:])
    add_version(folder, bundle, "v2", images=images[:40])
    _promote(folder, "v1")
    assert "not tested on the same images. Add --data FOLDER" in refused("v2")
    assert "40 of the 40 test images are not in" in refused("v2", data=tmp_path)
    change = _promote(folder, "v2", data=digit_images)
    assert change.picture_scored
    assert change.comparison
    assert (change.comparison["n"], change.comparison["champion_scores"]) == (40, "scored again")
    # Both versions have the same graph, and therefore the same scores.
    assert change.comparison["log_loss_difference"]["value"] == pytest.approx(0, abs=1e-7)


def test_a_champion_without_true_labels_is_scored_again(
    folder: FolderStore, bundle: Path, digit_images: Path, refused: Callable[..., str]
) -> None:
    """Older releases did not record them. Its graph is all that is needed."""
    add_version(folder, bundle, "v1")
    folder.write("digits/v1/test_predictions.csv", b"row,source_ref\n")
    add_version(folder, bundle, "v2")
    Champions(folder, "digits").set_champion("v1", expected=None, how="first")
    assert "v1/test_predictions.csv: 15 bytes instead of" in refused("v2")
    assert _promote(folder, "v2", data=digit_images).how == "promoted"


def test_a_version_without_test_images_cannot_be_compared(
    folder: FolderStore, bundle: Path, refused: Callable[..., str]
) -> None:
    """The message says so, instead of a division by zero."""
    add_version(folder, bundle, "v1")
    add_version(folder, bundle, "v2", images=[])
    _promote(folder, "v1")
    assert "contains no test images" in refused("v2")


@pytest.mark.parametrize("name", FILES)
def test_a_version_with_an_altered_or_missing_file_is_refused_even_by_force(
    folder: FolderStore, bundle: Path, refused: Callable[..., str], name: str
) -> None:
    """The message names the file, and the champion stays."""
    add_version(folder, bundle, "v1")
    add_version(folder, bundle, "v2")
    _promote(folder, "v1")
    body = bytearray(folder.read(f"digits/v2/{name}") or b"")
    body[len(body) // 2] ^= 1
    folder.write(f"digits/v2/{name}", bytes(body))
    assert name in refused("v2", force=True)
    folder.remove(f"digits/v2/{name}")
    assert name in refused("v2", force=True)


def test_a_graph_whose_scores_differ_from_those_on_record_is_refused(
    folder: FolderStore, bundle: Path, digit_images: Path, refused: Callable[..., str]
) -> None:
    """That is noticed if a test image is available."""
    add_version(folder, bundle, "v1", images=with_mistakes(images_of(bundle), {0}))
    assert "when v1 was trained" in refused("v1", data=digit_images)


def test_a_deleted_champion_can_be_replaced_by_force(
    folder: FolderStore, bundle: Path, refused: Callable[..., str]
) -> None:
    """There is nothing left to compare with."""
    Champions(folder, "digits").set_champion("v1", expected=None, how="first")
    add_version(folder, bundle, "v2")
    assert "--force" in refused("v2")
    assert _promote(folder, "v2", force=True).how == "forced"


def test_each_rollback_goes_back_one_champion(store: Store, bundle: Path) -> None:
    """The bundle is opened and checked first. The first champion cannot be rolled back."""
    for version in ("v1", "v2", "v3"):
        add_version(store, bundle, version)
        _promote(store, version)
    for version, replaced in (("v2", "v3"), ("v1", "v2")):
        change = rollback(store, "digits", _QUIET)
        assert (change.version, change.replaced, change.how) == (version, replaced, "rolled back")
        assert _champion(store) == version
    with pytest.raises(PromotionRefused, match="No champion is on record before v1"):
        rollback(store, "digits", _QUIET)
    with pytest.raises(PromotionRefused, match="has no champion"):
        rollback(store, "cats", _QUIET)
    add_version(store, bundle, "v1", graph=b"", name="cats")
    Champions(store, "cats").set_champion("v1", expected=None, how="first")
    with pytest.raises(PromotionRefused, match="v1 is the only version of cats: there is none to go back to"):
        rollback(store, "cats", _QUIET)


def test_racing_rollbacks_go_back_at_most_one_champion_each(folder: FolderStore, bundle: Path) -> None:
    """A rollback that was overtaken is refused and does not continue from there."""
    for version in ("v1", "v2", "v3", "v4", "v5"):
        add_version(folder, bundle, version)
        _promote(folder, version)

    def attempt(_: int) -> bool:
        try:
            return rollback(folder, "digits", _QUIET).moved
        except PromotionRefused:
            return False

    with ThreadPoolExecutor(3) as pool:
        went = list(pool.map(attempt, range(3)))
    assert _champion(folder) == f"v{5 - went.count(True)}"
    assert went.count(True) >= 1


def test_a_rollback_to_a_damaged_bundle_is_refused(folder: FolderStore, bundle: Path) -> None:
    """The message names the file and the command that helps."""
    for version in ("v1", "v2"):
        add_version(folder, bundle, version)
        _promote(folder, version)
    folder.remove("digits/v1/model.tflite")
    with pytest.raises(PromotionRefused, match=r"model\.tflite: missing.*twofold model promote .*--force"):
        rollback(folder, "digits", _QUIET)
    assert _champion(folder) == "v2"
