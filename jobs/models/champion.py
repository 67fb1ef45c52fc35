"""The champion: which version of a model is in use, and how it came to be.

    <output>/<name>/champion.json                    the version in use; workers read it with every request
    <output>/<name>/_history/<when>-<version>.json   how a version became the champion; written once

The history is kept in separate files because workers reject a pointer with unknown fields, and an older worker must be
able to read a newer pointer. The record is written first and then the pointer moves to it by compare-and-swap, as a
version control system writes a commit and then moves the branch. Each record names the one it replaced, so the history
is whatever can be reached from the pointer. If a promotion dies halfway, the pointer is intact and its record exists.
The record of a promotion that died or lost a race is never reached.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from pydantic import AwareDatetime, ValidationError

from jobs.store import Store
from jobs.user_error import UserError
from worker.contract import ChampionPointer, Document, Name, SchemaVersion
from worker.scoring.models import CHAMPION_FILE

#: Not a possible version name: those begin with a letter or a digit.
_HISTORY: Final = "_history"

How = Literal["first", "promoted", "forced", "rolled back", "not recorded"]


class Tenure(Document):
    """One period in which a version was the champion. A version can have several."""

    version: Name
    promoted_at: AwareDatetime


class ChampionRecord(Document):
    """How a version became the champion, and why."""

    schema_version: SchemaVersion = 1
    name: Name
    version: Name
    promoted_at: AwareDatetime
    how: How
    replaced: Tenure | None = None  #: the previous champion
    restores: Tenure | None = None  #: after a rollback: the earlier tenure that continues
    #: With the previous champion, on the same test images; see jobs.metrics.comparison.
    comparison: dict[str, Any] | None = None

    @property
    def tenure(self) -> Tenure:
        """What the pointer says while this version is the champion."""
        return Tenure(version=self.version, promoted_at=self.promoted_at)


@dataclass(frozen=True)
class CurrentChampion:
    """The pointer as it was read. A decision based on it holds only while the pointer has not moved."""

    body: bytes
    tenure: Tenure


class Champions:
    """The champions of one model, present and past."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._file = f"{name}/{CHAMPION_FILE}"

    def current(self) -> CurrentChampion | None:
        """Reads the pointer; None if the model has no champion. Raises UserError if the file cannot be read."""
        body = self._store.read(self._file)
        if body is None:
            return None
        try:
            pointer = ChampionPointer.parse(body)
        except ValueError as error:
            raise UserError(f"{self._store.uri}/{self._file} is not a champion pointer: {error}") from None
        return CurrentChampion(body, Tenure(version=pointer.version, promoted_at=pointer.promoted_at))

    def history(self) -> list[ChampionRecord]:
        """Returns how each champion came to be, the current one first."""
        current = self.current()
        return [] if current is None else list(self._back_from(current.tenure))

    def before(self, tenure: Tenure) -> Tenure | None:
        """Returns the tenure that a rollback restores.

        After a rollback that is the one before the restored tenure, so that two rollbacks in a row go back two steps.
        """
        visited: list[Tenure] = []
        record = self._record(tenure)
        while record is not None and record.restores is not None and record.restores not in visited:
            visited.append(record.restores)
            record = self._record(record.restores)
        return None if record is None else record.replaced

    def set_champion(
        self,
        version: str,
        *,
        expected: CurrentChampion | None,
        how: How,
        restores: Tenure | None = None,
        comparison: dict[str, Any] | None = None,
    ) -> bool:
        """Makes ``version`` the champion. Returns False, and changes nothing, if the pointer is not as ``expected``."""
        record = ChampionRecord(
            name=self._name,
            version=version,
            promoted_at=datetime.now(UTC),
            how=how,
            replaced=expected.tenure if expected else None,
            restores=restores,
            comparison=comparison,
        )
        pointer = ChampionPointer(name=self._name, version=version, promoted_at=record.promoted_at)
        body = pointer.model_dump_json(indent=2).encode()
        if not self._store.write_once(self._record_file(record.tenure), record.model_dump_json(indent=2).encode()):
            return False  # two promotions of one version in the same microsecond
        if expected is None:
            moved = self._store.write_once(self._file, body)
        else:
            moved = self._store.replace(self._file, body, seen=expected.body)
        # If the response to our write was lost, the SDK's retry is refused because of the first attempt: read it back.
        # For the same reason the record is never removed: even we cannot be sure that the pointer never named it.
        return moved or self._store.read(self._file) == body

    def _back_from(self, tenure: Tenure | None) -> Iterator[ChampionRecord]:
        visited: list[Tenure] = []
        while tenure is not None and tenure not in visited:
            visited.append(tenure)
            record = self._record(tenure)
            yield record or ChampionRecord(
                name=self._name, version=tenure.version, promoted_at=tenure.promoted_at, how="not recorded"
            )
            tenure = record.replaced if record else None

    def _record(self, tenure: Tenure) -> ChampionRecord | None:
        body = self._store.read(self._record_file(tenure))
        try:
            return None if body is None else ChampionRecord.model_validate_json(body)
        except ValidationError:
            return None  # the history ends at a record that cannot be read

    def _record_file(self, tenure: Tenure) -> str:
        when = tenure.promoted_at.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        return f"{self._name}/{_HISTORY}/{when}-{tenure.version}.json"
