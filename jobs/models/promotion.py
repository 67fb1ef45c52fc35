"""Which version becomes the champion: what is worse than the one in use is refused, and any can be gone back to.

A decision rests on a champion that was seen, and the pointer moves only if that is still the champion. Of promotions
that race each moves it once, and who was overtaken decides anew, against the new champion.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jobs.models.bundle import Bundle, read_bundle, trained_from
from jobs.models.champion import Champions, How, Seen
from jobs.models.gate import Gate, Refused
from jobs.models.verification import expected_tolerance, score_one
from jobs.progress import Reporter
from jobs.store import Store
from jobs.user_error import UserError
from worker.errors import Reject
from worker.scoring.models import Model

#: Times a promotion decides anew because another was faster; then it says so.
_TRIES: Final = 10


@dataclass(frozen=True)
class Change:
    """What became of a promotion or a rollback; ``moved`` is False where the version is the champion already."""

    name: str
    version: str
    replaced: str | None
    how: How
    moved: bool
    picture_scored: bool  #: whether the model was tried on a real picture too, and not on a blank one alone
    comparison: dict[str, Any] | None = None


def promote(store: Store, name: str, version: str, gate: Gate) -> Change:
    """Makes a version the champion, if it is whole, opens, scores as it should, and passes the gate.

    Raises Refused, or UserError where it cannot even be read.
    """
    challenger = read_bundle(store, name, version, gate.reporter)
    picture_scored = _try_out(challenger, gate.data)
    champions = Champions(store, name)
    for _ in range(_TRIES):
        seen = champions.current()
        change = _decide(store, challenger, seen, gate, picture_scored=picture_scored)
        if not change.moved or champions.crown(version, seen=seen, how=change.how, comparison=change.comparison):
            return change
        gate.reporter.say("  Another promotion was faster: deciding anew.")
    raise Refused(f"{_TRIES} other promotions were faster, one after the other: try again.")


def rollback(store: Store, name: str, reporter: Reporter) -> Change:
    """Goes back to the champion before this one; again, to the one before that. Raises Refused."""
    champions = Champions(store, name)
    seen = champions.current()
    if seen is None:
        raise Refused(f"{store.uri}/{name} has no champion to go back from.")
    target = champions.before(seen.reign)
    if target is None:
        raise Refused(
            f"There is no record of a champion before {seen.reign.version}. "
            f"To choose one: twofold model promote {store.uri}/{name}/<version> --force"
        )
    try:
        picture_scored = _try_out(read_bundle(store, name, target.version, reporter), None)
    except UserError as error:
        raise Refused(
            f"The champion before {seen.reign.version} was {target.version}, which cannot be gone back to. {error} "
            f"To choose one: twofold model promote {store.uri}/{name}/<version> --force"
        ) from error
    # Not decided anew when another was faster: that would go back from what somebody has just chosen.
    if not champions.crown(target.version, seen=seen, how="rolled back", restores=target):
        raise Refused(f"Somebody else changed the champion of {name} meanwhile: look at it, and try again.")
    return Change(name, target.version, seen.reign.version, "rolled back", moved=True, picture_scored=picture_scored)


def _decide(store: Store, challenger: Bundle, seen: Seen | None, gate: Gate, *, picture_scored: bool) -> Change:
    name, version = challenger.manifest.name, challenger.manifest.version
    if seen is None:
        return Change(name, version, None, "first", moved=True, picture_scored=picture_scored)
    replaced = seen.reign.version
    if replaced == version:
        return Change(name, version, replaced, "promoted", moved=False, picture_scored=picture_scored)
    comparison, objection = None, None
    try:
        champion = read_bundle(store, name, replaced, gate.reporter, only=gate.needs)
    except UserError as error:
        objection = f"the champion cannot be read. {error} --force promotes without a comparison."
    else:
        judgement = gate.judge(challenger, champion)
        comparison, objection = judgement.comparison, judgement.objection
    if objection is not None and not gate.force:
        raise Refused(f"{version} does not replace {replaced}: {objection}", comparison)
    how: How = "forced" if objection is not None else "promoted"
    return Change(name, version, replaced, how, moved=True, picture_scored=picture_scored, comparison=comparison)


def _try_out(bundle: Bundle, data: Path | None) -> bool:
    """Raises Refused unless the bundle is whole, opens as in a worker, and scores a picture as it says.

    True where a real picture was at hand.
    """
    if bundle.findings:
        told = "; ".join(f"{finding.file}: {finding.problem}" for finding in bundle.findings)
        raise Refused(f"{bundle.uri} is not what was trained: {told}.")
    try:
        model = bundle.open()
    except Reject as error:
        raise Refused(f"A worker could not open it. {error.message}") from error
    folder = data or trained_from(bundle.manifest)
    return folder is not None and _scores_as_written(bundle, model, folder)


def _scores_as_written(bundle: Bundle, model: Model, folder: Path) -> bool:
    try:
        found = score_one(model, bundle.images(), folder)
    except Reject:  # of a version that did not tell the truth: the gate has its own word on that
        return False
    if found is None:
        return False
    image, score = found
    if not abs(score - (image.score or 0.0)) <= expected_tolerance(bundle.manifest):
        raise Refused(
            f"{image.source_ref} scores {score:.9g} here, and {image.score:.9g} when {bundle.manifest.version} was "
            f"trained. To see more: twofold model verify {bundle.uri}"
        )
    return True
