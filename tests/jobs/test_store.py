"""The promises of a store, the same for a folder and for a bucket on each emulator."""

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.cli import _explain
from jobs.store import FolderStore, Store, open_store
from jobs.user_error import UserError
from tests.conftest import REPOSITORY


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The system says only that it is too large, or that the disk is full."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            FolderStore(tmp_path).write("pets/v1/model.keras", bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.filename == f"{tmp_path}/pets/v1/model.keras"
    assert _explain(caught.value) == (1, f"{tmp_path}/pets/v1/model.keras: File too large")


def test_a_written_file_is_read_back(store: Store) -> None:
    """A write replaces the file. A missing file reads as None, and removing it is not an error."""
    assert store.read("a/b.json") is None
    assert not store.exists("a/b.json")
    store.write("a/b.json", b"one")
    store.write("a/b.json", b"two")
    assert store.read("a/b.json") == b"two"
    assert store.exists("a/b.json")
    store.remove("a/b.json")
    store.remove("a/b.json")
    assert store.read("a/b.json") is None


def test_names_are_listed_below_a_prefix_in_order(store: Store) -> None:
    """Names are complete, as read takes them."""
    for name in ("b/2", "b/1", "a/c/d", "top"):
        store.write(name, b"x")
    assert store.names("") == ["a/c/d", "b/1", "b/2", "top"]
    assert store.names("b/") == ["b/1", "b/2"]
    assert store.names("nothing/") == []


def test_a_file_is_written_once(store: Store) -> None:
    """The second writer gets False, and no temporary file is left."""
    assert store.write_once("a/model.json", b"one")
    assert not store.write_once("a/model.json", b"two")
    assert store.read("a/model.json") == b"one"
    assert store.names("") == ["a/model.json"]


def test_a_file_is_replaced_only_if_it_has_not_changed(store: Store) -> None:
    """Compare and swap: a caller who has seen an older version must decide again."""
    store.write("champion.json", b"v1")
    assert not store.replace("champion.json", b"v3", seen=b"v2")
    assert store.replace("champion.json", b"v2", seen=b"v1")
    assert store.read("champion.json") == b"v2"
    assert not store.replace("missing.json", b"v1", seen=b"v0")


def test_exactly_one_of_several_racing_writers_wins(store: Store) -> None:
    """Whether they create a file or replace it. The winner's bytes stay."""
    with ThreadPoolExecutor(8) as pool:
        for number in range(5):
            name = f"v{number}/champion.json"
            wrote = list(pool.map(lambda i, name=name: store.write_once(name, b"%d" % i), range(8)))
            assert wrote.count(True) == 1
            first = b"%d" % wrote.index(True)
            assert store.read(name) == first
            swapped = list(pool.map(lambda i, n=name, s=first: store.replace(n, b"new %d" % i, seen=s), range(8)))
            assert swapped.count(True) == 1
            assert store.read(name) == b"new %d" % swapped.index(True)


#: Writes a file, and waits for a line before the last step.
_WRITER = """
import os, sys
from pathlib import Path
from jobs.store import FolderStore

def wait(handle):
    print("draft", flush=True)
    sys.stdin.readline()

os.fsync = wait
FolderStore(Path(sys.argv[1])).write(sys.argv[2], b"from the other process")
"""


@contextmanager
def _writing(root: Path, name: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that has written its draft, and not yet renamed it."""
    command = [sys.executable, "-c", _WRITER, str(root), name]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "draft\n"
        try:
            yield process
        finally:
            process.kill()


def _files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_what_a_killed_writer_leaves_is_removed_by_the_next_one(tmp_path: Path) -> None:
    """By one that writes to the same folder, and no name is in doubt: the file is absent, as before."""
    with _writing(tmp_path, "v1/model.keras") as writer:
        writer.kill()
    assert len(list((tmp_path / "v1").iterdir())) == 1
    store = FolderStore(tmp_path)
    assert store.names("") == []
    store.write("v1/model.json", b"{}")
    assert _files(tmp_path) == ["v1/model.json"]


def test_what_a_killed_writer_leaves_does_not_keep_a_folder(tmp_path: Path) -> None:
    """Removing its last file removes the folder, too: a cache that is cleared is gone."""
    FolderStore(tmp_path).write("jobs/a/begun", b"x")
    with _writing(tmp_path, "jobs/a/files") as writer:
        writer.kill()
    FolderStore(tmp_path).remove("jobs/a/begun")
    assert list(tmp_path.iterdir()) == []


def test_the_draft_of_a_writer_that_is_alive_stays(tmp_path: Path) -> None:
    """However long it takes, and whatever others write next to it. Nor is anyone else's file removed."""
    foreign = tmp_path / "v1" / ".model.json.original"
    foreign.parent.mkdir()
    foreign.write_bytes(b"of the user")
    with _writing(tmp_path, "v1/model.keras") as writer:
        FolderStore(tmp_path).write("v1/model.json", b"{}")
        writer.communicate("go on\n")
        assert writer.returncode == 0
    assert _files(tmp_path) == ["v1/.model.json.original", "v1/model.json", "v1/model.keras"]
    assert (tmp_path / "v1/model.keras").read_bytes() == b"from the other process"


def test_an_address_is_not_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would become folders with the signature in a name."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^https://host/models is neither an s3:// URI nor a folder"):
        open_store("https://host/models?X-Amz-Signature=secret")
    assert list(tmp_path.iterdir()) == []
