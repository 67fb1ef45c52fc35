"""Names counted by a reason: files that are skipped, and lines of a list that name no image."""

from collections.abc import Mapping

from jobs.printable import printable
from worker.contract import NamedFiles

#: Names that are kept for each reason.
_KEPT = 10
#: Characters of a name that is kept.
_MAX_NAME = 200
#: Names that are shown for each reason.
_SHOWN = 3


class Tally:
    """Counts names by reason, and keeps the first of each."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._names: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        """Counts a name."""
        self._counts[reason] = self._counts.get(reason, 0) + 1
        kept = self._names.setdefault(reason, [])
        if len(kept) < _KEPT:
            kept.append(printable(name)[:_MAX_NAME])

    @property
    def total(self) -> int:
        """How many names were counted."""
        return sum(self._counts.values())

    def groups(self) -> dict[str, NamedFiles]:
        """Returns the counts and the names that are kept, the most frequent reason first."""
        order = sorted(self._counts, key=lambda reason: -self._counts[reason])
        return {reason: NamedFiles(files=self._counts[reason], names=tuple(self._names[reason])) for reason in order}


def in_words(groups: Mapping[str, NamedFiles]) -> list[str]:
    """Returns a line for each reason: ``2 not an image: notes.txt, list.docx``."""
    return [f"{group.files:,} {reason}: {_shown(group)}" for reason, group in groups.items()]


def _shown(group: NamedFiles) -> str:
    names = ", ".join(group.names[:_SHOWN])
    return f"{names}, …" if group.files > _SHOWN else names
