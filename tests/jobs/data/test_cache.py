"""Arrays are read as they were stored, or not at all."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jobs.data.cache import ArrayCache, Arrays
from jobs.store import FolderStore, Store


class _Memory(FolderStore):
    """A store in memory, for many examples per second."""

    def __init__(self) -> None:
        super().__init__(Path("nowhere"))
        self.files: dict[str, bytes] = {}

    def read(self, name: str) -> bytes | None:
        return self.files.get(name)

    def write(self, name: str, body: bytes) -> None:
        self.files[name] = body


def test_stored_arrays_are_read_unchanged(store: Store) -> None:
    """Values, shapes and types. A cache below another has its own entries."""
    cache = ArrayCache(store, "features")
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    arrays: Arrays = {"values": values, "none": np.empty(0), "count": np.array(7)}
    cache.put("a", arrays)
    found = cache.get("a")
    assert found is not None
    assert {name: (array.tolist(), array.dtype) for name, array in found.items()} == {
        name: (array.tolist(), array.dtype) for name, array in arrays.items()
    }
    assert cache.at("below").get("a") is None
    assert cache.get("b") is None


def test_clearing_a_cache_removes_all_its_entries_and_no_others(store: Store) -> None:
    """A cache whose name merely begins with the same letters keeps its entries."""
    for prefix in ("jobs/1", "jobs/12"):
        ArrayCache(store, prefix).at("deep/er").put_bytes("file", b"x")
    ArrayCache(store, "jobs/1").clear()
    assert store.names("") == ["jobs/12/deep/er/file.arrays"]


def test_clearing_a_cache_removes_its_folder(tmp_path: Path) -> None:
    """No empty folder is left."""
    cache = ArrayCache(FolderStore(tmp_path), "jobs/1")
    cache.at("deep").put_bytes("file", b"x")
    cache.put_bytes("file", b"")
    cache.clear()
    assert list(tmp_path.iterdir()) == []


@given(st.data())
def test_a_damaged_file_counts_as_missing(data: st.DataObject) -> None:
    """Wherever it is cut or changed, it gives no error and no other arrays."""
    store = _Memory()
    cache = ArrayCache(store, "s")
    cache.put("a", {"values": np.arange(20.0), "left_out": np.frombuffer(b"[]", np.uint8)})
    ((name, body),) = store.files.items()
    place = data.draw(st.integers(0, len(body) - 1))
    if data.draw(st.booleans()):
        store.files[name] = body[:place]
    else:
        changed = body[place] ^ data.draw(st.integers(1, 255))
        store.files[name] = body[:place] + bytes([changed]) + body[place + 1 :]
    assert cache.get("a") is None
