"""A report's file is whole or absent, and no other file is lost."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.report import page_file
from jobs.user_error import UserError


@contextmanager
def _disk_of(size_bytes: int) -> Iterator[None]:
    """Files cannot grow beyond this size, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("old", [None, "the report of May"])
def test_a_page_that_cannot_be_written_whole_is_not_there_at_all(tmp_path: Path, old: str | None) -> None:
    """The disk is full in its middle: the older page is as it was, and no half of a new one is left."""
    path = tmp_path / "june.html"
    if old:
        path.write_text(old)
    with _disk_of(10_000), pytest.raises(OSError, match="File too large"):
        page_file.save(path, "x" * 100_000, force=True)
    assert [file.read_text() for file in tmp_path.iterdir()] == ([old] if old else [])


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    """Not even a file that appears after the check, while the page is drawn."""
    path = tmp_path / "june.html"
    page_file.check_free(path, force=False)
    path.write_text("someone's notes")
    for attempt in (page_file.check_free, lambda path, force: page_file.save(path, "a page", force=force)):
        with pytest.raises(UserError, match=r"june\.html exists already. Add --force to replace it"):
            attempt(path, force=False)
    assert path.read_text() == "someone's notes"
    page_file.check_free(path, force=True)
    page_file.save(path, "a page", force=True)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["a page"]


def test_a_folder_that_does_not_exist_is_named_before_the_work_begins(tmp_path: Path) -> None:
    """So is a folder in place of a file."""
    with pytest.raises(UserError, match=r"There is no folder .*reports for june\.html. Create it"):
        page_file.check_free(tmp_path / "reports/june.html", force=True)
    with pytest.raises(UserError, match=r"is a folder. Name a file with -o, such as .*report\.html"):
        page_file.check_free(tmp_path, force=True)
