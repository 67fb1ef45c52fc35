"""An archive that nobody vouches for cannot write outside its folder, and never raises anything but a sentence."""

import contextlib
import gzip
import io
import os
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
from tests.jobs.data.pictures import QUIET


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
    """Unpacks in a folder of ``room``, and checks that nothing was written anywhere else in it."""
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
@pytest.mark.parametrize("make", [lambda name: _tar(_member(name, b"x")), lambda name: _zip((name, b"x"))])
def test_a_name_that_leads_outside_is_refused(tmp_path: Path, make: Callable[[str], bytes], name: str) -> None:
    """The whole archive: no dataset has such a name."""
    with pytest.raises(UserError, match="leads outside"):
        _unpack(make(name), tmp_path)


def test_backslashes_of_a_windows_zip_are_folders(tmp_path: Path) -> None:
    """And climb no better than slashes do."""
    assert _contents(_unpack(_zip(("pets\\cats\\1.jpg", b"x")), tmp_path)) == {"pets/cats/1.jpg": b"x"}
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="leads outside"):
        _unpack(_zip(("..\\..\\evil", b"x")), tmp_path / "other")


def test_names_of_a_zip_are_read_as_they_were_written(tmp_path: Path) -> None:
    """UTF-8 with its flag, UTF-8 without it as macOS packs, and code page 437 as old Windows does."""
    for number, (raw, name) in enumerate(((b"caf\xc3\xa9", "café"), (b"caf\x82", "café"))):
        plain = _zip(("x" * len(raw), b"x"))
        assert _contents(_unpack(plain.replace(b"x" * len(raw), raw), _room(tmp_path, number))) == {name: b"x"}
    assert _contents(_unpack(_zip(("café", b"x")), _room(tmp_path, 2))) == {"café": b"x"}


@pytest.mark.parametrize(
    ("archive", "what"),
    [
        (_tar(_member("cats/l", kind=tarfile.SYMTYPE, link="/etc/passwd")), "a symbolic link"),
        (_tar(_member("cats/l", kind=tarfile.LNKTYPE, link="/etc/passwd")), "a hard link"),
        (_tar(_member("cats/l", kind=tarfile.LNKTYPE, link="../../x")), "a hard link"),
        (_tar(_member("cats/l", kind=tarfile.CHRTYPE)), "a device"),
        (_tar(_member("cats/l", kind=tarfile.BLKTYPE)), "a device"),
        (_tar(_member("cats/l", kind=tarfile.FIFOTYPE)), "a device"),
        (_tar(_member("cats/l", kind=b"Z")), "a device"),
        (_zip_special("cats/l", stat.S_IFLNK, b"/etc/passwd"), "a symbolic link"),
        (_zip_special("cats/l", stat.S_IFCHR, b""), "a device"),
    ],
)
def test_what_is_no_file_is_left_out_with_its_reason(tmp_path: Path, archive: bytes, what: str) -> None:
    """Nothing is made of it on this machine."""
    listing = _unpack(archive, tmp_path)
    assert [(file.ref, file.reason.code) for file in listing.files if file.reason] == [("cats/l", "not_a_file")]
    assert all(file.reason is None or what in file.reason.message for file in listing.files)


def test_a_hard_link_to_an_earlier_member_is_that_file_again(tmp_path: Path) -> None:
    """As tar writes a file that has two names."""
    archive = _tar(_member("./cats/1", b"one"), _member("cats/2", kind=tarfile.LNKTYPE, link="./cats/1"))
    assert _contents(_unpack(archive, tmp_path)) == {"cats/1": b"one", "cats/2": b"one"}


def test_the_escape_of_cve_2025_4517_writes_nothing_outside(tmp_path: Path) -> None:
    """Folders and links whose resolved path is longer than the system takes, then a file through them."""
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
    assert _contents(listing) == {"escape/evil": b"evil", "victim": b"evil"}  # text, and files of our own names
    assert list(victim.iterdir()) == []


@pytest.mark.parametrize(
    "archive",
    [
        _zip(("cats/bomb", b"\0" * 100 * 1024**2)),
        gzip.compress(_tar(_member("cats/bomb", b"\0" * 100 * 1024**2))),
    ],
    ids=["zip", "tar.gz"],
)
def test_a_bomb_is_stopped_while_it_unpacks(tmp_path: Path, archive: bytes) -> None:
    """100 MB of zeros in 100 KB are over the ratio."""
    with pytest.raises(UserError, match="bomb"):
        _unpack(archive, tmp_path)
    assert not (tmp_path / "cache" / "unpacked").exists()


def test_a_name_of_megabytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """Python would take it to memory whole, however long it says it is."""
    name = _member("././@LongLink", b"a" * 2 * 1024**2, kind=tarfile.GNUTYPE_LONGNAME)
    with pytest.raises(UserError, match="a header of 2,097,152 bytes"):
        _unpack(_tar(name, _member("cats/1", b"x")), tmp_path)


def test_many_members_over_the_same_bytes_are_stopped(tmp_path: Path) -> None:
    """A zip whose list names one file a thousand times: small, and without nesting."""
    body = _zip(("cats/0", b"\0" * 1024**2))
    entry, end = body.index(b"PK\1\2"), body.index(b"PK\5\6")
    counts = struct.pack("<HHII", 1000, 1000, (end - entry) * 1000, entry)
    archive = body[:entry] + body[entry:end] * 1000 + body[end : end + 8] + counts + body[end + 20 :]
    with pytest.raises(UserError, match=r"bomb|damaged"):
        _unpack(archive, tmp_path)


def test_the_limits_on_count_and_bytes_hold(tmp_path: Path) -> None:
    """A person is told what to do instead."""
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
    """A zip whose end is wrong about where its list lies, so that its files lie before its first byte."""
    body = bytearray(_zip(("cats/1", b"x")))
    body[-6:-2] = struct.pack("<I", body.index(b"PK\1\2") + 1000)
    return bytes(body)


@pytest.mark.parametrize(
    ("archive", "said"),
    [
        (_before_its_start(), "is damaged"),
        (_encrypted(), r"is encrypted\. Give it without a password"),
        (b"<html>Please log in", "neither a zip nor a tar"),
        (b"", "neither a zip nor a tar"),
        (b"PK\3\4", "damaged"),
        (b"\x1f\x8b", "damaged"),
        (gzip.compress(b"no tar"), "damaged"),
    ],
)
def test_what_cannot_be_unpacked_is_told(tmp_path: Path, archive: bytes, said: str) -> None:
    """In a sentence that says what it is."""
    with pytest.raises(UserError, match=said):
        _unpack(archive, tmp_path)


ARCHIVES = {
    "zip": _zip(*((f"cats/{number}", os.urandom(700)) for number in range(3))),
    "tar": _tar(*(_member(f"cats/{number}", os.urandom(700)) for number in range(3))),
    "tar.gz": gzip.compress(_tar(*(_member(f"cats/{number}", os.urandom(700)) for number in range(3)))),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_an_archive_that_breaks_off_is_damaged_wherever_it_does(tmp_path: Path, kind: str) -> None:
    """Also between two members, where tarfile sees nothing wrong, and within the checksum of a gzip file."""
    body = ARCHIVES[kind]
    ends = (
        len(body.rstrip(b"\0")) if kind == "tar" else len(body) - 1
    )  # a tar's end mark is zeros, longer than it must be
    for number, cut in enumerate([*range(1, ends, 97), ends]):
        with pytest.raises(UserError, match=r"damaged|neither"):
            _unpack(body[:cut], _room(tmp_path, number))


@given(kind=st.sampled_from(sorted(ARCHIVES)), where=st.integers(0, 10_000), byte=st.binary(min_size=1, max_size=4))
@settings(max_examples=150)
def test_any_damage_is_told_or_does_no_harm(
    tmp_path_factory: pytest.TempPathFactory, kind: str, where: int, byte: bytes
) -> None:
    """Whatever byte is another: a listing or a UserError, and nothing outside."""
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
    """Each file lies in our folder under a name of ours, and what it is called climbs nowhere."""
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


def test_what_was_unpacked_is_not_unpacked_again_unless_a_file_is_gone(tmp_path: Path) -> None:
    """The second time the archive is not even opened."""
    archive = _zip(("cats/1", b"one"), ("cats/2", b"two"), ("empty/", b""))
    first = _unpack(archive, tmp_path)
    assert first.folders == {"cats", "empty"}
    assert _unpack(b"no longer an archive", tmp_path) == first
    first.files[0].path.unlink()
    assert _contents(_unpack(archive, tmp_path)) == {"cats/1": b"one", "cats/2": b"two"}


def test_what_a_killed_job_left_is_unpacked_anew(tmp_path: Path) -> None:
    """Half an archive is never taken for all of it."""
    draft = tmp_path / "cache" / "unpacked.draft"
    draft.mkdir(parents=True)
    (draft / "index.json").write_text('{"folders": [], "files": []}')
    assert _contents(_unpack(_zip(("cats/1", b"one")), tmp_path)) == {"cats/1": b"one"}
    assert not draft.exists()


def test_jobs_that_unpack_the_same_share_it(tmp_path: Path) -> None:
    """One works, the others wait; nobody's files are taken away."""
    archive = _zip(*((f"cats/{number}", os.urandom(1000)) for number in range(200)))
    (tmp_path / "pets").write_bytes(archive)
    with ThreadPoolExecutor(4) as pool:
        unpacked = pool.map(lambda _: unpack(tmp_path / "pets", tmp_path / "to", "pets", QUIET), range(4))
        listings = [_contents(listing) for listing in unpacked]
    assert listings[0] == listings[1] == listings[2] == listings[3]
    assert len(listings[0]) == 200
