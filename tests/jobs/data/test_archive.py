"""A hostile archive cannot write outside its folder, and fails with a UserError and nothing else."""

import contextlib
import gzip
import io
import random
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from jobs.data.archive import unpack
from jobs.data.class_folders import Listing
from jobs.data.members import Limits
from jobs.user_error import UserError
from tests.jobs.data.image_folders import QUIET


def _tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for info, body in members:
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


def _member(
    name: str, body: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info, body


def _zip(*members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as zipped:
        for name, body in members:
            zipped.writestr(name, body, compress_type=method)
    return buffer.getvalue()


def _zip_special(name: str, kind: int, body: bytes) -> bytes:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (kind | 0o777) << 16
    return _zip((info, body))


def _unpack(archive: bytes, room: Path, limits: Limits | None = None) -> Listing:
    """Unpacks to a folder in ``room``, and checks that nothing was written elsewhere in it."""
    (room / "pets").write_bytes(archive)
    try:
        return unpack(room / "pets", room / "cache" / "unpacked", "pets", QUIET, limits=limits)
    finally:
        outside = {path for path in room.rglob("*") if not path.is_relative_to(room / "cache" / "unpacked")}
        assert outside <= {room / "pets", room / "cache", room / "cache" / "unpacked.lock"}
        assert not any(path.is_symlink() for path in room.rglob("*"))


def _room(folder: Path, number: int) -> Path:
    room = folder / str(number)
    room.mkdir()
    return room


def _contents(listing: Listing) -> dict[str, bytes]:
    return {file.ref: file.path.read_bytes() for file in listing.files if file.reason is None}


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "a/..", "C:/evil", "..", "../"])
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda name: _tar(_member(name, b"x")), id="tar"),
        pytest.param(lambda name: _zip((name, b"x")), id="zip"),
    ],
)
def test_a_name_that_leads_outside_is_refused(tmp_path: Path, make: Callable[[str], bytes], name: str) -> None:
    """With it, the complete archive: no dataset has such a name."""
    with pytest.raises(UserError, match="leads outside"):
        _unpack(make(name), tmp_path)


def test_backslashes_of_a_windows_zip_separate_folders(tmp_path: Path) -> None:
    """They lead outside no more than slashes do."""
    assert _contents(_unpack(_zip(("pets\\cats\\1.jpg", b"x")), tmp_path)) == {"pets/cats/1.jpg": b"x"}
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="leads outside"):
        _unpack(_zip(("..\\..\\evil", b"x")), tmp_path / "other")


def test_the_names_of_a_zip_are_decoded_as_they_were_encoded(tmp_path: Path) -> None:
    """UTF-8 with its flag, UTF-8 without it as macOS packs, and code page 437 as old Windows does."""
    for number, (raw, name) in enumerate(((b"caf\xc3\xa9", "café"), (b"caf\x82", "café"))):
        plain = _zip(("x" * len(raw), b"x"))
        assert _contents(_unpack(plain.replace(b"x" * len(raw), raw), _room(tmp_path, number))) == {name: b"x"}
    assert _contents(_unpack(_zip(("café", b"x")), _room(tmp_path, 2))) == {"café": b"x"}


@pytest.mark.parametrize(
    ("archive", "what"),
    [
        pytest.param(
            _tar(_member("cats/l", kind=tarfile.SYMTYPE, link="/etc/passwd")), "a symbolic link", id="tar-symlink"
        ),
        pytest.param(
            _tar(_member("cats/l", kind=tarfile.LNKTYPE, link="/etc/passwd")), "a hard link", id="tar-absolute-hardlink"
        ),
        pytest.param(
            _tar(_member("cats/l", kind=tarfile.LNKTYPE, link="../../x")), "a hard link", id="tar-climbing-hardlink"
        ),
        pytest.param(_tar(_member("cats/l", kind=tarfile.CHRTYPE)), "a device", id="tar-character-device"),
        pytest.param(_tar(_member("cats/l", kind=tarfile.BLKTYPE)), "a device", id="tar-block-device"),
        pytest.param(_tar(_member("cats/l", kind=tarfile.FIFOTYPE)), "a device", id="tar-pipe"),
        pytest.param(_tar(_member("cats/l", kind=b"Z")), "a device", id="tar-unknown"),
        pytest.param(_zip_special("cats/l", stat.S_IFLNK, b"/etc/passwd"), "a symbolic link", id="zip-symlink"),
        pytest.param(_zip_special("cats/l", stat.S_IFCHR, b""), "a device", id="zip-character-device"),
    ],
)
def test_a_member_that_is_not_a_file_is_left_out_with_its_reason(tmp_path: Path, archive: bytes, what: str) -> None:
    """No link or device is created."""
    listing = _unpack(archive, tmp_path)
    assert [(file.ref, file.reason.code) for file in listing.files if file.reason] == [("cats/l", "not_a_file")]
    assert all(file.reason is None or what in file.reason.message for file in listing.files)


def test_a_hard_link_to_an_earlier_member_is_the_same_file_again(tmp_path: Path) -> None:
    """This is how tar packs a file with two names."""
    archive = _tar(_member("./cats/1", b"one"), _member("cats/2", kind=tarfile.LNKTYPE, link="./cats/1"))
    assert _contents(_unpack(archive, tmp_path)) == {"cats/1": b"one", "cats/2": b"one"}


def test_the_escape_of_cve_2025_4517_writes_nothing_outside(tmp_path: Path) -> None:
    """Folders and links whose resolved path is longer than the system allows, then a file through them."""
    long = "d" * 247
    members, step = [], ""
    for letter in "abcdefghijklmnop":
        members += [
            _member(f"{step}{long}", kind=tarfile.DIRTYPE),
            _member(f"{step}{letter}", kind=tarfile.SYMTYPE, link=long),
        ]
        step += f"{long}/"
    links = "/".join("abcdefghijklmnop")
    members += [
        _member(f"{links}/{'l' * 254}", kind=tarfile.SYMTYPE, link="../" * 16),
        _member("escape", kind=tarfile.SYMTYPE, link=f"{links}/{'l' * 254}/../../../../victim"),
        _member("escape/evil", b"evil"),
        _member("victim", kind=tarfile.LNKTYPE, link="escape/evil"),
    ]
    victim = tmp_path / "victim"
    victim.mkdir()
    (tmp_path / "room").mkdir()
    listing = _unpack(_tar(*members), tmp_path / "room")
    assert _contents(listing) == {"escape/evil": b"evil", "victim": b"evil"}  # the names are text, the files numbered
    assert list(victim.iterdir()) == []


@pytest.mark.parametrize(
    "archive",
    [
        lambda zeros: _zip(("cats/bomb", zeros)),
        lambda zeros: gzip.compress(_tar(_member("cats/bomb", zeros))),
    ],
    ids=["zip", "tar.gz"],
)
def test_a_bomb_is_stopped_while_it_unpacks(tmp_path: Path, archive: Callable[[bytes], bytes]) -> None:
    """100 MB of zeros in 100 KB exceed the ratio."""
    with pytest.raises(UserError, match="bomb"):
        _unpack(archive(b"\0" * 100 * 1024**2), tmp_path)
    assert not (tmp_path / "cache" / "unpacked").exists()


def test_a_name_of_megabytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """Python would read all of it into memory, whatever length it claims."""
    name = _member("././@LongLink", b"a" * 2 * 1024**2, kind=tarfile.GNUTYPE_LONGNAME)
    with pytest.raises(UserError, match="a header of 2,097,152 bytes"):
        _unpack(_tar(name, _member("cats/1", b"x")), tmp_path)


def test_many_members_over_the_same_bytes_are_stopped(tmp_path: Path) -> None:
    """A zip whose directory lists one file a thousand times is small and needs no nesting."""
    body = _zip(("cats/0", b"\0" * 1024**2))
    entry, end = body.index(b"PK\1\2"), body.index(b"PK\5\6")
    counts = struct.pack("<HHII", 1000, 1000, (end - entry) * 1000, entry)
    archive = body[:entry] + body[entry:end] * 1000 + body[end : end + 8] + counts + body[end + 20 :]
    with pytest.raises(UserError, match=r"bomb|damaged"):
        _unpack(archive, tmp_path)


def test_the_limits_on_count_and_bytes_hold(tmp_path: Path) -> None:
    """The message says what to do instead."""
    many = _zip(*((f"cats/{number}", b"x" * 100) for number in range(11)))
    for number, limits in enumerate((Limits(members=10), Limits(total_bytes=1000))):
        with pytest.raises(UserError, match="yourself"):
            _unpack(many, _room(tmp_path, number), limits)


def _encrypted() -> bytes:
    plain = bytearray(_zip(("cats/1", b"secret"), method=zipfile.ZIP_STORED))
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        plain[plain.index(signature) + offset] |= 1
    return bytes(plain)


def _before_its_start() -> bytes:
    """A zip with a wrong offset of its directory, by which its files begin before its first byte."""
    body = bytearray(_zip(("cats/1", b"x")))
    body[-6:-2] = struct.pack("<I", body.index(b"PK\1\2") + 1000)
    return bytes(body)


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        pytest.param(_before_its_start(), "is damaged", id="zip-offset-before-start"),
        pytest.param(_encrypted(), r"is encrypted\. Pack it without a password", id="zip-encrypted"),
        pytest.param(b"<html>Please log in", "neither a zip nor a tar", id="html"),
        pytest.param(b"", "neither a zip nor a tar", id="empty"),
        pytest.param(b"PK\3\4", "damaged", id="zip-magic-only"),
        pytest.param(b"\x1f\x8b", "damaged", id="gzip-magic-only"),
        pytest.param(gzip.compress(b"no tar"), "damaged", id="gzip-of-text"),
    ],
)
def test_a_file_that_cannot_be_unpacked_is_explained(tmp_path: Path, archive: bytes, message: str) -> None:
    """The message says what is wrong with it."""
    with pytest.raises(UserError, match=message):
        _unpack(archive, tmp_path)


def test_a_damaged_member_is_named(tmp_path: Path) -> None:
    """And in plain words, not in those of zlib and zipfile."""
    body = bytearray(_zip(("cats/1", b"x"), ("cats/2", bytes(range(256)) * 99)))
    at = body.index(b"cats/2") + len("cats/2")
    body[at : at + 40] = b"\xff" * 40
    with pytest.raises(UserError, match=r"compressed data is broken\. The damage is at cats/2 or behind it\. Create"):
        _unpack(bytes(body), tmp_path)
    with pytest.raises(UserError, match=r"is damaged or incomplete: its end is missing\. Create or download"):
        _unpack(_zip(("cats/1", b"x" * 99))[:-30], tmp_path)


_NOISE = [random.Random(number).randbytes(700) for number in range(3)]
ARCHIVES = {
    "zip": _zip(*((f"cats/{number}", body) for number, body in enumerate(_NOISE))),
    "tar": _tar(*(_member(f"cats/{number}", body) for number, body in enumerate(_NOISE))),
    "tar.gz": gzip.compress(_tar(*(_member(f"cats/{number}", body) for number, body in enumerate(_NOISE)))),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_an_incomplete_archive_is_damaged_wherever_it_breaks_off(tmp_path: Path, kind: str) -> None:
    """Even between two members, where tarfile notices nothing, and in the checksum of a gzip file."""
    body = ARCHIVES[kind]
    # The end mark of a tar is zeros, more of them than necessary.
    ends = len(body.rstrip(b"\0")) if kind == "tar" else len(body) - 1
    for number, cut in enumerate([*range(1, ends, 97), ends]):
        with pytest.raises(UserError, match=r"damaged|neither"):
            _unpack(body[:cut], _room(tmp_path, number))


@given(kind=st.sampled_from(sorted(ARCHIVES)), where=st.integers(0, 10_000), byte=st.binary(min_size=1, max_size=4))
@settings(max_examples=150)
def test_any_damage_is_reported_or_does_no_harm(
    tmp_path_factory: pytest.TempPathFactory, kind: str, where: int, byte: bytes
) -> None:
    """Whichever bytes are changed, the result is a listing or a UserError, and nothing is written outside."""
    body = ARCHIVES[kind]
    at = where % len(body)
    with contextlib.suppress(UserError):
        _unpack(body[:at] + byte + body[at + len(byte) :], tmp_path_factory.mktemp("room"))


NAMES = st.lists(
    st.text(st.sampled_from("ab./\\ \0é\n~:"), max_size=12)
    | st.sampled_from(["..", "a/../b", "/a", "a/", "./a", "a//b"]),
    max_size=6,
)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@given(names=NAMES, kind=st.sampled_from(["zip", "tar", "tar.gz"]))
@settings(max_examples=150)
def test_no_set_of_names_escapes(tmp_path_factory: pytest.TempPathFactory, names: list[str], kind: str) -> None:
    """Each file is in the folder under a number, and its ref does not lead outside."""
    if kind == "zip":
        archive = _zip(*((zipfile.ZipInfo(name), name.encode()) for name in dict.fromkeys(names)))
    else:
        archive = _tar(*(_member(name, name.encode()) for name in names))
        archive = gzip.compress(archive, 1) if kind == "tar.gz" else archive
    room = tmp_path_factory.mktemp("room")
    try:
        listing = _unpack(archive, room)
    except UserError:
        return
    for file in listing.files:
        assert file.path.is_relative_to(room / "cache" / "unpacked")
        assert not {"..", ".", ""} & set(file.ref.split("/"))
        assert file.path.relative_to(room / "cache" / "unpacked").as_posix().replace("/", "").isdigit()


def test_an_archive_is_unpacked_again_only_if_a_file_is_missing(tmp_path: Path) -> None:
    """Otherwise it is not even opened."""
    archive = _zip(("cats/1", b"one"), ("cats/2", b"two"), ("empty/", b""))
    first = _unpack(archive, tmp_path)
    assert first.folders == {"cats", "empty"}
    assert _unpack(b"no longer an archive", tmp_path) == first
    first.files[0].path.unlink()
    assert _contents(_unpack(archive, tmp_path)) == {"cats/1": b"one", "cats/2": b"two"}


def test_what_a_killed_job_left_is_unpacked_again(tmp_path: Path) -> None:
    """Half of an archive is never taken for all of it."""
    draft = tmp_path / "cache" / "unpacked.draft"
    draft.mkdir(parents=True)
    (draft / "index.json").write_text('{"folders": [], "files": []}')
    assert _contents(_unpack(_zip(("cats/1", b"one")), tmp_path)) == {"cats/1": b"one"}
    assert not draft.exists()


def test_jobs_that_unpack_the_same_archive_share_the_files(tmp_path: Path) -> None:
    """One unpacks and the others wait. No job removes another's files."""
    archive = _zip(*((f"cats/{number}", random.randbytes(1000)) for number in range(200)))
    (tmp_path / "pets").write_bytes(archive)
    with ThreadPoolExecutor(4) as pool:
        unpacked = pool.map(lambda _: unpack(tmp_path / "pets", tmp_path / "to", "pets", QUIET), range(4))
        listings = [_contents(listing) for listing in unpacked]
    assert listings[0] == listings[1] == listings[2] == listings[3]
    assert len(listings[0]) == 200
