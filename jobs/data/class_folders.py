"""Names of files to classes and splits.

    cats/*.jpg, dogs/*.jpg                           a test set is split off
    train/{cats,dogs}, validation/{cats,dogs}        validation/ is the test set, as in the seed's data
    train/…, validation/…, test/…                    each is what it says
    pets/ with one of these in it                    the folder around them is looked through

Class 0 and class 1 are the two folder names in alphabetical order. A class holds its folder's files at any depth; files
beside the class folders are nobody's.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from pydantic import TypeAdapter, ValidationError

from jobs.data.dataset import Reason
from jobs.user_error import UserError
from worker.contract import Label

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


SPLITS: Final = ("train", "validation", "test")
_LABEL: Final = TypeAdapter[str](Label)


@dataclass(frozen=True)
class Found:
    """A file of a class; its ``ref`` is without the folders around the dataset."""

    ref: str
    label: int
    file: SourceFile


@dataclass(frozen=True)
class Layout:
    """The files of two classes, by the folders that say what they are for; None where there is no such folder."""

    labels: tuple[str, str]
    train: list[Found]
    validation: list[Found] | None = None
    test: list[Found] | None = None


def arrange(listing: Listing) -> Layout:
    """Raises UserError, naming what was found, unless all parts hold the same two classes, of two files or more."""
    root = _root(listing)
    # A class may be called "train" too, as in bus/ and train/; then it holds images and no folders.
    if not listing.folders_in(_join(root, "train")):
        labels = _labels(listing, root)
        if set(labels) <= set(SPLITS):
            raise UserError(f"{_shown(listing, root)} holds {' and '.join(labels)}, but no train with two classes.")
        return Layout(labels, _files(listing, root, root, labels))
    labels = _labels(listing, _join(root, "train"))
    parts = {
        part: _files(listing, _join(root, part), root, labels)
        for part in SPLITS
        if _join(root, part) in listing.folders
    }
    if "test" not in parts and "validation" in parts:
        return Layout(labels, parts["train"], test=parts["validation"])
    return Layout(labels, parts["train"], parts.get("validation"), parts.get("test"))


def _root(listing: Listing) -> str:
    """The folder that holds the classes or the splits: the top, or what lies in it alone, as archives have it."""
    root = ""
    while True:
        inside = listing.folders_in(root)
        if len(inside) != 1 or inside == ["train"] or not listing.folders_in(_join(root, inside[0])):
            return root
        root = _join(root, inside[0])


def _labels(listing: Listing, folder: str) -> tuple[str, str]:
    found = listing.folders_in(folder)
    if len(found) != 2:  # noqa: PLR2004
        raise UserError(
            f"{_shown(listing, folder)} must hold exactly two class folders; found {len(found)}: "
            f"{', '.join(found[:10]) or 'none'}."
        )
    for name in found:
        try:
            _LABEL.validate_python(name)
        except ValidationError:
            raise UserError(f"{_shown(listing, folder)}: {name[:200]!r} cannot be the name of a class.") from None
    return found[0], found[1]


def _files(listing: Listing, folder: str, root: str, labels: tuple[str, str]) -> list[Found]:
    found = _labels(listing, folder)
    if found != labels:
        raise UserError(
            f"{_shown(listing, folder)} holds {', '.join(found)}, but the training images are {', '.join(labels)}."
        )
    around = len(root) + 1 if root else 0
    files = []
    for label, name in enumerate(labels):
        start = f"{_join(folder, name)}/"
        own = [Found(file.ref[around:], label, file) for file in listing.files if file.ref.startswith(start)]
        if len(own) < 2:  # noqa: PLR2004 - one to learn from and one to test with
            raise UserError(
                f"{_shown(listing, start.rstrip('/'))} holds {len(own)} files; a class needs at least two images."
            )
        files += own
    return files


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _shown(listing: Listing, folder: str) -> str:
    return f"{listing.where.rstrip('/')}/{folder}" if folder else listing.where
