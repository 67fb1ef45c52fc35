"""The sorting of a job's pictures into piles, which can be repeated and undone.

A picture is in one pile, whenever the command is killed and however often it is run: with other answers, or another
band of unsure scores, a picture changes its pile. Nothing is overwritten.
"""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import Final

from pydantic import BaseModel, TypeAdapter, ValidationError

from jobs.batch.pile_list import Entry, Known, Method, PileList, State
from jobs.batch.piles import Picture, Piles
from jobs.batch.placing import Placement, Placer
from jobs.batch.results import Results
from jobs.batch.s3_objects import S3Objects
from jobs.progress import Advance
from jobs.unsure_band import Band
from jobs.user_error import UserError
from jobs.wording import program, with_command
from worker.batch.job_folder import JobRecord
from worker.contract import UnsureBand

#: Pictures between two entries in the list: after a kill, as many are compared byte by byte.
_BATCH: Final = 500
#: Pictures in S3 whose sizes are asked for before anything is done; the others are taken to be like them.
_SAMPLE: Final = 2_000
_ASKERS: Final = 16
_MAX_JSON_BYTES: Final = 1024 * 1024
_BAND: Final = TypeAdapter[Band | None](UnsureBand | None)


class Unplaced(BaseModel):
    """A picture that is in no pile."""

    picture: str
    reason: str


class SortedPiles(BaseModel):
    """What became of a job's rows: ``images`` is the sum of the piles, ``listed_twice`` and ``unplaced``."""

    job_id: str
    how: Method
    to: str
    images: int
    listed_twice: int = 0  #: rows of pictures that have another row
    piles: dict[str, int] = {}  #: pictures by pile
    new: int = 0  #: of these
    already_there: int = 0
    moved_over: int = 0  #: from another pile
    put_by_hand: int = 0  #: they stay in the pile into which a person has put them
    copied_instead: int = 0  #: where a link or a move was asked for, and could not be
    set_aside: int = 0  #: older versions of pictures, in the folder ``replaced``
    unplaced: list[Unplaced] = []
    size_bytes: int | None = None  #: of all pictures, before anything is done; None: it was done
    is_estimate: bool = False  #: of their size, from some of them

    def count(self, picture: Picture, placement: Placement | None) -> None:
        """Counts a picture; None: it was placed before."""
        if placement is not None and placement.entry is None:
            name = picture.original or picture.source_ref
            self.unplaced.append(Unplaced(picture=name, reason=placement.problem or ""))
            return
        self.piles[picture.pile] = self.piles.get(picture.pile, 0) + 1
        if placement is None or not (placement.new or placement.over or placement.by_hand):
            self.already_there += 1
        if placement is not None:
            self.new += placement.new
            self.moved_over += placement.over
            self.put_by_hand += placement.by_hand
            self.copied_instead += placement.instead
            self.set_aside += len(placement.replaced)


def audited_band(record: JobRecord) -> Band:
    """Returns the band that the audit of a job proposes. Raises UserError where there is none."""
    uri = f"{record.folder.uri}/audit/estimate.json"
    body = record.storage.find(uri, max_bytes=_MAX_JSON_BYTES)
    name = record.folder.job_id
    if body is None:
        raise UserError(f"{name} has no audit. Run '{program()} batch audit {name}', or name a band: --unsure 0.3:0.7.")
    try:
        found = json.loads(body).get("unsure")
        band = _BAND.validate_python(tuple(found) if isinstance(found, list) else found)
    except (ValueError, ValidationError, AttributeError):
        unknown = f"{uri} is not what 'batch audit' wrote. To write it again:"
        raise UserError(with_command(unknown, f"batch audit {name}")) from None
    if band is None:
        raise UserError(f"The audit of {name} proposes no band. Leave out --unsure, or name one: --unsure 0.3:0.7.")
    return band


def read_piles(results: Results, *, band: Band | None, by_label: bool, advance: Advance) -> Piles:
    """Reads all rows of a job. Raises UserError where some are missing, or the list of its images has expired."""
    job = results.job
    if job.parent is not None:
        redrive = f"{job.job_id} is a redrive of {job.parent}. To sort the pictures of both:"
        raise UserError(with_command(redrive, f"batch sort {job.parent}"))
    results.check_complete(for_redrive=True)
    has_list = job.shards is not None and results.record.has_shards()
    if job.columns and not has_list:
        raise UserError(
            f"The list of {job.job_id} has expired, and with it the names of its images. Submit them as another job."
        )
    piles = Piles(job, band=band, by_label=by_label)
    for chunk in results.chunks(join=has_list):
        piles.add(chunk)
        advance(len(chunk))
    return piles


def estimate(piles: Piles, objects: S3Objects, found: SortedPiles) -> SortedPiles:
    """Returns how many pictures belong into each pile, and how large they are. Nothing is done."""
    readable = [picture for picture in piles.pictures if not picture.unread]
    step = max(1, len(readable) // _SAMPLE)
    sample = readable[::step]

    def size(picture: Picture) -> int:
        return objects.size(picture.source_ref, version_id=picture.version_id)

    with ThreadPoolExecutor(_ASKERS) as pool:
        total = sum(pool.map(size, sample))
    size_bytes = round(total * len(readable) / max(1, len(sample)))
    return found.model_copy(update={"piles": piles.counts(), "size_bytes": size_bytes, "is_estimate": step > 1})


def sort_pictures(
    pictures: Sequence[Picture], placer: Placer, known: PileList, found: SortedPiles, advance: Advance
) -> None:
    """Puts every picture into its pile. ``found`` counts them.

    What goes wrong with one picture is counted with its reason, and the rest goes on. Raises UserError where nothing
    can go on: run it again.
    """
    known.begin()
    waiting = iter(pictures)
    with ThreadPoolExecutor(placer.threads) as pool:
        while batch := list(islice(waiting, _BATCH)):
            todo = [(one, _copy(known.get(one.key))) for one in batch if not _is_done(one, placer, known)]
            left = {id(picture) for picture, _ in todo}
            for picture in batch:
                if id(picture) not in left:
                    found.count(picture, None)
            if todo:
                intents = list(pool.map(placer.intent, (picture for picture, _ in todo)))
                known.intend(intents)
                placer.intended()
                placements = list(pool.map(lambda task: placer.place(*task), _tasks(todo, intents)))
                placer.finish(placements)
                for (picture, before), intent, placement in zip(todo, intents, placements, strict=True):
                    found.count(picture, placement)
                    if placement.entry is not None:
                        known.settle(placement.entry)
                    elif before is None:  # it is in no pile, whatever has its name there
                        known.settle(replace(intent, state=State.REMOVED))
            advance(len(batch))
    known.finish()


def _tasks(
    todo: list[tuple[Picture, Known | None]], intents: list[Entry]
) -> Iterator[tuple[Picture, Entry, Known | None]]:
    return ((picture, intent, before) for (picture, before), intent in zip(todo, intents, strict=True))


def _copy(known: Known | None) -> Known | None:
    """Returns what is known before the intent is added to it."""
    return None if known is None else Known(known.entry, known.files)


def _is_done(picture: Picture, placer: Placer, known: PileList) -> bool:
    there = known.get(picture.key)
    return there is not None and placer.is_done(picture, there)
