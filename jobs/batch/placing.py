"""How one picture gets to its pile: what a placer does, and what became of the picture.

A placer first says what it is about to do, then does it for a few hundred pictures at a time, and only then lets go of
what is no longer needed: originals that were moved, and the places of pictures that changed their pile.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from jobs.batch.pile_list import Entry, Known, Method
from jobs.batch.piles import Picture

#: Problems of several placers.
TAKEN: Final = "there is another file of that name"
UNREAD: Final = "its row names no picture that may be read"


@dataclass(slots=True)
class Placement:
    """What became of a picture."""

    entry: Entry | None = None  #: None: it is in no pile, see ``problem``
    problem: str | None = None
    new: bool = False  #: it was in no pile before
    over: bool = False  #: it was in another pile
    by_hand: bool = False  #: a person has put it into another pile since, where it stays
    instead: bool = False  #: it was copied, where a link or a move was asked for
    obsolete: tuple[str, ...] = ()  #: other places of the same bytes, below the target
    replaced: tuple[str, ...] = ()  #: places of what the picture was before
    moved: str | None = None  #: the original, which must go
    seen: os.stat_result | None = None  #: the original as it was when it was read


class Placer(Protocol):
    """Puts pictures into piles. ``intent`` and ``place`` are called by several threads."""

    threads: int

    def is_done(self, picture: Picture, known: Known) -> bool:
        """Returns whether a picture was placed before, and nothing is left to do."""

    def intent(self, picture: Picture) -> Entry:
        """Returns what is about to be done."""

    def intended(self) -> None:
        """Makes sure that the list of intents survives a power cut."""

    def place(self, picture: Picture, intent: Entry, known: Known | None) -> Placement:
        """Puts a picture into its pile. ``known`` is what the list knew before the intent."""

    def finish(self, placements: Iterable[Placement]) -> None:
        """Makes what was placed durable, then removes what is no longer needed."""


def entry_of(picture: Picture, how: Method, file: str | None = None) -> Entry:
    """Returns the line of a picture that is about to be placed."""
    return Entry(
        source_ref=picture.source_ref,
        version_id=picture.version_id,
        pile=picture.pile,
        file=picture.file if file is None else file,
        how=how,
        original=picture.original,
    )


def is_by_hand(entry: Entry) -> bool:
    """Returns whether a picture is in another pile than the one that it was sorted into: a person has put it there."""
    return bool(entry.file) and entry.file.partition("/")[0] != entry.pile
