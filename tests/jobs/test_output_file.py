"""A file of results or of a report is whole or absent, and no other file is lost."""

import errno
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs import output_file
from jobs.user_error import UserError
from tests.conftest import REPOSITORY


@contextmanager
def _disk_of(size_bytes: int) -> Iterator[None]:
    """Files cannot grow beyond this size, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _save(path: Path, text: str, *, force: bool) -> None:
    with output_file.writing(path, force=force) as file:
        file.write(text.encode())


@pytest.mark.parametrize("old", [None, "the report of May"])
def test_a_page_that_cannot_be_written_whole_is_not_there_at_all(tmp_path: Path, old: str | None) -> None:
    """The disk is full in its middle: the older page is as it was, and no half of a new one is left."""
    path = tmp_path / "june.html"
    if old:
        path.write_text(old)
    with _disk_of(10_000), pytest.raises(OSError, match="File too large"):
        _save(path, "x" * 100_000, force=True)
    assert [file.read_text() for file in tmp_path.iterdir()] == ([old] if old else [])


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    """Not even a file that appears after the check, while the page is drawn."""
    path = tmp_path / "june.html"
    output_file.check_free(path, force=False)
    path.write_text("someone's notes")
    for attempt in (output_file.check_free, lambda path, force: _save(path, "a page", force=force)):
        with pytest.raises(UserError, match=r"june\.html exists already. Add --force to replace it"):
            attempt(path, force=False)
    assert path.read_text() == "someone's notes"
    output_file.check_free(path, force=True)
    _save(path, "a page", force=True)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["a page"]


def test_a_folder_that_does_not_exist_is_named_before_the_work_begins(tmp_path: Path) -> None:
    """So is a folder in place of a file."""
    with pytest.raises(UserError, match=r"There is no folder .*reports for june\.html. Create it"):
        output_file.check_free(tmp_path / "reports/june.html", force=True)
    with pytest.raises(UserError, match=r"is a folder. Name a file with -o, such as .*report\.html"):
        output_file.check_free(tmp_path, force=True)


def test_what_a_killed_command_left_behind_is_removed_by_the_next_one(tmp_path: Path) -> None:
    """Its half of a file is hidden. That of a command which still writes the same file stays."""
    script = (
        "import os, sys; from pathlib import Path; from jobs.output_file import writing\n"
        "with writing(Path(sys.argv[1]), force=True) as file:\n"
        "    file.write(b'half'), file.flush(), os.kill(os.getpid(), 9)"
    )
    path = tmp_path / "june.csv"
    subprocess.run([sys.executable, "-c", script, str(path)], cwd=REPOSITORY, check=False)
    assert [file.name.endswith(".draft") for file in tmp_path.iterdir()] == [True]
    with output_file.writing(path, force=False) as slow:
        slow.write(b"slow")
        _save(path, "quick", force=False)
        assert len(list(tmp_path.glob(".*.draft"))) == 1
        path.unlink()
    assert [file.read_text() for file in tmp_path.iterdir()] == ["slow"]


def test_a_file_can_be_written_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a USB stick with FAT. Nothing is overwritten there either."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    _save(tmp_path / "june.csv", "rows", force=False)
    with pytest.raises(UserError, match="exists already"):
        _save(tmp_path / "june.csv", "other rows", force=False)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["rows"]
