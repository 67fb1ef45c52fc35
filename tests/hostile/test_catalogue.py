"""Every entry of the catalogue becomes what its line says. The slow tests send the bombs."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.conftest import REPOSITORY, Bench, Once
from tests.hostile.__main__ import app
from tests.hostile.catalogue import BOMB, CATALOGUE, DATASET, ELSEWHERE, MODEL, QUICK, Entry, Kind
from tests.hostile.direct import of_dataset, of_model
from tests.hostile.trial import MEMORY_MB, Became, Room, Trial


def _of(*kinds: Kind) -> pytest.MarkDecorator:
    """The entries of these kinds, one test for each."""
    return pytest.mark.parametrize("entry", [e for e in CATALOGUE if e.kind in kinds], ids=lambda entry: entry.name)


def _check(entry: Entry, became: Became) -> None:
    assert entry.holds(became.steps), f"{entry.name}: promised {entry.becomes!r}, became {became.steps}"


@pytest.fixture
def room(bench_on: Callable[[str], Bench], ministack: str, models: Path) -> Room:
    return Room.of(bench_on(ministack), models)


@pytest.fixture(scope="session")
def became(once: Once, bench_on: Callable[[str], Bench], ministack: str, models: Path) -> dict[str, Became]:
    """What became of the entries that are quick, which one worker answered all at once."""
    entries = [entry for entry in CATALOGUE if entry.kind in QUICK]

    def make(path: Path) -> None:
        with Trial(Room.of(bench_on(ministack), models)) as trial:
            found = trial.of(entries)
        path.write_text(json.dumps({entry.name: asdict(one) for entry, one in zip(entries, found, strict=True)}))

    found = json.loads(once.make("hostile.json", make).read_text())
    return {name: Became(**one | {"steps": tuple(one["steps"])}) for name, one in found.items()}


def test_every_entry_has_a_name_of_its_own() -> None:
    """Objects and jobs are named after it."""
    assert len({entry.slug.lower() for entry in CATALOGUE}) == len(CATALOGUE)


@pytest.mark.parametrize(
    ("becomes", "steps", "holds"),
    [
        ("scored", ["scored"], True),
        ("scored", ["scored", "scored"], True),
        ("scored", ["scored", "damaged"], False),
        ("scored", [], False),
        ("scored | too_slow", ["too_slow", "scored"], True),
        ("scored, not_found", ["scored", "not_found"], True),
        ("scored, not_found", ["not_found", "scored"], False),
        ("scored, not_found", ["scored"], False),
        ("refused: a bomb", ["refused: it is a bomb"], True),
        ("refused: a bomb", ["refused: damaged"], False),
        ("kept", ["refused: not kept"], False),
    ],
)
def test_a_promise_is_for_each_image_or_for_all(becomes: str, steps: list[str], *, holds: bool) -> None:
    """In order, with alternatives, and with some words of a refusal."""
    assert Entry("x", Kind.IMAGE, bytes, becomes, "").holds(steps) is holds


def test_the_table_is_printed() -> None:
    """Every entry, and as JSON for programs."""
    table, found = (CliRunner().invoke(app, arguments).stdout for arguments in ([], ["--json"]))
    assert [line["name"] for line in json.loads(found)] == [entry.name for entry in CATALOGUE]
    assert all(entry.name in table for entry in CATALOGUE)


@_of(*QUICK)
def test_an_input_becomes_what_the_catalogue_says(entry: Entry, became: dict[str, Became]) -> None:
    """All of them at once, and the sound image among them is scored."""
    _check(entry, became[entry.name])


def test_all_of_them_at_once_stay_within_the_memory_of_a_worker(became: dict[str, Became]) -> None:
    """That of its children included."""
    assert max(one.peak_mb for one in became.values()) < MEMORY_MB


@_of(MODEL)
def test_a_model_that_is_not_the_one_trained_is_refused(entry: Entry, bundle: Path, tmp_path: Path) -> None:
    """The message names the file."""
    _check(entry, of_model(entry, bundle, tmp_path))


@_of(DATASET)
def test_a_hostile_dataset_is_refused_or_read_in_part(entry: Entry, tmp_path: Path) -> None:
    """Nothing is written outside the cache."""
    _check(entry, of_dataset(entry, tmp_path))


@pytest.mark.slow
@_of(BOMB)
def test_a_bomb_costs_a_row_and_neither_the_worker_nor_its_neighbour(entry: Entry, room: Room) -> None:
    """Within its time, and within the worker's memory."""
    with Trial(room) as trial:
        (became,) = trial.of([entry])
    _check(entry, became)
    assert became.peak_mb < MEMORY_MB


@_of(ELSEWHERE)
def test_what_no_emulator_shows_has_a_test_of_its_own(entry: Entry) -> None:
    """The note names it."""
    file, _, name = entry.note.partition("::")
    assert f"def {name}(" in (REPOSITORY / file).read_text()
