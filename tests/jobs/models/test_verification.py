"""Verify's promises: whatever is not as it was when the bundle was written is found and named."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.models.bundle import read_bundle
from jobs.models.verification import Verification, verify
from jobs.progress import Reporter
from jobs.store import FolderStore, Store
from jobs.user_error import UserError
from tests.jobs.models.versions import FILES, add_version, images_of, with_mistakes

_QUIET = Reporter(quiet=True)


def _verify(
    store: Store, *, version: str = "v1", data: Path | None = None, tolerance: float | None = None
) -> Verification:
    return verify(read_bundle(store, "digits", version, _QUIET), data=data, tolerance=tolerance, reporter=_QUIET)


def _told(verification: Verification) -> list[str]:
    return [f"{finding.file}: {finding.problem}" for finding in verification.findings]


@pytest.fixture
def folder(tmp_path: Path, bundle: Path) -> FolderStore:
    """A store with one version, ``v1``, that was not trained where its model.json says."""
    store = FolderStore(tmp_path / "models")
    add_version(store, bundle, "v1")
    return store


def test_a_bundle_as_training_left_it_has_no_findings(models: Path) -> None:
    """Its pictures are where it was trained from, and score what they did, to nine digits."""
    verification = _verify(FolderStore(models))
    assert _told(verification) == []
    assert verification.files == len(list((models / "digits/v1").iterdir()))
    assert (verification.images, verification.scored) == (72, 72)
    assert verification.max_difference is not None
    assert verification.max_difference <= 1e-6 == verification.tolerance


def test_without_pictures_it_says_that_only_digests_were_checked(store: Store, bundle: Path) -> None:
    """In a folder and in a bucket."""
    add_version(store, bundle, "v1")
    verification = _verify(store)
    assert _told(verification) == []
    assert (verification.scored, verification.max_difference) == (0, None)


@pytest.mark.parametrize("name", [name for name in FILES if name != "model.json"])
def test_a_file_altered_or_missing_is_named_and_none_of_the_others(folder: FolderStore, name: str) -> None:
    """One bit; one byte more; the whole file."""
    body = bytearray(folder.read(f"digits/v1/{name}") or b"")
    body[len(body) // 2] ^= 1
    folder.write(f"digits/v1/{name}", bytes(body))
    assert _told(_verify(folder)) == [f"{name}: altered: another SHA-256"]
    folder.write(f"digits/v1/{name}", bytes(body) + b"x")
    assert _told(_verify(folder)) == [f"{name}: {len(body) + 1:,} bytes, not {len(body):,}"]
    folder.remove(f"digits/v1/{name}")
    assert _told(_verify(folder)) == [f"{name}: missing"]


def test_every_damage_is_told_at_once(folder: FolderStore, digit_images: Path) -> None:
    """And what can still be checked is."""
    folder.remove("digits/v1/model.keras")
    folder.write("digits/v1/quarantine.csv", b"")
    folder.write("digits/v1/run.pkl", b"not ours")
    verification = _verify(folder, data=digit_images)
    assert [finding.file for finding in verification.findings] == ["model.keras", "quarantine.csv", "run.pkl"]
    assert verification.scored == 72


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_bit_of_the_manifest_can_be_changed_unseen(folder: FolderStore, bundle: Path, data: st.DataObject) -> None:
    """No digest vouches for model.json; digests that do not fit and the evaluation that repeats it do."""
    add_version(folder, bundle, "v2", graph=b"not looked into")
    name = "digits/v2/model.json"
    good = folder.read(name) or b""
    body = bytearray(good)
    body[data.draw(st.integers(0, len(good) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    folder.write(name, bytes(body))
    try:
        findings = read_bundle(folder, "digits", "v2", _QUIET).findings
    except UserError:
        return
    assert findings


def test_a_manifest_that_was_edited_is_told_by_field(folder: FolderStore) -> None:
    """A threshold moved by hand would move every label."""
    told = json.loads(folder.read("digits/v1/model.json") or b"")
    folder.write("digits/v1/model.json", json.dumps(told | {"threshold": 0.4, "image_size": 96}).encode())
    assert _told(_verify(folder)) == ["model.json: altered: threshold is not what evaluation.json says"]


def test_a_graph_that_scores_otherwise_is_found(folder: FolderStore, bundle: Path, digit_images: Path) -> None:
    """With digests that fit: the scores are what tells it apart."""
    images = images_of(bundle)
    moved = images[7].model_copy(update={"score": images[7].score and images[7].score + 1e-4})
    add_version(folder, bundle, "v2", images=[*images[:7], moved, *images[8:]])
    findings = _verify(folder, version="v2", data=digit_images).findings
    assert [finding.file for finding in findings] == ["test_predictions.csv"]
    assert findings[0].problem.startswith(f"{images[7].source_ref} scores ")
    assert _told(_verify(folder, version="v2", data=digit_images, tolerance=1e-3)) == []


def test_another_decoder_is_allowed_another_rounding(folder: FolderStore, bundle: Path, digit_images: Path) -> None:
    """A stated one: labels that changed sides are found all the same."""
    wrong = with_mistakes(images_of(bundle), {0})
    add_version(folder, bundle, "v2", decoder_fingerprint="0" * 64)
    add_version(folder, bundle, "v3", decoder_fingerprint="0" * 64, images=wrong)
    verification = _verify(folder, version="v2", data=digit_images)
    assert (_told(verification), verification.tolerance) == ([], 0.1)
    assert _verify(folder, version="v3", data=digit_images).findings


def test_pictures_are_found_by_content_and_those_missing_are_told(
    folder: FolderStore, bundle: Path, digit_images: Path, tmp_path: Path
) -> None:
    """Under any name; a folder that was asked for and lacks some is a finding, as they were not checked."""
    images = images_of(bundle)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for number, image in enumerate(images[1:]):
        (elsewhere / f"{number}.bin").write_bytes((digit_images / image.source_ref).read_bytes())
    verification = _verify(folder, data=elsewhere)
    assert verification.scored == 71
    assert _told(verification) == [
        f"test_predictions.csv: 1 of its 72 pictures are not in {elsewhere}, such as {images[0].source_ref}"
    ]


@pytest.mark.parametrize("ref", ["../../secret.png", "/dev/zero", "a\0b", "x" * 2000, ".", ""])
def test_a_hostile_name_of_a_picture_leads_nowhere(
    folder: FolderStore, bundle: Path, digit_images: Path, ref: str
) -> None:
    """Not out of the folder, not to a device, and not to a traceback."""
    image = images_of(bundle)[0].model_copy(update={"source_ref": ref})
    add_version(folder, bundle, "v2", images=[image])
    assert _verify(folder, version="v2", data=digit_images).scored == 1  # found by its content instead


def test_a_picture_outside_of_the_folder_is_not_looked_at(
    folder: FolderStore, bundle: Path, digit_images: Path, tmp_path: Path
) -> None:
    """Whatever a bundle calls its pictures: only a folder that a person names is searched."""
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
    ("spoil", "said"),
    [
        (lambda store: store.remove("digits/v1/model.json"), "model.json is missing"),
        (lambda store: store.write("digits/v1/model.json", b"{}"), "is no model manifest: name"),
        (lambda store: store.write("digits/v1/model.json", b"\xff\xfe"), "is no model manifest"),
    ],
)
def test_without_a_manifest_there_is_no_bundle(
    folder: FolderStore, spoil: Callable[[FolderStore], None], said: str
) -> None:
    """Told in a sentence."""
    spoil(folder)
    with pytest.raises(UserError, match=said):
        _verify(folder)


def test_a_bundle_that_was_copied_under_another_version_is_told(folder: FolderStore, tmp_path: Path) -> None:
    """A worker that asks for v2 would be answered by v1."""
    (tmp_path / "models/digits/v1").rename(tmp_path / "models/digits/v2")
    with pytest.raises(UserError, match="is that of digits/v1: was it copied there"):
        _verify(folder, version="v2")
