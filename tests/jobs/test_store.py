"""The promises of a store, the same for a folder and for a bucket on each emulator."""

from concurrent.futures import ThreadPoolExecutor

from jobs.store import Store


def test_a_written_file_is_read_back(store: Store) -> None:
    """A write replaces the file. A missing file reads as None, and removing it is not an error."""
    assert store.read("a/b.json") is None
    assert not store.exists("a/b.json")
    store.write("a/b.json", b"one")
    store.write("a/b.json", b"two")
    assert store.read("a/b.json") == b"two"
    assert store.exists("a/b.json")
    store.remove("a/b.json")
    store.remove("a/b.json")
    assert store.read("a/b.json") is None


def test_names_are_listed_below_a_prefix_in_order(store: Store) -> None:
    """Names are complete, as read takes them."""
    for name in ("b/2", "b/1", "a/c/d", "top"):
        store.write(name, b"x")
    assert store.names("") == ["a/c/d", "b/1", "b/2", "top"]
    assert store.names("b/") == ["b/1", "b/2"]
    assert store.names("nothing/") == []


def test_a_file_is_written_once(store: Store) -> None:
    """The second writer gets False, and no temporary file is left."""
    assert store.write_once("a/model.json", b"one")
    assert not store.write_once("a/model.json", b"two")
    assert store.read("a/model.json") == b"one"
    assert store.names("") == ["a/model.json"]


def test_a_file_is_replaced_only_if_it_has_not_changed(store: Store) -> None:
    """Compare and swap: a caller who has seen an older version must decide again."""
    store.write("champion.json", b"v1")
    assert not store.replace("champion.json", b"v3", seen=b"v2")
    assert store.replace("champion.json", b"v2", seen=b"v1")
    assert store.read("champion.json") == b"v2"
    assert not store.replace("missing.json", b"v1", seen=b"v0")


def test_exactly_one_of_several_racing_writers_wins(store: Store) -> None:
    """Whether they create a file or replace it. The winner's bytes stay."""
    with ThreadPoolExecutor(8) as pool:
        for number in range(5):
            name = f"v{number}/champion.json"
            wrote = list(pool.map(lambda i, name=name: store.write_once(name, b"%d" % i), range(8)))
            assert wrote.count(True) == 1
            first = b"%d" % wrote.index(True)
            assert store.read(name) == first
            swapped = list(pool.map(lambda i, n=name, s=first: store.replace(n, b"new %d" % i, seen=s), range(8)))
            assert swapped.count(True) == 1
            assert store.read(name) == b"new %d" % swapped.index(True)
