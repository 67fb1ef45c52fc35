"""The piles of a job: each picture that was scored, the pile it belongs to, and the name that it has there.

    cats/summer/1.jpg     a label, and the picture's name below the folder or prefix that was submitted
    unsure/2.jpg          a score in the band of unsure scores
    failed/3.jpg          no score

A name depends on the images of the job alone, and not on the piles: a picture that changes its pile keeps it.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from jobs.batch.file_names import FILE, base_of
from jobs.batch.pile_list import FILE as LIST
from jobs.batch.pile_list import STEPS, PileList
from jobs.batch.results import Line
from jobs.batch.safe_names import Names, digest_of, safe_step, with_digest
from jobs.unsure_band import Band
from jobs.user_error import UserError
from worker.batch.job_folder import UPLOADS
from worker.contract import UNSURE, Job, PredictionRow, check_band
from worker.errors import ErrorCode
from worker.predictions import in_band

FAILED: Final = "failed"
#: Pictures that changed after they were sorted: what they were before is kept here.
REPLACED: Final = "replaced"
_RESERVED: Final = frozenset({UNSURE, FAILED, REPLACED, LIST, STEPS})
#: What these rows name was never read: it is no object, or one that the worker must not read.
_UNREAD: Final = frozenset({ErrorCode.BAD_SOURCE_REF, ErrorCode.NOT_ALLOWED})


@dataclass(slots=True)
class Picture:
    """A picture, and where it belongs."""

    source_ref: str
    version_id: str | None
    key: str  #: what tells it from all others, as in the list
    label: str | None  #: its class; None: it is in one of the other piles
    pile: str  #: a folder; that of a class has its name only when all classes are known
    name: str  #: below the pile
    original: str | None  #: the file on this machine that it was uploaded from
    sha256: str | None  #: of its bytes, where the reference says it
    unread: bool = False  #: nothing may be read from the reference

    @property
    def file(self) -> str:
        """Where it belongs, below the target."""
        return f"{self.pile}/{self.name}"


class Piles:
    """Collects the pictures of a job, in order."""

    def __init__(self, job: Job, *, band: Band | None, by_label: bool = False) -> None:
        """``band`` takes precedence over the decisions in the rows; with ``by_label``, so do the labels."""
        self._job = job
        self._band = band
        self._by_label = by_label
        self._labels: dict[str, str] = {}  #: interned
        self._base = base_of(job.sources)
        self._uploads = re.compile(
            rf"{re.escape(job.output_uri.rstrip('/'))}/{UPLOADS}/(?:([0-9a-f]{{64}})|missing)/(.+)"
        )
        self._by_key: dict[str, Picture] = {}
        self._prefixes = [f"{source.rstrip('/')}/" for source in job.sources if source.startswith("s3://")]
        self.rows = 0

    @property
    def pictures(self) -> list[Picture]:
        """All pictures, each once."""
        return list(self._by_key.values())

    @property
    def listed_twice(self) -> int:
        """The rows of pictures that have a row already."""
        return self.rows - len(self._by_key)

    @property
    def folders(self) -> list[str]:
        """The piles that there can be: those of the classes, then the others."""
        return [*sorted(pile_folders(self._labels).values()), UNSURE, FAILED]

    def counts(self) -> dict[str, int]:
        """Returns the number of pictures by pile, once all are there."""
        folders = pile_folders(self._labels)
        counts = Counter(one.pile if one.label is None else folders[one.label] for one in self._by_key.values())
        return {pile: counts[pile] for pile in self.folders if counts[pile]}

    def add(self, lines: Iterable[Line]) -> None:
        """Adds some more rows. Raises UserError where the band does not fit them."""
        for line in lines:
            self.rows += 1
            picture = self._picture(line)
            known = self._by_key.get(picture.key)
            # The same image, listed again: one that has a score at all has it in every row.
            if known is None:
                self._by_key[picture.key] = picture
            elif known.pile == FAILED:
                known.label, known.pile, known.unread = picture.label, picture.pile, picture.unread

    def name_all(self, known: PileList) -> None:
        """Gives the pictures their names, once all are there. One that is in the list keeps the name it has there."""
        taken = Names()
        for entry in (one.entry for one in known if one.entry.file):
            taken.take(_below_pile(entry.file))
        folders = pile_folders(self._labels)
        for picture in self._by_key.values():
            if picture.label is not None:
                picture.pile = folders[picture.label]
            there = known.get(picture.key)
            wanted = picture.name
            had = _below_pile(there.entry.file) if there else ""
            picture.name = had or taken.claim(wanted, picture.key)

    def _label(self, row: PredictionRow) -> str | None:
        """Returns the label of a scored row, or None where it is unsure."""
        if self._band is not None and row.score is not None:
            _check_band(self._band, row)
            is_unsure = in_band(row.score, self._band)
        else:
            is_unsure = row.decision == UNSURE and not self._by_label
        if row.label is None:
            return None
        label = self._labels.setdefault(row.label, row.label)
        return None if is_unsure else label

    def _picture(self, line: Line) -> Picture:
        row, file = line.row, line.columns.get(FILE)
        label = self._label(row)
        uploaded = self._uploads.fullmatch(row.source_ref)
        original = None
        if uploaded and file is not None:
            name = file
            original = str(self._base / file) if self._base else file
        else:
            name = uploaded[2] if uploaded else self._below_prefix(row.source_ref)
        return Picture(
            source_ref=row.source_ref,
            version_id=line.version_id,
            key=original or f"{row.source_ref}?versionId={line.version_id or ''}",
            label=label,
            pile=FAILED if row.score is None else UNSURE if label is None else "",
            name=name,
            original=original,
            sha256=uploaded[1] if uploaded else None,
            unread=row.error_code in _UNREAD,
        )

    def _below_prefix(self, uri: str) -> str:
        """Returns the key below the prefix that was submitted, or else its last step."""
        for prefix in self._prefixes:
            if uri.startswith(prefix):
                return uri.removeprefix(prefix)
        return uri.rstrip("/").rpartition("/")[2]


def pile_folders(labels: Iterable[str]) -> dict[str, str]:
    """Returns the folder of each label: its name, with a digest where that is no name for a folder, or not only its."""
    names = {label: safe_step(label) for label in labels}
    seen = [name.casefold() for name in names.values()]
    return {
        label: name
        if name == label and name.casefold() not in _RESERVED and seen.count(name.casefold()) == 1
        else with_digest(name, digest_of(label))
        for label, name in names.items()
    }


def _below_pile(file: str) -> str:
    return file.partition("/")[2]


def _check_band(band: Band, row: PredictionRow) -> None:
    try:
        check_band(band, row.threshold, labels=(str(row.label),))
    except ValueError as error:
        raise UserError(f"{error}. Choose another --unsure.") from None
