"""What was computed once and need not be again: arrays by name, in a folder or a bucket."""

import hashlib
import io
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from jobs.store import Store

Arrays = Mapping[str, NDArray[np.generic]]

#: Of the SHA-256 in front of each file. A zip's own checks are not enough: of some damage numpy makes other arrays.
_DIGEST_BYTES: Final = 32


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
        file = self._store.read(f"{self._prefix}/{name}.arrays")
        if file is None:
            return None
        digest, body = file[:_DIGEST_BYTES], memoryview(file)[_DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != digest:
            return None
        with np.load(io.BytesIO(body), allow_pickle=False) as found:
            return {key: found[key] for key in found.files}

    def put(self, name: str, arrays: Arrays) -> None:
        """Keeps arrays, over whatever lies there under ``name``."""
        body = io.BytesIO()
        np.savez(body, allow_pickle=False, **arrays)
        digest = hashlib.sha256(body.getbuffer()).digest()
        self._store.write(f"{self._prefix}/{name}.arrays", digest + body.getbuffer())

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
