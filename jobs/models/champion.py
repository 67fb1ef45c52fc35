"""Which version of a model is in use, and how it came to be.

    <output>/<name>/champion.json               the version in use; workers read it with every request
    <output>/<name>/_history/<when>-<version>.json   how a version became the champion, written once

The history is in files of its own because workers refuse a pointer with fields they do not know, and an older worker
must be able to read a newer pointer. The record is written first and the pointer moves after it, by compare and swap,
as a version control system writes a commit and then moves the branch. Each record names the one it replaced, so the
history is what can be reached from the pointer: whatever dies in between, the pointer is whole and its record is
there, and the record of a promotion that died or lost a race is reached by nobody.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from pydantic import AwareDatetime, ValidationError

from jobs.store import Store
from jobs.user_error import UserError
from worker.contract import ChampionPointer, Document, Name, SchemaVersion, explain
from worker.scoring.models import CHAMPION_FILE

#: No version can be called so: names begin with a letter or a digit.
_HISTORY: Final = "_history"

How = Literal["first", "promoted", "forced", "rolled back", "not recorded"]


class Reign(Document):
    """One time that a version was the champion: a version can come back."""

    version: Name
    promoted_at: AwareDatetime


class ChampionRecord(Document):
    """How a version became the champion, and why."""

    schema_version: SchemaVersion = 1
    name: Name
    version: Name
    promoted_at: AwareDatetime
    how: How
    replaced: Reign | None = None  #: the champion before
    restores: Reign | None = None  #: of a rollback: the earlier reign that goes on
    comparison: dict[str, Any] | None = (
        None  #: with the champion before, on the same test images; jobs.metrics.comparison
    )

    @property
    def reign(self) -> Reign:
        """What the pointer says while this is the champion."""
        return Reign(version=self.version, promoted_at=self.promoted_at)


@dataclass(frozen=True)
class Seen:
    """The pointer as it was read: what a decision was made on."""

    body: bytes
    reign: Reign


class Champions:
    """The champion of one model, now and before."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._file = f"{name}/{CHAMPION_FILE}"

    def current(self) -> Seen | None:
        """The pointer; None where the model has no champion. Raises UserError where it cannot be read."""
        body = self._store.read(self._file)
        if body is None:
            return None
        try:
            pointer = ChampionPointer.model_validate_json(body)
        except ValidationError as error:
            raise UserError(f"{self._store.uri}/{self._file} is no pointer to a champion: {explain(error)}") from None
        return Seen(body, Reign(version=pointer.version, promoted_at=pointer.promoted_at))

    def history(self) -> list[ChampionRecord]:
        """How each champion came to be, the current one first."""
        seen = self.current()
        return [] if seen is None else list(self._back_from(seen.reign))

    def before(self, reign: Reign) -> Reign | None:
        """The reign that a rollback goes back to. After a rollback that is the one before the one restored, so that
        two in a row go back two steps.
        """
        visited: list[Reign] = []
        record = self._record(reign)
        while record is not None and record.restores is not None and record.restores not in visited:
            visited.append(record.restores)
            record = self._record(record.restores)
        return None if record is None else record.replaced

    def crown(
        self,
        version: str,
        *,
        seen: Seen | None,
        how: How,
        restores: Reign | None = None,
        comparison: dict[str, Any] | None = None,
    ) -> bool:
        """Makes ``version`` the champion, unless the pointer is no longer what was ``seen``: then False."""
        record = ChampionRecord(
            name=self._name,
            version=version,
            promoted_at=datetime.now(UTC),
            how=how,
            replaced=seen.reign if seen else None,
            restores=restores,
            comparison=comparison,
        )
        pointer = ChampionPointer(name=self._name, version=version, promoted_at=record.promoted_at)
        body = pointer.model_dump_json(indent=2).encode()
        if not self._store.write_once(self._record_file(record.reign), record.model_dump_json(indent=2).encode()):
            return False  # two promotions of one version in the same microsecond
        if seen is None:
            moved = self._store.write_once(self._file, body)
        else:
            moved = self._store.replace(self._file, body, seen=seen.body)
        # Where the answer to our own write got lost, the SDK's second try is refused by the first: see what is there.
        # For the same reason the record stays in any case: not even we can be sure that it was never the champion's.
        return moved or self._store.read(self._file) == body

    def _back_from(self, reign: Reign | None) -> Iterator[ChampionRecord]:
        visited: list[Reign] = []
        while reign is not None and reign not in visited:
            visited.append(reign)
            record = self._record(reign)
            yield record or ChampionRecord(
                name=self._name, version=reign.version, promoted_at=reign.promoted_at, how="not recorded"
            )
            reign = record.replaced if record else None

    def _record(self, reign: Reign) -> ChampionRecord | None:
        body = self._store.read(self._record_file(reign))
        try:
            return None if body is None else ChampionRecord.model_validate_json(body)
        except ValidationError:
            return None  # what cannot be read tells nothing: the history ends there

    def _record_file(self, reign: Reign) -> str:
        when = reign.promoted_at.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        return f"{self._name}/{_HISTORY}/{when}-{reign.version}.json"
