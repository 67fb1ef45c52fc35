"""The file that a command writes for its user: complete or absent, and never over another file by accident."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from jobs.store import open_draft, remove_abandoned
from jobs.user_error import UserError


def check_free(path: Path, *, force: bool, example: str = "report.html") -> None:
    """Raises UserError if ``writing`` could not write the file: call it before the work that its contents take.

    ``example`` is the name of such a file.
    """
    if not path.parent.is_dir():
        raise UserError(f"There is no folder {path.parent} for {path.name}. Create it, or choose another file with -o.")
    if path.is_dir():
        raise UserError(f"{path} is a folder. Name a file with -o, such as {path / example}.")
    if path.exists() and not force:
        raise _taken(path)
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"The folder {path.parent} cannot be written to. Choose a file in another one with -o.")


@contextmanager
def writing(path: Path, *, force: bool) -> Iterator[IO[bytes]]:
    """Yields a file next to ``path``, and gives it that name once the block is done. After an error it is gone.

    Raises UserError if there is a file of that name by then, unless with ``force``.
    """
    _sweep(path)
    handle, draft = open_draft(path)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(handle)  # or the name could survive a power cut without the bytes
            draft.chmod(0o644)
            if force:
                draft.replace(path)
            else:
                _place(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _place(draft: Path, path: Path) -> None:
    """Links the file into place, which fails if there is one, as a rename would not."""
    try:
        path.hardlink_to(draft)
    except FileExistsError:  # it appeared in the meantime
        raise _taken(path) from None
    except OSError:  # a file system without hard links, as on many USB sticks
        if path.exists():
            raise _taken(path) from None
        draft.rename(path)


def _sweep(path: Path) -> None:
    """Removes the drafts of this file whose writers were killed."""
    for draft in path.parent.glob(".*.draft"):
        if draft.name.startswith(f".{path.name}."):
            remove_abandoned(draft)


def _taken(path: Path) -> UserError:
    return UserError(f"{path} exists already. Add --force to replace it, or choose another file with -o.")
