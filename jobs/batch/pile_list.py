"""``piles.csv``: which picture is where, so that sorting can be repeated, changed, and undone.

While pictures are sorted, every step is written down before it is taken: ``_piles/00000.csv`` and so on hold what is
about to be done with a few hundred pictures, and what became of those before. A kill at any instant thus leaves no
picture that the list does not know. At the end, all of it becomes one file.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain
from typing import Final

from jobs.store import Store
from jobs.user_error import UserError
from worker.predictions import csv_bytes, unguarded

#: The file, and the folder of what is not in it yet, below the target.
FILE: Final = "piles.csv"
STEPS: Final = "_piles"

_STEP: Final = re.compile(rf"{STEPS}/(\d{{5,}})\.csv")


class Method(StrEnum):
    """What is done with a picture."""

    COPY = "copy"
    LINK = "link"  #: a hard link
    MOVE = "move"
    TAG = "tag"  #: of the object in S3


class State(StrEnum):
    """How far that is."""

    PLANNED = "planned"  #: it may be done or not, or half: what is there decides
    PLACED = "placed"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: a picture, and where it is."""

    source_ref: str
    version_id: str | None
    pile: str
    file: str  #: below the target, with slashes; empty for an object with a tag
    how: Method
    original: str | None = None  #: the file on this machine that it came from
    size_bytes: int | None = None
    sha256: str | None = None  #: None: it was never read here
    etag: str | None = None  #: of the copy in S3
    tags: str | None = None  #: JSON: those that the object had before
    state: State = State.PLANNED

    @property
    def key(self) -> str:
        """What tells the picture from all others, whatever pile it is in."""
        return self.original or f"{self.source_ref}?versionId={self.version_id or ''}"


COLUMNS: Final = tuple(Entry.__dataclass_fields__)


@dataclass(slots=True)
class Known:
    """What the list knows of a picture: its newest line, and all places where it may be."""

    entry: Entry
    files: tuple[str, ...]


class PileList:
    """The list of one target."""

    def __init__(self, store: Store) -> None:
        """Reads what there is. Raises UserError for a file that is not such a list."""
        self._store = store
        self._known: dict[str, Known] = {}
        self._settled: list[Entry] = []  #: not written yet
        steps = [name for name in store.names(f"{STEPS}/") if _STEP.fullmatch(name)]
        self._next = 1 + max((int(name[len(STEPS) + 1 : -4]) for name in steps), default=-1)
        for name in (FILE, *sorted(steps)):
            body = store.read(name)
            for entry in () if body is None else _read(body, f"{store.uri}/{name}"):
                self._note(entry)

    def __iter__(self) -> Iterator[Known]:
        return iter(self._known.values())

    def get(self, key: str) -> Known | None:
        """Returns what is known of a picture."""
        return self._known.get(key)

    def begin(self) -> None:
        """Writes a list without lines if there is none, so that its name can be given to ``--undo`` from now on."""
        self._store.write_once(FILE, csv_bytes([COLUMNS]))

    def intend(self, entries: Iterable[Entry]) -> None:
        """Writes down what is about to be done, and what was settled before. Raises UserError if another is at work."""
        planned = list(entries)
        name = f"{STEPS}/{self._next:05}.csv"
        if not self._store.write_once(name, _csv(chain(self._settled, planned))):
            raise UserError(f"Another command is sorting into {self._store.uri}. Wait for it, and run this one again.")
        self._next += 1
        self._settled.clear()
        for entry in planned:
            self._note(entry)

    def settle(self, entry: Entry) -> None:
        """Takes note of what was done. The picture is in no other place then."""
        self._settled.append(entry)
        self._note(entry)

    def finish(self) -> None:
        """Makes one file of everything, and removes the steps. Pictures that are in no pile are not in it."""
        entries = [known.entry for known in self if known.entry.state is not State.REMOVED]
        self._store.write(FILE, _csv(entries))
        for name in sorted(self._store.names(f"{STEPS}/")):
            if _STEP.fullmatch(name):
                self._store.remove(name)

    def _note(self, entry: Entry) -> None:
        known = self._known.get(entry.key)
        files = (entry.file,) if known is None or entry.state is not State.PLANNED else (*known.files, entry.file)
        if known is not None and entry.state is State.PLANNED:
            # What was known of the picture itself still holds; where it is will be seen.
            old = known.entry
            entry = replace(
                entry,
                how=old.how if old.how is Method.MOVE else entry.how,
                tags=old.tags if old.tags is not None else entry.tags,
                sha256=old.sha256,
                size_bytes=old.size_bytes,
                etag=old.etag,
            )
        self._known[entry.key] = Known(entry, tuple(dict.fromkeys(files)))


def _csv(entries: Iterable[Entry]) -> bytes:
    return csv_bytes(chain([COLUMNS], ([getattr(entry, name) for name in COLUMNS] for entry in entries)))


def _read(body: bytes, where: str) -> Iterator[Entry]:
    try:
        rows = csv.reader(io.StringIO(body.decode(), newline=""))
        if tuple(next(rows, ())) != COLUMNS:
            raise ValueError("its first line names other columns")  # noqa: TRY301 - as for any other mistake
        for cells in rows:
            values = [unguarded(cell) or None for cell in cells]
            found = dict(zip(COLUMNS, values, strict=True))
            yield Entry(
                source_ref=found["source_ref"] or "",
                version_id=found["version_id"],
                pile=found["pile"] or "",
                file=found["file"] or "",
                how=Method(found["how"] or ""),
                original=found["original"],
                size_bytes=None if found["size_bytes"] is None else int(found["size_bytes"]),
                sha256=found["sha256"],
                etag=found["etag"],
                tags=found["tags"],
                state=State(found["state"] or ""),
            )
    except (ValueError, csv.Error) as error:
        raise UserError(f"{where} is not a list that 'batch sort' wrote: {error}. Choose another --to.") from None
