"""Keeps models on the disk of this machine, by their digest.

Lambda starts a function's process anew after a crash or a time-out, and leaves its ``/tmp`` as it was; a container that
is started again may have a volume. What is found there is compared with its digest: a file is never trusted.
"""

import hashlib
import logging
import os
import tempfile
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

#: Lambda gives 512 MB of /tmp: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
_MAX_BYTES: Final = 256 * 1024 * 1024


class Cache:
    """A folder of files named by their SHA-256. A cache that cannot be read or written is slow, not an error."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, sha256: str) -> bytes | None:
        """The file with that digest, if it is there and still has it."""
        try:
            body = (self._folder / sha256).read_bytes()
        except OSError:
            return None
        if hashlib.sha256(body).hexdigest() != sha256:
            log.warning("cache: %s is damaged, and is read anew", sha256)
            return None
        return body

    def put(self, sha256: str, body: bytes) -> None:
        """Keeps a file, and lets go of the oldest where there are too many bytes."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, draft = tempfile.mkstemp(dir=self._folder, prefix=".")
            with os.fdopen(handle, "wb") as file:
                file.write(body)
            Path(draft).replace(self._folder / sha256)
            self._tidy()
        except OSError as error:
            log.warning("cache: not kept, %s", error)

    def _tidy(self) -> None:
        kept = 0
        for path in sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True):
            kept += path.stat().st_size
            if kept > _MAX_BYTES:
                path.unlink()
