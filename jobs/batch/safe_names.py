"""Names from outside as the names of files: they stay below their folder, work on every system, and occur once.

    ../../etc/passwd         etc/passwd
    cats/con.jpg             cats/_con.jpg          which Windows would take for a device
    a.jpg, another A.jpg     a.jpg, A-3f2a9c01.jpg  which macOS and Windows would take for one file

A name depends on the text, and on what the other names are, but on no clock and no random number.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from typing import Final

#: Bytes of one step of a path. File systems allow 255; the rest is for a digest.
MAX_STEP_BYTES: Final = 200
#: Bytes of a path. S3 allows 1,024 for a key, Windows 260 characters with all folders above.
MAX_NAME_BYTES: Final = 512

#: https://learn.microsoft.com/en-us/windows/win32/fileio/naming-a-file
_WINDOWS: Final = frozenset('<>:"|?*\\')
_DEVICES: Final = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)", re.IGNORECASE)
#: Control and format characters, surrogates, and separators of lines.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_DIGITS: Final = 8
_MAX_SUFFIX: Final = 12


def safe_name(text: str) -> str:
    """Returns a path relative to any folder, with slashes, for a path or a key: without ``..``, and of limited length.

    An ordinary name stays as it is.
    """
    steps = [safe_step(step) for step in text.split("/") if step not in {"", ".", ".."}]
    if len("/".join(steps).encode()) > MAX_NAME_BYTES:
        steps = [with_digest(steps[-1], digest_of(text))]
    return "/".join(steps) or "_"


def safe_step(step: str) -> str:
    """Returns one step of such a path: never hidden, no device of Windows, and nothing in it that cannot be seen."""
    seen = "".join("_" if sign in _WINDOWS or unicodedata.category(sign) in _UNSEEN else sign for sign in step)
    seen = seen.replace("/", "_")
    stripped = seen.rstrip(" .")  # which Windows leaves out
    seen = stripped + "_" * (len(seen) - len(stripped))
    if seen.startswith((".", " ")):
        seen = f"_{seen[1:]}"
    if _DEVICES.fullmatch(seen.partition(".")[0].rstrip()):
        seen = f"_{seen}"
    return seen if len(seen.encode()) <= MAX_STEP_BYTES else with_digest(seen, digest_of(step))


def digest_of(text: str) -> str:
    """Returns the SHA-256 of a text, as hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def with_digest(name: str, digest: str, *, digits: int = _DIGITS) -> str:
    """Returns ``a-3f2a9c01.jpg`` for ``a.jpg``, with the folders in front of it, and no longer than a step may be."""
    folder, slash, step = name.rpartition("/")
    stem, dot, suffix = step.rpartition(".")
    if not stem or len(suffix.encode()) > _MAX_SUFFIX:
        stem, dot, suffix = step, "", ""
    end = f"-{digest[:digits]}{dot}{suffix}"
    cut = stem.encode()[: MAX_STEP_BYTES - len(end.encode())].decode("utf-8", "ignore").rstrip(" .")
    return f"{folder}{slash}{cut or '_'}{end}"


class Names:
    """Gives each picture a name that no other one has, in capitals or not, and however its accents are composed."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def take(self, name: str) -> None:
        """Marks a name as used."""
        key = _key(name)
        self._files.add(key)
        self._folders.update(_folders(key))

    def claim(self, text: str, identity: str) -> str:
        """Returns the name for a text. If another one has it, a digest of ``identity`` makes the difference."""
        name, digest = safe_name(text), digest_of(identity)
        if any(folder in self._files for folder in _folders(_key(name))):
            name = with_digest(safe_step(name.replace("/", "_")), digest)  # a file has the name of a folder of it
        digits = _DIGITS
        candidate = name
        while _key(candidate) in self._files or _key(candidate) in self._folders:
            candidate = with_digest(name, digest, digits=digits)
            digits, digest = (digits * 2, digest) if digits < len(digest) else (digits, digest_of(digest))
        self.take(candidate)
        return candidate


def _key(name: str) -> str:
    """Returns what a file system may take for the same name: macOS composes accents, and ignores capitals."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def _folders(key: str) -> Iterable[str]:
    steps = key.split("/")
    return ("/".join(steps[:count]) for count in range(1, len(steps)))
