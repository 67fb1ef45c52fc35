"""Arrays that come back as they were put, or not at all."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jobs.data.cache import Arrays, Shelf
from jobs.store import FolderStore, Store


class _Memory(FolderStore):
    """A store of one process, for many examples a second."""

    def __init__(self) -> None:
        super().__init__(Path("nowhere"))
        self.files: dict[str, bytes] = {}

    def read(self, name: str) -> bytes | None:
        return self.files.get(name)

    def write(self, name: str, body: bytes) -> None:
        self.files[name] = body


def test_what_is_put_comes_back(store: Store) -> None:
    """Values, shapes and types; and a shelf below is another place."""
    shelf = Shelf(store, "features")
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    arrays: Arrays = {"values": values, "none": np.empty(0), "count": np.array(7)}
    shelf.put("a", arrays)
    found = shelf.get("a")
    assert found is not None
    assert {name: (array.tolist(), array.dtype) for name, array in found.items()} == {
        name: (array.tolist(), array.dtype) for name, array in arrays.items()
    }
    assert shelf.at("below").get("a") is None
    assert shelf.get("b") is None


def test_a_cleared_shelf_leaves_nothing_and_takes_nothing_else_along(store: Store) -> None:
    """A name that merely begins the same is another's."""
    for prefix in ("jobs/1", "jobs/12"):
        Shelf(store, prefix).at("deep/er").put_bytes("file", b"x")
    Shelf(store, "jobs/1").clear()
    assert store.names("") == ["jobs/12/deep/er/file.arrays"]


def test_a_cleared_folder_is_gone(tmp_path: Path) -> None:
    """No empty folders stay."""
    shelf = Shelf(FolderStore(tmp_path), "jobs/1")
    shelf.at("deep").put_bytes("file", b"x")
    shelf.put_bytes("file", b"")
    shelf.clear()
    assert list(tmp_path.iterdir()) == []


@given(st.data())
def test_a_damaged_file_counts_as_not_there(data: st.DataObject) -> None:
    """Cut anywhere, or changed in any byte: never an error, and never other arrays."""
    store = _Memory()
    shelf = Shelf(store, "s")
    shelf.put("a", {"values": np.arange(20.0), "left_out": np.frombuffer(b"[]", np.uint8)})
    ((name, body),) = store.files.items()
    place = data.draw(st.integers(0, len(body) - 1))
    if data.draw(st.booleans()):
        store.files[name] = body[:place]
    else:
        changed = body[place] ^ data.draw(st.integers(1, 255))
        store.files[name] = body[:place] + bytes([changed]) + body[place + 1 :]
    assert shelf.get("a") is None
