"""A decoder that does to its process what the image says, as a bug in a real decoder would.

``PROGRAM`` runs the template of such children, in the place of ``worker.scoring.template._PROGRAM``.
"""

import json
import os
import signal
import time
from typing import Any

import numpy as np

from worker.scoring import child, decoder

PROGRAM = (
    "import sys; sys.path[:] = sys.argv[2:]; from tests.worker.scoring import cursed; cursed.curse();"
    "from worker.scoring.template import serve; serve(int(sys.argv[1]))"
)

CRASH, ABORT, LEAVE, HANG, SLEEP, BLOAT, LIE, SLANDER, BOAST, STRETCH = (
    f"cursed: {what}".encode()
    for what in ("crash", "abort", "leave", "hang", "sleep", "bloat", "lie", "slander", "boast", "stretch")
)
#: What a child says that an image has taken over.
_LIES = {
    LIE: "not JSON",
    SLANDER: '{"code": "access_denied", "message": ""}',
    BOAST: '{"score": 1.01, "decode_ms": 1.0, "score_ms": 1.0}',
}


def curse() -> None:
    """Makes children obey."""
    decode, thumbnail = decoder.decode, decoder.thumbnail

    def obeying(data: bytes, **options: Any) -> Any:
        _obey(data)
        return decode(data, **options)

    def stretching(data: bytes, **options: Any) -> Any:
        _obey(data)
        return np.zeros((2, 5000, 3), np.uint8) if data == STRETCH else thumbnail(data, **options)

    vars(child)["decode"], vars(child)["thumbnail"] = obeying, stretching


def _obey(data: bytes) -> None:
    if data == CRASH:
        os.kill(os.getpid(), signal.SIGSEGV)
    if data == ABORT:
        os.abort()
    if data == LEAVE:
        os._exit(7)
    while data == HANG:
        pass
    while data == SLEEP:
        time.sleep(1)
    if data == BLOAT:
        hoard = []
        while True:
            hoard.append(bytearray(b"x") * 10_000_000)
    if data in _LIES:
        json.dumps = lambda *_: _LIES[data]
