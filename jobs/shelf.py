"""What was computed once and need not be again: arrays by name, in a folder or a bucket."""

import io
import zipfile
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from jobs.store import Store

Arrays = Mapping[str, NDArray[np.generic]]


class Shelf:
    """A place below a store's prefix. What lies there is whole: a file that is damaged counts as not there."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._prefix = prefix.rstrip("/")

    def at(self, name: str) -> "Shelf":
        """A shelf below this one."""
        return Shelf(self._store, f"{self._prefix}/{name}")

    def get(self, name: str) -> dict[str, NDArray[np.generic]] | None:
        """The arrays put there under ``name``, or None."""
        body = self._store.read(f"{self._prefix}/{name}.npz")
        if body is None:
            return None
        try:
            with np.load(io.BytesIO(body), allow_pickle=False) as found:
                return {key: found[key] for key in found.files}  # zip checks each one's CRC
        except (ValueError, OSError, EOFError, zipfile.BadZipFile):
            return None

    def put(self, name: str, arrays: Arrays) -> None:
        """Keeps arrays, over whatever lies there under ``name``."""
        body = io.BytesIO()
        np.savez(body, allow_pickle=False, **arrays)
        self._store.write(f"{self._prefix}/{name}.npz", body.getvalue())

    def get_bytes(self, name: str) -> bytes | None:
        """A file put there, or None."""
        found = self.get(name)
        return None if found is None else found["bytes"].tobytes()

    def put_bytes(self, name: str, body: bytes) -> None:
        """Keeps a file; it comes back whole or not at all."""
        self.put(name, {"bytes": np.frombuffer(body, np.uint8)})

    def clear(self) -> None:
        """Removes everything on it."""
        for name in self._store.names(f"{self._prefix}/"):
            self._store.remove(name)
