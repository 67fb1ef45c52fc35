"""The error codes of redriven rows, at first and now: two bytes for each row of a job, and nothing else of the rows."""

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Final

from jobs.batch.results import Results
from worker.batch.job_folder import JobRecord

_READERS: Final = 8


class RedrivenCodes:
    """The codes of the rows that redrives have answered, read any number of times. Each part is read once.

    A row's code is that of the newest answer with a score, or else of the newest one, as in the results.
    """

    def __init__(self, record: JobRecord) -> None:
        self._results = Results(record)
        self._numbers: dict[str | None, int] = {}  #: of the codes, from 1; a few dozen. None: a score
        self._complete: set[str] = set()  #: redrives of which every part was read
        self._forget()

    def read(self, redrives: list[str]) -> tuple[Counter[str], Counter[str]]:
        """Returns the failed rows among the redriven ones by code: as they were at first, and as they are now."""
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
        self._first = bytearray(self._results.job.images)  #: the number of each row's code; 0: not redriven
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
        scored = self._number(None)
        for codes in _codes(again, numbers):
            for row, code in codes:
                if row < len(self._now) and (code is None or self._now[row] != scored):
                    self._now[row] = self._number(code)

    def _read_first(self) -> None:
        """Reads the codes that newly redriven rows had at first, from the job's own parts."""
        size = self._results.job.shard_images if self._results.job.shards else len(self._now)
        starts = range(0, len(self._now), size)
        unknown = [
            part
            for part, start in enumerate(starts)
            if self._now.count(0, start, start + size) != self._first.count(0, start, start + size)
        ]
        for codes in _codes(self._results, unknown):
            for row, code in codes:
                if self._now[row]:
                    self._first[row] = self._number(code)

    def _number(self, code: str | None) -> int:
        return self._numbers.setdefault(code, len(self._numbers) + 1)

    def _count(self, codes: bytearray) -> Counter[str]:
        return Counter({code: codes.count(number) for code, number in self._numbers.items() if code is not None})


def _codes(results: Results, numbers: Iterable[int]) -> Iterable[list[tuple[int, str | None]]]:
    """Yields the rows of each part with their codes."""
    with ThreadPoolExecutor(_READERS) as pool:
        yield from pool.map(_codes_of, repeat(results), numbers)


def _codes_of(results: Results, number: int) -> list[tuple[int, str | None]]:
    return [(row.row, row.error_code) for row in results.part(number)]
