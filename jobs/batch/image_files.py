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
_OTHER: Final = "{}, not supported (save as JPEG or PNG)"
NOT_AN_IMAGE: Final = "not an image"
UNREADABLE: Final = "cannot be read"
_OVERSIZE: Final = f"over {MAX_BYTES // MIB} MiB, too large for an image"

_HEIC_SUFFIXES: Final = frozenset({".heic", ".heics", ".heif", ".heifs", ".hif"})
#: Formats of images that no worker decodes.
_OTHER_SUFFIXES: Final = frozenset(
    {
        ".arw",
        ".avif",
        ".avifs",
        ".cr2",
        ".cr3",
        ".dng",
        ".emf",
        ".eps",
        ".exr",
        ".hdr",
        ".icns",
        ".ico",
        ".j2k",
        ".jp2",
        ".jxl",
        ".jxr",
        ".nef",
        ".orf",
        ".pbm",
        ".pcx",
        ".pgm",
        ".pnm",
        ".ppm",
        ".psd",
        ".raf",
        ".rw2",
        ".svg",
        ".svgz",
        ".tga",
        ".wmf",
        ".xbm",
        ".xcf",
        ".xpm",
    }
)
_HEIC: Final = re.compile(rb"....ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)", re.DOTALL)
_START_BYTES: Final = 16
#: ``2026-11-24 10.30.12`` is a name without a suffix.
_SUFFIX: Final = re.compile(r"\.\w*[a-z]\w*")


def has_image_suffix(name: str) -> bool:
    """Returns whether a name is that of an image file, which may not exist."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def has_other_suffix(name: str) -> bool:
    """Returns whether a name is that of a file which is not an image. One without a suffix can be anything."""
    suffix = Path(name).suffix.lower()
    return suffix not in IMAGE_SUFFIXES | _HEIC_SUFFIXES and _SUFFIX.fullmatch(suffix) is not None


def unfit(path: Path) -> str | None:
    """Returns why a file cannot be submitted, or None for an image."""
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return oversize(path)
    if suffix in _OTHER_SUFFIXES:
        return _OTHER.format(suffix[1:].upper())
    if has_other_suffix(path.name):
        return NOT_AN_IMAGE
    start = _start(path)
    if start is None:
        return UNREADABLE
    if _is_image(start):
        return oversize(path)
    return HEIC if _HEIC.match(start) or suffix in _HEIC_SUFFIXES else NOT_AN_IMAGE


def begins_as_image(path: Path) -> bool:
    """Returns whether a file begins as one of the images that workers decode, whatever its name."""
    return _is_image(_start(path) or b"")


def _start(path: Path) -> bytes | None:
    """Returns the first bytes of a file, or None if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_START_BYTES)
    except OSError:
        return None


def _is_image(start: bytes) -> bool:
    from worker.scoring.decoder import SIGNATURE  # noqa: PLC0415 - Pillow takes a moment, and most files have a suffix

    return SIGNATURE.match(start) is not None


def oversize(path: Path) -> str | None:
    """Returns why a file is too large to be read and uploaded, or None: no worker would decode it."""
    try:
        return _OVERSIZE if path.stat().st_size > MAX_BYTES else None
    except OSError:
        return UNREADABLE
