"""Files on this machine: which of them are images, and why the others are not submitted.

A file is an image by its suffix or, where it has none, by how its content begins. So is one that is named as HEIC:
programs that convert photographs may keep the name.
"""

import re
from pathlib import Path
from typing import Final

from worker.scoring.limits import MAX_BYTES, MIB

IMAGE_SUFFIXES: Final = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

#: Why a file is not submitted, as people read it and as ``job.json`` keeps it.
HEIC: Final = "HEIC, not supported (save as JPEG)"
NOT_AN_IMAGE: Final = "not an image"
UNREADABLE: Final = "cannot be read"
_OVERSIZE: Final = f"over {MAX_BYTES // MIB} MiB, too large for an image"

_HEIC_SUFFIXES: Final = frozenset({".heic", ".heics", ".heif", ".heifs", ".hif"})
_HEIC: Final = re.compile(rb"....ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)", re.DOTALL)
_START_BYTES: Final = 16
#: ``2026-11-24 10.30.12`` is a name without a suffix.
_SUFFIX: Final = re.compile(r"\.\w*[a-z]\w*")


def has_image_suffix(name: str) -> bool:
    """Returns whether a name is that of an image file, which may not exist."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def unfit(path: Path) -> str | None:
    """Returns why a file cannot be submitted, or None for an image."""
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return oversize(path)
    if _SUFFIX.fullmatch(suffix) and suffix not in _HEIC_SUFFIXES:
        return NOT_AN_IMAGE
    try:
        with path.open("rb") as file:
            start = file.read(_START_BYTES)
    except OSError:
        return UNREADABLE
    from worker.scoring.decoder import SIGNATURE  # noqa: PLC0415 - Pillow takes a moment, and most files have a suffix

    if SIGNATURE.match(start):
        return oversize(path)
    return HEIC if _HEIC.match(start) or suffix in _HEIC_SUFFIXES else NOT_AN_IMAGE


def oversize(path: Path) -> str | None:
    """Returns why a file is too large to be read and uploaded, or None: no worker would decode it."""
    try:
        return _OVERSIZE if path.stat().st_size > MAX_BYTES else None
    except OSError:
        return UNREADABLE
