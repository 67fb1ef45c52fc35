"""The file of a report: complete or absent, and never over another file by accident."""

from pathlib import Path

from jobs.store import FolderStore
from jobs.user_error import UserError


def check_free(path: Path, *, force: bool) -> None:
    """Raises UserError if ``save`` could not write the page: call it before the work that a page takes."""
    if not path.parent.is_dir():
        raise UserError(f"There is no folder {path.parent} for {path.name}. Create it, or choose another file with -o.")
    if path.is_dir():
        raise UserError(f"{path} is a folder. Name a file with -o, such as {path / 'report.html'}.")
    if path.exists() and not force:
        raise _taken(path)


def save(path: Path, page: str, *, force: bool) -> None:
    """Writes the page next to ``path`` and renames it. Raises UserError if there is a file, unless with ``force``."""
    folder, body = FolderStore(path.parent), page.encode()
    if force:
        folder.write(path.name, body)
    elif not folder.write_once(path.name, body):  # it appeared while the page was drawn
        raise _taken(path)


def _taken(path: Path) -> UserError:
    return UserError(f"{path} exists already. Add --force to replace it, or choose another file with -o.")
