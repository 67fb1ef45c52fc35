"""The champion pointer and its history: one winner a step, nothing forgotten, whatever dies in between."""

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


def _crown(champions: Champions, *versions: str) -> None:
    for version in versions:
        seen = champions.current()
        assert champions.crown(version, seen=seen, how="promoted" if seen else "first")


def _versions(champions: Champions) -> list[str]:
    return [record.version for record in champions.history()]


def _go_back(champions: Champions) -> str | None:
    seen = champions.current()
    assert seen
    target = champions.before(seen.reign)
    if target is None:
        return None
    assert champions.crown(target.version, seen=seen, how="rolled back", restores=target)
    return target.version


def test_the_history_tells_of_every_champion_the_current_one_first(store: Store) -> None:
    """And the pointer is what workers of any age read: no field more than they know."""
    champions = Champions(store, "pets")
    assert champions.current() is None
    assert champions.history() == []
    _crown(champions, "v1", "v2", "v3")
    pointer = ChampionPointer.model_validate_json(store.read("pets/champion.json") or b"")
    assert (pointer.name, pointer.version) == ("pets", "v3")
    history = champions.history()
    assert [(record.version, record.how) for record in history] == [
        ("v3", "promoted"),
        ("v2", "promoted"),
        ("v1", "first"),
    ]
    assert history[0].promoted_at == pointer.promoted_at
    assert history[0].replaced == history[1].reign


def test_of_eight_racers_one_wins_each_step_and_none_is_forgotten(store: Store) -> None:
    """Each tries until it has been the champion once: nine steps, each on top of the one before."""
    champions = Champions(store, "pets")
    _crown(champions, "v0")

    def race(number: int) -> int:
        for lost in range(100):
            seen = champions.current()
            if champions.crown(f"v{number}", seen=seen, how="promoted"):
                return lost
        raise AssertionError("never won")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(race, range(1, 9)))
    history = champions.history()
    assert sorted(record.version for record in history) == [f"v{number}" for number in range(9)]
    assert [record.replaced for record in history] == [*(record.reign for record in history[1:]), None]


def test_of_eight_that_saw_the_same_champion_exactly_one_replaces_it(store: Store) -> None:
    """The others are told, and the history knows nothing of them."""
    champions = Champions(store, "pets")
    for steps in range(2):  # the first champion of all, and one that replaces another
        seen = champions.current()
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda i, s=seen: champions.crown(f"r{i}", seen=s, how="promoted"), range(8)))
        assert won.count(True) == 1
        assert _versions(champions)[0] == f"r{won.index(True)}"
        assert len(champions.history()) == steps + 1


def test_going_back_twice_goes_back_two_and_no_further_than_the_first(store: Store) -> None:
    """And from a champion that was promoted after a rollback, to what the rollback had restored."""
    champions = Champions(store, "pets")
    _crown(champions, "v1", "v2", "v3")
    assert [_go_back(champions) for _ in range(3)] == ["v2", "v1", None]
    _crown(champions, "v4")
    assert [_go_back(champions) for _ in range(2)] == ["v1", None]
    assert _versions(champions) == ["v1", "v4", "v1", "v2", "v3", "v2", "v1"]


def test_a_champion_of_an_older_version_has_no_record_and_is_a_champion_all_the_same(store: Store) -> None:
    """The history begins with it; there is nothing before it to go back to."""
    pointer = '{"schema_version": 1, "name": "pets", "version": "v1", "promoted_at": "2026-11-23T10:00:00Z"}'
    store.write("pets/champion.json", pointer.encode())
    champions = Champions(store, "pets")
    assert [(record.version, record.how) for record in champions.history()] == [("v1", "not recorded")]
    assert _go_back(champions) is None
    _crown(champions, "v2")
    assert _go_back(champions) == "v1"


class _LostAnswer(FolderStore):
    """A store whose answer to a write got lost: the second try finds the first one's file, and is refused."""

    def replace(self, name: str, body: bytes, *, seen: bytes) -> bool:
        super().replace(name, body, seen=seen)
        return super().replace(name, body, seen=seen)


def test_a_lost_answer_to_our_own_write_is_no_lost_race(tmp_path: Path) -> None:
    """The pointer says that it is ours."""
    champions = Champions(_LostAnswer(tmp_path), "pets")
    _crown(champions, "v1", "v2", "v3")
    assert _versions(champions) == ["v3", "v2", "v1"]


@pytest.mark.parametrize("spoiled", [b"", b"{", b"{}", b"\xff", b"[1]"])
def test_a_record_that_cannot_be_read_ends_the_history_and_nothing_else(tmp_path: Path, spoiled: bytes) -> None:
    """What is in use is still known, and still can be replaced."""
    store = FolderStore(tmp_path)
    champions = Champions(store, "pets")
    _crown(champions, "v1", "v2")
    store.write(next(name for name in store.names("pets/_history/") if "-v2" in name), spoiled)
    assert [(record.version, record.how) for record in champions.history()] == [("v2", "not recorded")]
    _crown(champions, "v3")
    assert _go_back(champions) == "v2"


def test_a_history_that_bites_its_own_tail_ends(tmp_path: Path) -> None:
    """However it came to be so: nobody waits for ever."""
    store = FolderStore(tmp_path)
    champions = Champions(store, "pets")
    _crown(champions, "v1")
    own = champions.history()[0]
    (name,) = store.names("pets/_history/")
    store.write(name, own.model_copy(update={"replaced": own.reign, "restores": own.reign}).model_dump_json().encode())
    assert _versions(champions) == ["v1"]
    assert champions.before(own.reign) == own.reign


def test_a_pointer_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """It is not taken for a model without a champion, which anybody could replace."""
    store = FolderStore(tmp_path)
    store.write("pets/champion.json", b"{}")
    with pytest.raises(UserError, match=r"pets/champion\.json is no pointer"):
        Champions(store, "pets").current()


class _Dying(FolderStore):
    """A store under a process that dies at its second write: the first is done, and nothing after it."""

    def replace(self, name: str, body: bytes, *, seen: bytes) -> bool:
        raise KeyboardInterrupt(name, body, seen)


def test_what_dies_before_the_pointer_moves_changed_nothing(tmp_path: Path) -> None:
    """Its record is there and belongs to nobody: neither the history nor a rollback knows of it."""
    champions = Champions(FolderStore(tmp_path), "pets")
    _crown(champions, "v1", "v2")
    before = champions.history()
    with pytest.raises(KeyboardInterrupt):
        Champions(_Dying(tmp_path), "pets").crown("v3", seen=champions.current(), how="promoted")
    assert any("v3" in path.name for path in (tmp_path / "pets/_history").iterdir())
    assert champions.history() == before
    assert _go_back(champions) == "v1"


_KILL_NINE = """
import itertools, os, pathlib, signal, sys, time
from jobs.models.champion import Champions
from jobs.store import FolderStore
for kill in range(12):
    champions = Champions(FolderStore(pathlib.Path(sys.argv[1]) / str(kill)), "pets")
    child = os.fork()
    if not child:
        for step in itertools.count():
            champions.crown(f"v{step}", seen=champions.current(), how="promoted")
    while champions.current() is None:
        pass
    time.sleep(0.0007 * kill)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def test_kill_9_in_the_middle_leaves_a_pointer_that_is_whole_and_recorded(tmp_path: Path) -> None:
    """At any instant: the version in use is readable, its record is there, and the next promotion goes on from it."""
    subprocess.run([sys.executable, "-c", _KILL_NINE, str(tmp_path)], cwd=REPOSITORY, check=True)
    folders = list(tmp_path.iterdir())
    assert len(folders) == 12
    for folder in folders:
        champions = Champions(FolderStore(folder), "pets")
        history = champions.history()
        assert {record.how for record in history} == {"promoted"}
        assert history[-1].replaced is None
        _crown(champions, "after")
        assert champions.history()[1:] == history
