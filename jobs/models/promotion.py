"""Promotion and rollback: which version becomes the champion.

A version that is worse than the champion is refused, and a champion can always be rolled back. Each decision rests on
the champion that was read, and the pointer moves only if that is still the champion. When promotions race, each one
moves the pointer once, and one that was overtaken decides again, against the new champion.
"""

from dataclasses import dataclass
from typing import Any, Final

from jobs.models.bundle import Bundle, ImagePlaces, read_bundle, trained_from
from jobs.models.champion import Champions, CurrentChampion, How
from jobs.models.gate import Gate, PromotionRefused, without_comparison
from jobs.models.location import versions_of
from jobs.models.verification import expected_tolerance, score_one
from jobs.progress import Reporter
from jobs.store import Store
from jobs.user_error import UserError
from jobs.wording import program
from worker.errors import Reject
from worker.scoring.models import Model

#: How often a promotion decides again because another one was faster, before it gives up.
_TRIES: Final = 10


@dataclass(frozen=True)
class Change:
    """The result of a promotion or a rollback; ``moved`` is False if the version was the champion already."""

    name: str
    version: str
    replaced: str | None
    how: How
    moved: bool
    picture_scored: bool  #: whether the model was also tried on a real image, and not only on a blank one
    comparison: dict[str, Any] | None = None


def promote(store: Store, name: str, version: str, gate: Gate) -> Change:
    """Makes a version the champion if it is intact, opens, scores as it should, and passes the gate.

    Raises PromotionRefused, or UserError if the version cannot be read at all.
    """
    challenger = read_bundle(store, name, version, gate.reporter)
    picture_scored = _try_out(challenger, gate.data)
    champions = Champions(store, name)
    for _ in range(_TRIES):
        current = champions.current()
        change = _decide(store, challenger, current, gate, picture_scored=picture_scored)
        if not change.moved or champions.set_champion(
            version, expected=current, how=change.how, comparison=change.comparison
        ):
            return change
        gate.reporter.say("  Another promotion was faster: deciding again.")
    raise PromotionRefused(f"{_TRIES} other promotions were faster, one after the other. Try again.")


def rollback(store: Store, name: str, reporter: Reporter) -> Change:
    """Goes back to the previous champion; a second rollback, to the one before that. Raises PromotionRefused."""
    champions = Champions(store, name)
    current = champions.current()
    if current is None:
        raise PromotionRefused(f"{store.uri}/{name} has no champion to roll back.")
    by_force = f"Run '{program()} model promote {store.uri}/{name}/VERSION --force' to choose one."
    target = champions.before(current.tenure)
    if target is None and versions_of(store, name) == [current.tenure.version]:
        raise PromotionRefused(f"{current.tenure.version} is the only version of {name}: there is none to go back to.")
    if target is None:
        raise PromotionRefused(f"No champion is on record before {current.tenure.version}. {by_force}")
    try:
        picture_scored = _try_out(read_bundle(store, name, target.version, reporter), None)
    except UserError as error:
        raise PromotionRefused(
            f"The champion before {current.tenure.version} was {target.version}, which is unusable. {error} {by_force}"
        ) from error
    # A rollback that was overtaken does not decide again: that would undo another user's choice.
    if not champions.set_champion(target.version, expected=current, how="rolled back", restores=target):
        raise PromotionRefused(f"The champion of {name} was changed in the meantime. Check it, and try again.")
    return Change(
        name, target.version, current.tenure.version, "rolled back", moved=True, picture_scored=picture_scored
    )


def _decide(
    store: Store, challenger: Bundle, current: CurrentChampion | None, gate: Gate, *, picture_scored: bool
) -> Change:
    name, version = challenger.manifest.name, challenger.manifest.version
    if current is None:
        return Change(name, version, None, "first", moved=True, picture_scored=picture_scored)
    replaced = current.tenure.version
    if replaced == version:
        return Change(name, version, replaced, "promoted", moved=False, picture_scored=picture_scored)
    comparison, objection = None, None
    try:
        champion = read_bundle(store, name, replaced, gate.reporter, only=gate.needs)
    except UserError as error:
        objection = f"the champion cannot be read. {error} {without_comparison(challenger)}"
    else:
        judgement = gate.judge(challenger, champion)
        comparison, objection = judgement.comparison, judgement.objection
    if objection is not None and not gate.force:
        raise PromotionRefused(f"{version} does not replace {replaced}: {objection}", comparison)
    how: How = "forced" if objection is not None else "promoted"
    return Change(name, version, replaced, how, moved=True, picture_scored=picture_scored, comparison=comparison)


def _try_out(bundle: Bundle, data: ImagePlaces | None) -> bool:
    """Checks that the bundle is intact, opens as in a worker, and scores an image as it did in training.

    Returns whether a real image was available. Raises PromotionRefused.
    """
    if bundle.findings:
        problems = "; ".join(f"{finding.file}: {finding.problem}" for finding in bundle.findings)
        raise PromotionRefused(f"{bundle.uri} is not what training wrote: {problems}.")
    try:
        model = bundle.open()
    except Reject as error:
        raise PromotionRefused(f"A worker could not open the model. {error.message}") from error
    places = data or trained_from(bundle.manifest)
    return places is not None and _scores_as_recorded(bundle, model, places)


def _scores_as_recorded(bundle: Bundle, model: Model, places: ImagePlaces) -> bool:
    try:
        found = score_one(model, bundle.images(), places)
    except Reject:  # a version that did not record the true labels; the gate objects to that by itself
        return False
    if found is None:
        return False
    image, score = found
    if not abs(score - (image.score or 0.0)) <= expected_tolerance(bundle.manifest):
        raise PromotionRefused(
            f"{image.source_ref} scores {score:.9g} here, but {image.score:.9g} when {bundle.manifest.version} was "
            f"trained. Run '{program()} model verify {bundle.uri}' to see every difference."
        )
    return True
