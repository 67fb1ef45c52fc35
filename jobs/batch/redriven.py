"""What became of redriven rows, at first and now: two bytes for each row of a job, and nothing else of the rows."""

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Final, NamedTuple

from jobs.batch.results import Results
from worker.batch.job_folder import JobRecord
from worker.contract import UNSURE, PredictionRow

_READERS: Final = 8


class _Outcome(NamedTuple):
    """What a status counts of a row."""

    code: str | None  #: None: a score
    unsure: bool | None  #: whether the score is in the band of unsure scores; None: there is no score, or no band


class RedrivenCounts(NamedTuple):
    """Rows that were redriven, counted."""

    errors: Counter[str]  #: failed rows by error_code
    unsure: int | None  #: scored rows in the band of unsure scores; None: no row has one


class RedrivenRows:
    """The rows that redrives have answered, read any number of times. Each part is read once.

    A row is that of the newest answer with a score, or else of the newest one, as in the results.
    """

    def __init__(self, record: JobRecord) -> None:
        self._results = Results(record)
        self._numbers: dict[_Outcome, int] = {}  #: from 1; a few dozen
        self._scored: set[int] = set()  #: the numbers of those with a score
        self._complete: set[str] = set()  #: redrives of which every part was read
        self._forget()

    def read(self, redrives: list[str]) -> tuple[RedrivenCounts, RedrivenCounts]:
        """Returns the counts of the redriven rows: as they were at first, and as they are now."""
        complete, new = self._new_parts(redrives)
        begun = next((place for place, name in enumerate(redrives) if name in new), len(redrives))
        if any(self._read.get(name) for name in redrives[begun + 1 :]):  # a late answer, which is not the newest
            self._forget()
            complete, new = self._new_parts(redrives)
        for name, numbers in new.items():
            self._read_parts(Results(self._results.record.sibling(name)), numbers)
            self._read.setdefault(name, set()).update(numbers)
        self._read_first()
        self._complete |= complete
        return self._count(self._first), self._count(self._now)

    def _forget(self) -> None:
        self._read: dict[str, set[int]] = {}  #: the parts of each redrive
        self._complete.clear()
        self._first = bytearray(self._results.job.images)  #: the number of each row's outcome; 0: not redriven
        self._now = bytearray(self._results.job.images)

    def _new_parts(self, redrives: list[str]) -> tuple[set[str], dict[str, list[int]]]:
        """Returns the redrives to which no part is added any more, and the parts that were not read, by redrive."""
        complete, new = set(), {}
        for name in redrives:
            if name in self._complete:
                continue
            again = Results(self._results.record.sibling(name))
            if again.record.is_complete(again.job):  # asked before its parts are listed
                complete.add(name)
            if numbers := [number for number in again.numbers() if number not in self._read.get(name, ())]:
                new[name] = numbers
        return complete, new

    def _read_parts(self, again: Results, numbers: Iterable[int]) -> None:
        for outcomes in _outcomes(again, numbers):
            for row, outcome in outcomes:
                if row < len(self._now) and (outcome.code is None or self._now[row] not in self._scored):
                    self._now[row] = self._number(outcome)

    def _read_first(self) -> None:
        """Reads what newly redriven rows were at first, from the job's own parts."""
        size = self._results.job.shard_images if self._results.job.shards else len(self._now)
        starts = range(0, len(self._now), size)
        unknown = [
            part
            for part, start in enumerate(starts)
            if self._now.count(0, start, start + size) != self._first.count(0, start, start + size)
        ]
        for outcomes in _outcomes(self._results, unknown):
            for row, outcome in outcomes:
                if self._now[row]:
                    self._first[row] = self._number(outcome)

    def _number(self, outcome: _Outcome) -> int:
        number = self._numbers.setdefault(outcome, len(self._numbers) + 1)
        if outcome.code is None:
            self._scored.add(number)
        return number

    def _count(self, rows: bytearray) -> RedrivenCounts:
        counts = {outcome: rows.count(number) for outcome, number in self._numbers.items()}
        decided = [count for outcome, count in counts.items() if outcome.unsure is not None]
        return RedrivenCounts(
            errors=Counter({outcome.code: count for outcome, count in counts.items() if outcome.code is not None}),
            unsure=sum(count for outcome, count in counts.items() if outcome.unsure) if any(decided) else None,
        )


def _outcomes(results: Results, numbers: Iterable[int]) -> Iterable[list[tuple[int, _Outcome]]]:
    """Yields the rows of each part with what became of them."""
    with ThreadPoolExecutor(_READERS) as pool:
        yield from pool.map(_outcomes_of, repeat(results), numbers)


def _outcomes_of(results: Results, number: int) -> list[tuple[int, _Outcome]]:
    return [(row.row, _outcome(row)) for row in results.part(number)]


def _outcome(row: PredictionRow) -> _Outcome:
    return _Outcome(row.error_code, None if row.decision is None else row.decision == UNSURE)
