"""The champion pointer and its history: one winner per step, and nothing is lost, whatever dies in between."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobs.models.champion import Champions
from jobs.store import FolderStore, Store
from jobs.user_error import UserError
from tests.conftest import REPOSITORY
from worker.contract import ChampionPointer


def _promote(champions: Champions, *versions: str) -> None:
    for version in versions:
        current = champions.current()
        assert champions.set_champion(version, expected=current, how="promoted" if current else "first")


def _versions(champions: Champions) -> list[str]:
    return [record.version for record in champions.history()]


def _roll_back(champions: Champions) -> str | None:
    current = champions.current()
    assert current
    target = champions.before(current.tenure)
    if target is None:
        return None
    assert champions.set_champion(target.version, expected=current, how="rolled back", restores=target)
    return target.version


def test_the_history_lists_every_champion_with_the_current_one_first(store: Store) -> None:
    """The pointer holds only the fields that workers of any age know."""
    champions = Champions(store, "pets")
    assert champions.current() is None
    assert champions.history() == []
    _promote(champions, "v1", "v2", "v3")
    pointer = ChampionPointer.model_validate_json(store.read("pets/champion.json") or b"")
    assert (pointer.name, pointer.version) == ("pets", "v3")
    history = champions.history()
    assert [(record.version, record.how) for record in history] == [
        ("v3", "promoted"),
        ("v2", "promoted"),
        ("v1", "first"),
    ]
    assert history[0].promoted_at == pointer.promoted_at
    assert history[0].replaced == history[1].tenure


def test_of_eight_racing_promotions_each_wins_one_step(store: Store) -> None:
    """Each retries until it has been the champion once: nine steps, each on top of the previous one."""
    champions = Champions(store, "pets")
    _promote(champions, "v0")

    def race(number: int) -> int:
        for lost in range(100):
            current = champions.current()
            if champions.set_champion(f"v{number}", expected=current, how="promoted"):
                return lost
        raise AssertionError("never won")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(race, range(1, 9)))
    history = champions.history()
    assert sorted(record.version for record in history) == [f"v{number}" for number in range(9)]
    assert [record.replaced for record in history] == [*(record.tenure for record in history[1:]), None]


def test_of_eight_that_read_the_same_champion_exactly_one_replaces_it(store: Store) -> None:
    """The others get False, and leave no trace in the history."""
    champions = Champions(store, "pets")
    for steps in range(2):  # first with no champion, then with one to replace
        current = champions.current()
        with ThreadPoolExecutor(8) as pool:
            attempts = pool.map(
                lambda i, c=current: champions.set_champion(f"r{i}", expected=c, how="promoted"), range(8)
            )
            won = list(attempts)
        assert won.count(True) == 1
        assert _versions(champions)[0] == f"r{won.index(True)}"
        assert len(champions.history()) == steps + 1


def test_two_rollbacks_go_back_two_steps_and_never_past_the_first_champion(store: Store) -> None:
    """A champion promoted after a rollback rolls back to what that rollback had restored."""
    champions = Champions(store, "pets")
    _promote(champions, "v1", "v2", "v3")
    assert [_roll_back(champions) for _ in range(3)] == ["v2", "v1", None]
    _promote(champions, "v4")
    assert [_roll_back(champions) for _ in range(2)] == ["v1", None]
    assert _versions(champions) == ["v1", "v4", "v1", "v2", "v3", "v2", "v1"]


def test_a_champion_without_a_record_begins_the_history(store: Store) -> None:
    """Older releases kept no records. There is nothing before such a champion to roll back to."""
    pointer = '{"schema_version": 1, "name": "pets", "version": "v1", "promoted_at": "2026-11-23T10:00:00Z"}'
    store.write("pets/champion.json", pointer.encode())
    champions = Champions(store, "pets")
    assert [(record.version, record.how) for record in champions.history()] == [("v1", "not recorded")]
    assert _roll_back(champions) is None
    _promote(champions, "v2")
    assert _roll_back(champions) == "v1"


class _LostAnswer(FolderStore):
    """A store that loses the response to a write: the retry finds the file of the first attempt and is refused."""

    def replace(self, name: str, body: bytes, *, seen: bytes) -> bool:
        super().replace(name, body, seen=seen)
        return super().replace(name, body, seen=seen)


def test_a_lost_response_is_not_a_lost_race(tmp_path: Path) -> None:
    """The pointer holds our own write."""
    champions = Champions(_LostAnswer(tmp_path), "pets")
    _promote(champions, "v1", "v2", "v3")
    assert _versions(champions) == ["v3", "v2", "v1"]


@pytest.mark.parametrize(
    "spoiled",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="truncated"),
        pytest.param(b"{}", id="without fields"),
        pytest.param(b"\xff", id="not UTF-8"),
        pytest.param(b"[1]", id="a list"),
    ],
)
def test_an_unreadable_record_only_ends_the_history(tmp_path: Path, spoiled: bytes) -> None:
    """The champion is still known and can still be replaced."""
    store = FolderStore(tmp_path)
    champions = Champions(store, "pets")
    _promote(champions, "v1", "v2")
    store.write(next(name for name in store.names("pets/_history/") if "-v2" in name), spoiled)
    assert [(record.version, record.how) for record in champions.history()] == [("v2", "not recorded")]
    _promote(champions, "v3")
    assert _roll_back(champions) == "v2"


def test_a_circular_history_ends(tmp_path: Path) -> None:
    """However the circle arose, reading it never loops."""
    store = FolderStore(tmp_path)
    champions = Champions(store, "pets")
    _promote(champions, "v1")
    own = champions.history()[0]
    (name,) = store.names("pets/_history/")
    store.write(
        name, own.model_copy(update={"replaced": own.tenure, "restores": own.tenure}).model_dump_json().encode()
    )
    assert _versions(champions) == ["v1"]
    assert champions.before(own.tenure) == own.tenure


def test_an_unreadable_pointer_is_an_error_that_names_it(tmp_path: Path) -> None:
    """It is not mistaken for a model without a champion, which any promotion could replace."""
    store = FolderStore(tmp_path)
    store.write("pets/champion.json", b"{}")
    with pytest.raises(UserError, match=r"pets/champion\.json is not a champion pointer"):
        Champions(store, "pets").current()


class _Dying(FolderStore):
    """The store of a process that dies before the pointer moves: only the record is written."""

    def replace(self, name: str, body: bytes, *, seen: bytes) -> bool:
        raise KeyboardInterrupt(name, body, seen)


def test_a_promotion_that_dies_before_the_pointer_moves_changes_nothing(tmp_path: Path) -> None:
    """Its record is left behind, but neither the history nor a rollback ever reaches it."""
    champions = Champions(FolderStore(tmp_path), "pets")
    _promote(champions, "v1", "v2")
    before = champions.history()
    with pytest.raises(KeyboardInterrupt):
        Champions(_Dying(tmp_path), "pets").set_champion("v3", expected=champions.current(), how="promoted")
    assert any("v3" in path.name for path in (tmp_path / "pets/_history").iterdir())
    assert champions.history() == before
    assert _roll_back(champions) == "v1"


_KILL_NINE = """
import itertools, os, pathlib, signal, sys, time
from jobs.models.champion import Champions
from jobs.store import FolderStore
for kill in range(12):
    champions = Champions(FolderStore(pathlib.Path(sys.argv[1]) / str(kill)), "pets")
    child = os.fork()
    if not child:
        for step in itertools.count():
            champions.set_champion(f"v{step}", expected=champions.current(), how="promoted")
    while champions.current() is None:
        pass
    time.sleep(0.0007 * kill)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def test_kill_9_leaves_an_intact_pointer_with_its_record(tmp_path: Path) -> None:
    """At any instant the champion is readable, its record exists, and the next promotion continues from it."""
    subprocess.run([sys.executable, "-c", _KILL_NINE, str(tmp_path)], cwd=REPOSITORY, check=True)
    folders = list(tmp_path.iterdir())
    assert len(folders) == 12
    for folder in folders:
        champions = Champions(FolderStore(folder), "pets")
        history = champions.history()
        assert {record.how for record in history} == {"promoted"}
        assert history[-1].replaced is None
        _promote(champions, "after")
        assert champions.history()[1:] == history
