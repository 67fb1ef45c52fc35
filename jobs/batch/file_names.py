"""The names of files on this machine: what a job's column ``file`` says, and where that file is.

A name is relative to the folder that all local sources of the job have in common, so it belongs to one file:

    photos/             1.jpg, summer/2.jpg
    day1/ day2/         day1/1.jpg, day2/1.jpg
    lists/june.csv      as the list names them
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

#: The column in which a job keeps the names of files that were uploaded for it.
FILE: Final = "file"
#: Sources that ``job.json`` names. A shell makes thousands of ``*.jpg``.
_NAMED: Final = 100


def recorded(names: Sequence[str]) -> tuple[str, ...]:
    """Returns sources as ``job.json`` keeps them: absolute, a folder with a slash at its end.

    Of very many files, it names the folder that they have in common.
    """
    sources = tuple(name if _is_stored(name) else _absolute(name) for name in names)
    if len(sources) <= _NAMED:
        return sources
    base = base_of(sources)
    stored = tuple(filter(_is_stored, sources))[:_NAMED]
    return stored if base is None else (f"{str(base).rstrip('/')}/", *stored)


def base_of(sources: Iterable[str]) -> Path | None:
    """Returns the folder that the names of files are relative to, or None if no source is on this machine."""
    folders = [os.path.dirname(source) for source in sources if not _is_stored(source)]  # noqa: PTH120 - keeps "/"
    return Path(os.path.commonpath(folders)) if folders else None


def name_in(base: Path, folder: Path, name: str) -> str:
    """Returns the name, relative to ``base``, of what a source in ``folder`` calls ``name``."""
    inner = os.path.relpath(folder, base)
    return name if inner == "." or Path(name).is_absolute() else os.path.normpath(f"{inner}/{name}")


def find_file(sources: Iterable[str], name: str) -> Path | None:
    """Returns the file that a row of a job with these sources came from, or None if it is not there."""
    base = base_of(sources)
    return base / name if base is not None and name and is_file(base / name) else None


def own_name(name: str, columns: dict[str, str]) -> dict[str, str]:
    """Returns the columns of a line with ``name`` as its file. A column of that name of a list gets another one."""
    return {FILE: name} | renamed(columns)


def renamed(columns: dict[str, str]) -> dict[str, str]:
    """Returns the columns of a list without ``file``: what a list says there is not a file that we have read."""
    if FILE not in columns:
        return columns
    other = f"manifest_{FILE}"
    while other in columns:
        other = f"manifest_{other}"
    return {other if column == FILE else column: value for column, value in columns.items()}


def is_file(path: Path) -> bool:
    """Returns whether there is a file. False for what cannot be the name of one."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _is_stored(source: str) -> bool:
    return source.startswith("s3://")


def _absolute(name: str) -> str:
    path = os.path.normpath(Path(name).absolute())  # not resolved: a link to a file keeps its own name
    return f"{path.rstrip('/')}/" if Path(path).is_dir() else path
