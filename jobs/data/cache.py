"""A cache of arrays: results by name, in a folder or a bucket, so that nothing is computed twice."""

import hashlib
import io
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from jobs.store import Store

Arrays = Mapping[str, NDArray[np.generic]]

#: The SHA-256 at the start of each file. The checksums in a zip are not enough: after some kinds of damage, numpy
#: reads other arrays without an error.
_DIGEST_BYTES: Final = 32


class ArrayCache:
    """A prefix of a store. Each entry is complete: a damaged file counts as missing."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._prefix = prefix.rstrip("/")

    def at(self, name: str) -> "ArrayCache":
        """Returns the cache at ``name`` below this one."""
        return ArrayCache(self._store, f"{self._prefix}/{name}")

    def get(self, name: str) -> dict[str, NDArray[np.generic]] | None:
        """Returns the arrays stored under ``name``, or None."""
        file = self._store.read(f"{self._prefix}/{name}.arrays")
        if file is None:
            return None
        digest, body = file[:_DIGEST_BYTES], memoryview(file)[_DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != digest:
            return None
        with np.load(io.BytesIO(body), allow_pickle=False) as found:
            return {key: found[key] for key in found.files}

    def put(self, name: str, arrays: Arrays) -> None:
        """Stores arrays under ``name``, replacing any that are there."""
        body = io.BytesIO()
        np.savez(body, allow_pickle=False, **arrays)
        digest = hashlib.sha256(body.getbuffer()).digest()
        self._store.write(f"{self._prefix}/{name}.arrays", digest + body.getbuffer())

    def get_bytes(self, name: str) -> bytes | None:
        """Returns the bytes stored under ``name``, or None."""
        found = self.get(name)
        return None if found is None else found["bytes"].tobytes()

    def put_bytes(self, name: str, body: bytes) -> None:
        """Stores bytes under ``name``. They are later read in full or not at all."""
        self.put(name, {"bytes": np.frombuffer(body, np.uint8)})

    def clear(self) -> None:
        """Removes every entry, those of the caches below included."""
        for name in self._store.names(f"{self._prefix}/"):
            self._store.remove(name)
