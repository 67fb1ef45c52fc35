"""The limits of one image, and budgets of memory that many images share."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

MIB: Final = 1024 * 1024

#: More than most cameras have. As RGBA it is 120 MB.
MAX_PIXELS: Final = 30_000_000
#: JPEG's own limit. Pillow resizes with a table of about 32 bytes per pixel of a side: 30 million would be 1 GB.
MAX_SIDE_PX: Final = 65_535
MAX_BYTES: Final = 32 * MIB


@dataclass(frozen=True)
class ImageLimits:
    """What decoding and scoring one image may take. Over a limit, the image becomes a failed row."""

    cpu_s: float = 10  #: processor time of its process
    wall_s: float = 30  #: on the clock; longer than ``cpu_s``, since other processes need the cores too
    #: What it may allocate: enough for 30 million pixels, or for 25 million in a WebP file, which take twice as much.
    memory_bytes: int = 384 * MIB


class Budget:
    """An amount of memory that threads share. Use it as ``with budget.taken(size_bytes):``.

    What is larger than the whole budget is granted when nothing else is taken, so that it is never refused. Threads are
    served in the order in which they ask.
    """

    def __init__(self, total_bytes: int) -> None:
        self._total = total_bytes
        self._used = 0
        self._turn = threading.Lock()  # held by the thread whose turn it is
        self._change = threading.Condition()

    @contextmanager
    def taken(self, size_bytes: int) -> Iterator[None]:
        """Waits until ``size_bytes`` are free, and takes them for the block."""
        size_bytes = min(size_bytes, self._total)
        with self._turn, self._change:
            self._change.wait_for(lambda: self._used + size_bytes <= self._total)
            self._used += size_bytes
        try:
            yield
        finally:
            self.give_back(size_bytes)

    def try_take(self, size_bytes: int) -> bool:
        """Takes ``size_bytes`` if they are free now, and returns whether they were. Call ``give_back`` later."""
        with self._change:
            if self._used + size_bytes > self._total:
                return False
            self._used += size_bytes
            return True

    def give_back(self, size_bytes: int) -> None:
        """Frees what ``try_take`` has taken."""
        with self._change:
            self._used -= size_bytes
            self._change.notify_all()
