"""The count after a scenario: what was asked for, and what became of it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from tests.chaos.evidence import Evidence, job_of
from worker.contract import PredictionRow
from worker.predictions import Rule

#: How many problems are written out. One cause makes hundreds.
_SHOWN: Final = 20


@dataclass(frozen=True)
class Picture:
    """An image, and what its row must say: its score, computed without a queue, or an error code."""

    ref: str
    expected: float | str


@dataclass(frozen=True)
class Asked:
    """A request as it is sent, and the pictures that it asks for; for an invalid one, the code of its dead letter."""

    job_id: str
    body: str
    pictures: tuple[Picture, ...] = ()
    code: str = ""


@dataclass
class Tally:
    """The result of a scenario."""

    asked: int = 0  #: images, and invalid requests
    lost: int = 0  #: images without a row, and invalid requests without a dead letter
    doubled: int = 0  #: rows beyond the first of an image
    wrong: int = 0  #: rows, dead letters and jobs that are not what they must be
    recovered: int = 0  #: messages that were received more than once, and are answered
    unclosed: int = 0  #: jobs with all rows that only a further request made complete
    letters: int = 0  #: dead letters
    internal: int = 0  #: tracebacks, and dead letters with the code ``internal``
    harm: int = 0  #: kills, stops, freezes, races or failed calls
    wall_s: float = 0.0
    remark: str = ""
    problems: list[str] = field(default_factory=list)  #: the first ones, in words

    @property
    def is_clean(self) -> bool:
        """Whether each image has exactly one row, the right one, and no defect was reported."""
        return (self.lost, self.doubled, self.wrong, self.internal) == (0, 0, 0, 0)

    def note(self, problem: str) -> int:
        """Keeps a problem in words, and returns 1."""
        if len(self.problems) < _SHOWN:
            self.problems.append(problem)
        return 1


def count(asked: Iterable[Asked], evidence: Evidence, rule: Rule) -> Tally:
    """Compares what was asked for with what there is. ``rule`` makes the row that a score must have."""
    requests = {one.body: one for one in asked}
    codes = {letter.body: letter.code for letter in evidence.letters}
    tally = Tally(letters=len(evidence.letters), internal=evidence.tracebacks)
    answered: set[str] = set()  # bodies, and jobs for the messages that a worker sent
    for request in requests.values():
        good = _count_letter(tally, request, codes) if request.code else _count_rows(tally, request, evidence, rule)
        if good:
            answered |= {request.body, request.job_id}
    for letter in evidence.letters:
        tally.internal += letter.code == "internal"
        wanted = requests[letter.body].code if letter.body in requests else ""
        if not wanted or letter.code != wanted:
            tally.wrong += tally.note(f"a dead letter with the code {letter.code!r}: {letter.body[:200]}")
    for job_id in evidence.rows.keys() - {request.job_id for request in requests.values() if request.pictures}:
        tally.wrong += tally.note(f"{job_id}: has rows, and no valid request asks for it")
    for key in evidence.rewritten:
        tally.wrong += tally.note(f"{key}: written more than once")
    tally.recovered = sum(body in answered or job_of(body) in answered for body in evidence.received_again)
    return tally


def _count_letter(tally: Tally, request: Asked, codes: dict[str, str]) -> bool:
    """Counts an invalid request. Returns whether it has its dead letter."""
    tally.asked += 1
    if request.body not in codes:
        tally.lost += tally.note(f"{request.job_id}: no dead letter")
    return request.body in codes


def _count_rows(tally: Tally, request: Asked, evidence: Evidence, rule: Rule) -> bool:
    """Counts the rows of a request. Returns whether there is one for each of its pictures."""
    job_id, pictures = request.job_id, request.pictures
    tally.asked += len(pictures)
    rows = evidence.rows.get(job_id, [])
    by_number = {row.row: row for row in rows}
    if lost := [number for number in range(len(pictures)) if number not in by_number]:
        tally.note(f"{job_id}: no row for {len(lost)} of {len(pictures)} images, the first is {lost[0]}")
    if doubled := len(rows) - len(by_number):
        tally.note(f"{job_id}: {doubled} rows are there twice")
    tally.lost += len(lost)
    tally.doubled += doubled
    for number, row in by_number.items():
        if number >= len(pictures) or not _fits(row, number, pictures[number], rule):
            wanted = pictures[number] if number < len(pictures) else "nothing"
            tally.wrong += tally.note(f"{job_id}: {row} for {wanted}")
    if evidence.failed.get(job_id, []) != [row for row in rows if row.error_code is not None]:
        tally.wrong += tally.note(f"{job_id}: its failed rows are not those of its parts")
    if job_id not in evidence.complete:
        tally.wrong += tally.note(f"{job_id}: not marked as complete")
    return not lost


def _fits(row: PredictionRow, number: int, picture: Picture, rule: Rule) -> bool:
    if isinstance(picture.expected, str):
        return (row.row, row.source_ref, row.error_code) == (number, picture.ref, picture.expected)
    return row == rule.scored(number, picture.ref, picture.expected)
