"""Verification: every change to a bundle since it was written is found and named."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.models.bundle import ImagePlaces, read_bundle
from jobs.models.verification import Verification, verify
from jobs.progress import Reporter
from jobs.store import FolderStore, Store
from jobs.user_error import UserError
from tests.jobs.models.versions import FILES, add_version, images_of, with_mistakes

_QUIET = Reporter(quiet=True)


def _verify(
    store: Store, *, version: str = "v1", data: Path | None = None, tolerance: float | None = None
) -> Verification:
    places = None if data is None else ImagePlaces.of_folder(data)
    return verify(read_bundle(store, "digits", version, _QUIET), data=places, tolerance=tolerance, reporter=_QUIET)


def _problems(verification: Verification) -> list[str]:
    return [f"{finding.file}: {finding.problem}" for finding in verification.findings]


@pytest.fixture
def folder(tmp_path: Path, bundle: Path) -> FolderStore:
    """A store with one version, ``v1``, whose training images are not where its model.json says."""
    store = FolderStore(tmp_path / "models")
    add_version(store, bundle, "v1")
    return store


def test_a_bundle_as_training_wrote_it_has_no_findings(models: Path) -> None:
    """Its images are where it was trained from, and their scores agree to nine digits."""
    verification = _verify(FolderStore(models))
    assert _problems(verification) == []
    assert verification.files == len(list((models / "digits/v1").iterdir()))
    assert (verification.images, verification.scored) == (72, 72)
    assert verification.max_difference is not None
    assert verification.max_difference <= 1e-6 == verification.tolerance


def test_without_images_only_the_digests_are_checked(store: Store, bundle: Path) -> None:
    """In a folder and in a bucket. The result says that no image was scored."""
    add_version(store, bundle, "v1")
    verification = _verify(store)
    assert _problems(verification) == []
    assert (verification.scored, verification.max_difference) == (0, None)


@pytest.mark.parametrize("name", [name for name in FILES if name != "model.json"])
def test_only_the_altered_or_missing_file_is_named(folder: FolderStore, name: str) -> None:
    """One flipped bit, one more byte, or no file at all."""
    body = bytearray(folder.read(f"digits/v1/{name}") or b"")
    body[len(body) // 2] ^= 1
    folder.write(f"digits/v1/{name}", bytes(body))
    assert _problems(_verify(folder)) == [f"{name}: altered: its SHA-256 is different"]
    folder.write(f"digits/v1/{name}", bytes(body) + b"x")
    assert _problems(_verify(folder)) == [f"{name}: {len(body) + 1:,} bytes instead of {len(body):,}"]
    folder.remove(f"digits/v1/{name}")
    assert _problems(_verify(folder)) == [f"{name}: missing"]


def test_all_damage_is_reported_at_once(folder: FolderStore, digit_images: Path) -> None:
    """Everything that can still be checked is checked."""
    folder.remove("digits/v1/model.keras")
    folder.write("digits/v1/quarantine.csv", b"")
    folder.write("digits/v1/run.pkl", b"not part of a bundle")
    verification = _verify(folder, data=digit_images)
    assert [finding.file for finding in verification.findings] == ["model.keras", "quarantine.csv", "run.pkl"]
    assert verification.scored == 72


@pytest.fixture
def good(folder: FolderStore, bundle: Path) -> bytes:
    """The intact manifest of ``v2``, a version whose graph is a few bytes."""
    add_version(folder, bundle, "v2", graph=b"never opened")
    return folder.read("digits/v2/model.json") or b""


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_changed_bit_of_the_manifest_is_noticed(folder: FolderStore, good: bytes, data: st.DataObject) -> None:
    """No digest protects model.json, but the digests it holds and the evaluation that repeats it do."""
    body = bytearray(good)
    body[data.draw(st.integers(0, len(good) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(ValueError):
        hypothesis.assume(json.loads(bytes(body)) != json.loads(good))  # the 17th digit may leave a number as it is
    folder.write("digits/v2/model.json", bytes(body))
    try:
        findings = read_bundle(folder, "digits", "v2", _QUIET).findings
    except UserError:
        return
    assert findings


def test_an_edited_field_of_the_manifest_is_named(folder: FolderStore) -> None:
    """A threshold changed by hand would change the labels."""
    manifest = json.loads(folder.read("digits/v1/model.json") or b"")
    folder.write("digits/v1/model.json", json.dumps(manifest | {"threshold": 0.4, "image_size": 96}).encode())
    assert _problems(_verify(folder)) == ["model.json: altered: threshold differs from evaluation.json"]


def test_a_band_that_was_added_or_removed_is_named(folder: FolderStore, bundle: Path) -> None:
    """It is written only where it is set, and would change the decisions."""
    manifest = json.loads(folder.read("digits/v1/model.json") or b"")
    folder.write("digits/v1/model.json", json.dumps(manifest | {"unsure": [0.1, 0.9]}).encode())
    assert _problems(_verify(folder)) == ["model.json: altered: unsure differs from evaluation.json"]
    add_version(folder, bundle, "v2", graph=b"never opened", unsure=[0.1, 0.9])
    body = json.loads(folder.read("digits/v2/model.json") or b"")
    assert read_bundle(folder, "digits", "v2", _QUIET).findings == []
    for changed in ({key: value for key, value in body.items() if key != "unsure"}, body | {"unsure": [0.2, 0.9]}):
        folder.write("digits/v2/model.json", json.dumps(changed).encode())
        (finding,) = read_bundle(folder, "digits", "v2", _QUIET).findings
        assert finding.problem == "altered: unsure differs from evaluation.json"


def test_a_graph_with_other_scores_is_found(folder: FolderStore, bundle: Path, digit_images: Path) -> None:
    """Even if all digests match, because the images are scored again."""
    images = images_of(bundle)
    moved = images[7].model_copy(update={"score": images[7].score and images[7].score + 1e-4})
    add_version(folder, bundle, "v2", images=[*images[:7], moved, *images[8:]])
    findings = _verify(folder, version="v2", data=digit_images).findings
    assert [finding.file for finding in findings] == ["test_predictions.csv"]
    assert findings[0].problem.startswith(f"{images[7].source_ref} scores ")
    assert _problems(_verify(folder, version="v2", data=digit_images, tolerance=1e-3)) == []


def test_another_decoder_widens_the_tolerance(folder: FolderStore, bundle: Path, digit_images: Path) -> None:
    """The tolerance is stated, and scores that change the label are still found."""
    wrong = with_mistakes(images_of(bundle), {0})
    add_version(folder, bundle, "v2", decoder_fingerprint="0" * 64)
    add_version(folder, bundle, "v3", decoder_fingerprint="0" * 64, images=wrong)
    verification = _verify(folder, version="v2", data=digit_images)
    assert (_problems(verification), verification.tolerance) == ([], 0.1)
    assert _verify(folder, version="v3", data=digit_images).findings


def test_images_are_found_by_content_and_missing_ones_are_reported(
    folder: FolderStore, bundle: Path, digit_images: Path, tmp_path: Path
) -> None:
    """File names do not matter. Images missing from --data are a finding, because they were not checked."""
    images = images_of(bundle)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for number, image in enumerate(images[1:]):
        (elsewhere / f"{number}.bin").write_bytes((digit_images / image.source_ref).read_bytes())
    verification = _verify(folder, data=elsewhere)
    assert verification.scored == 71
    assert _problems(verification) == [
        f"test_predictions.csv: 1 of its 72 images are not in {elsewhere}, such as {images[0].source_ref}"
    ]


@pytest.mark.parametrize(
    "ref",
    [
        pytest.param("../../secret.png", id="parent folder"),
        pytest.param("/dev/zero", id="device"),
        pytest.param("a\0b", id="NUL"),
        pytest.param("x" * 2000, id="too long"),
        pytest.param(".", id="folder"),
        pytest.param("", id="empty"),
    ],
)
def test_a_hostile_image_name_leads_nowhere(folder: FolderStore, bundle: Path, digit_images: Path, ref: str) -> None:
    """Neither out of the folder, nor to a device, nor to a traceback."""
    image = images_of(bundle)[0].model_copy(update={"source_ref": ref})
    add_version(folder, bundle, "v2", images=[image])
    assert _verify(folder, version="v2", data=digit_images).scored == 1  # found by content instead


def test_an_image_outside_the_folder_is_not_read(
    folder: FolderStore, bundle: Path, digit_images: Path, tmp_path: Path
) -> None:
    """Whatever names a bundle holds, only the folder that the user names is searched."""
    image = images_of(bundle)[0]
    (tmp_path / "secret.png").write_bytes((digit_images / image.source_ref).read_bytes())
    (tmp_path / "data").mkdir()
    outside = image.model_copy(update={"source_ref": "../secret.png"})
    config = {"data": str(tmp_path / "data")}
    add_version(folder, bundle, "v2", images=[outside], training_config=config)
    assert _verify(folder, version="v2").scored == 0
    inside = image.model_copy(update={"source_ref": "data/../secret.png"})
    add_version(folder, bundle, "v3", images=[inside], training_config={"data": str(tmp_path)})
    assert _verify(folder, version="v3").scored == 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda store: store.remove("digits/v1/model.json"), "model.json is missing"),
        (lambda store: store.write("digits/v1/model.json", b"{}"), "cannot be read as a model.json: name"),
        (lambda store: store.write("digits/v1/model.json", b"\xff\xfe"), "cannot be read as a model.json"),
    ],
    ids=["missing", "without fields", "not UTF-8"],
)
def test_a_bundle_without_a_readable_manifest_is_an_error(
    folder: FolderStore, spoil: Callable[[FolderStore], None], message: str
) -> None:
    """The message says what is wrong with it."""
    spoil(folder)
    with pytest.raises(UserError, match=message):
        _verify(folder)


def test_a_bundle_copied_to_another_version_is_reported(folder: FolderStore, tmp_path: Path) -> None:
    """Otherwise a request for v2 would be answered by v1."""
    (tmp_path / "models/digits/v1").rename(tmp_path / "models/digits/v2")
    with pytest.raises(UserError, match=r"describes digits/v1: was the bundle copied\?"):
        _verify(folder, version="v2")
