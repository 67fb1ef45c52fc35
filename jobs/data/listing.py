"""What lies in a folder, an archive or a bucket: files, each with its name there and its place on this machine."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from jobs.data.reason import Reason

#: What systems leave beside people's files: macOS in archives, Windows, Synology, ext4.
_SYSTEM: Final = frozenset(
    {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "@eadir"}
    | {"lost+found"}
)


def is_ignored(ref: str) -> bool:
    """Whether a name is hidden, or a system's own: no person put it there to be learned from."""
    return any(part.startswith(".") or part.lower() in _SYSTEM for part in ref.split("/"))


@dataclass(frozen=True)
class SourceFile:
    """A file by its name in the source, with slashes; ``reason`` says why there is nothing at ``path``, if so."""

    ref: str
    path: Path
    reason: Reason | None = None


@dataclass(frozen=True)
class Listing:
    """All files but the ignored ones, in the order of their names, and all folders, the empty ones too."""

    where: str  #: the source, as a message may show it
    files: list[SourceFile]
    folders: frozenset[str]

    @classmethod
    def of(cls, where: str, files: Iterable[SourceFile], folders: Iterable[str] = ()) -> Self:
        """``folders`` need to hold those that no file tells of, no more."""
        in_order = sorted(files, key=lambda file: file.ref.split("/"))
        told = {ref for ref in folders if not is_ignored(ref)}
        inner = {above for ref in told for above in _above(ref)}
        return cls(where, in_order, frozenset(told | inner | {above for f in in_order for above in _above(f.ref)}))

    def folders_in(self, folder: str) -> list[str]:
        """The names of the folders directly in ``folder``, which is "" for the top."""
        start = f"{folder}/" if folder else ""
        return sorted(
            name for ref in self.folders if ref.startswith(start) and (name := ref[len(start) :]) and "/" not in name
        )


def _above(ref: str) -> Iterable[str]:
    """``a/b/c`` -> ``a``, ``a/b``."""
    return (ref[:at] for at, letter in enumerate(ref) if letter == "/" and at)
