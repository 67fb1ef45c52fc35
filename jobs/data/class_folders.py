"""Class folders: how the names of files decide their class and their split.

    cats/*.jpg, dogs/*.jpg                           a test set is split off
    train/{cats,dogs}, validation/{cats,dogs}        validation/ is the test set, as in cats_and_dogs_filtered
    train/…, validation/…, test/…                    each folder is the split of that name
    pets/ with one of these in it                    the outer folder is ignored

Class 0 and class 1 are the two folder names in alphabetical order. A class has the files at any depth of its folder.
Files outside the class folders are ignored.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from pydantic import TypeAdapter, ValidationError

from jobs.data.dataset import Reason
from jobs.user_error import UserError
from worker.contract import Label

#: In rising order of precedence: a duplicate stays in the last split that has it.
SPLITS: Final = ("train", "validation", "test")

#: What operating systems leave among files: macOS in archives, Windows, Synology, ext4.
_SYSTEM: Final = frozenset(
    {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "@eadir"}
    | {"lost+found"}
)
_LABEL: Final = TypeAdapter[str](Label)


@dataclass(frozen=True)
class SourceFile:
    """A file by its name in the source, with slashes. If there is nothing at ``path``, ``reason`` says why."""

    ref: str
    path: Path
    reason: Reason | None = None


@dataclass(frozen=True)
class Listing:
    """All files of a source in the order of their names, and all folders, even empty ones. Ignored names are absent."""

    where: str  #: the source, as a message may show it
    files: list[SourceFile]
    folders: frozenset[str]

    @classmethod
    def of(cls, where: str, files: Iterable[SourceFile], folders: Iterable[str] = ()) -> Self:
        """Sorts the files. ``folders`` need only name those that no file implies."""
        in_order = sorted(files, key=lambda file: file.ref.split("/"))
        named = {ref for ref in folders if not is_ignored(ref)}
        implied = {parent for ref in [*named, *(file.ref for file in in_order)] for parent in _parents(ref)}
        return cls(where, in_order, frozenset(named | implied))

    @property
    def is_open(self) -> bool:
        """Whether a folder of the source is a source itself, which one in an archive is not."""
        return (self.where.startswith("s3://") and self.where.endswith("/")) or Path(self.where).is_dir()

    def folders_in(self, folder: str) -> list[str]:
        """Returns the names of the folders directly in ``folder``, which is "" for the top."""
        start = f"{folder}/" if folder else ""
        return sorted(
            name for ref in self.folders if ref.startswith(start) and (name := ref[len(start) :]) and "/" not in name
        )


@dataclass(frozen=True)
class ClassFile:
    """A file of a class. Its ``ref`` leaves out the folders around the dataset."""

    ref: str
    label: int
    file: SourceFile


@dataclass(frozen=True)
class Layout:
    """The files of two classes, by the folder of their split. A split without a folder is None."""

    labels: tuple[str, str]
    train: list[ClassFile]
    validation: list[ClassFile] | None = None
    test: list[ClassFile] | None = None


def is_ignored(ref: str) -> bool:
    """Whether a name is hidden or an operating system's own, so that the file is not part of the dataset."""
    return any(part.startswith(".") or part.lower() in _SYSTEM for part in ref.split("/"))


def arrange(listing: Listing) -> Layout:
    """Finds the classes and the splits.

    Raises UserError, with what was found, unless every split has the same two classes with two or more files each.
    """
    root = _root(listing)
    # A class may be called "train", as in bus/ and train/. It then holds images and no folders.
    if not listing.folders_in(_join(root, "train")):
        labels = _labels(listing, root)
        _check_level(listing, root, labels)
        if set(labels) <= set(SPLITS):
            raise UserError(f"{_shown(listing, root)} holds {' and '.join(labels)}, but no train/ with two classes.")
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
    """Finds the folder that holds the classes or the splits, which archives often have in outer folders."""
    root = ""
    while True:
        inside = listing.folders_in(root)
        if len(inside) != 1 or inside == ["train"] or not listing.folders_in(_join(root, inside[0])):
            return root
        root = _join(root, inside[0])


def _check_level(listing: Listing, root: str, labels: tuple[str, str]) -> None:
    """Raises UserError if the two folders are no classes, but what was sorted and what is still to be sorted.

    That is where one of them holds nothing but the folders of two classes, and the other nothing but files: a data set
    next to the photographs that a model is to sort. ``cats/2024``, ``cats/2025`` and ``dogs/`` are years, not classes.
    """
    for inner, other in (labels, labels[::-1]):
        classes = _two_classes(listing, _join(root, inner))
        if classes is None or listing.folders_in(_join(root, other)):
            continue
        data, (zero, one) = _shown(listing, _join(root, inner)), classes
        this = f"did you mean --data {data}?" if listing.is_open else f"pack only {inner} if these are the classes."
        raise UserError(
            f"{inner} holds no images, but the folders {zero} and {one}: {this} "
            f"If {labels[0]} and {labels[1]} are the classes, move the images of {other} to {other}/all."
        )


def _two_classes(listing: Listing, folder: str) -> tuple[str, str] | None:
    """Returns the folders of a data set, unless there are not two, there are files next to them, or they are dates."""
    splits = listing.folders_in(_join(folder, "train"))
    inside = splits or listing.folders_in(folder)
    if len(inside) != 2 or any(name.strip("0123456789-_. ") == "" for name in inside):  # noqa: PLR2004
        return None
    own = (file.ref for file in listing.files if file.ref.startswith(f"{folder}/"))
    if any("/" not in ref[len(folder) + 1 :] for ref in own):
        return None
    return inside[0], inside[1]


def _labels(listing: Listing, folder: str) -> tuple[str, str]:
    found = listing.folders_in(folder)
    if len(found) != 2:  # noqa: PLR2004 - two classes
        raise UserError(
            f"{_shown(listing, folder)} must hold exactly two class folders; found "
            f"{f'{len(found)}: ' if found else ''}{', '.join(found[:10]) or 'none'}."
        )
    for name in found:
        try:
            _LABEL.validate_python(name)
        except ValidationError:
            raise UserError(f"{_shown(listing, folder)}: {name[:200]!r} cannot be the name of a class.") from None
    return found[0], found[1]


def _files(listing: Listing, folder: str, root: str, labels: tuple[str, str]) -> list[ClassFile]:
    found = _labels(listing, folder)
    if found != labels:
        raise UserError(
            f"{_shown(listing, folder)} holds {', '.join(found)}, but the training images are {', '.join(labels)}."
        )
    outer = len(root) + 1 if root else 0
    files = []
    for label, name in enumerate(labels):
        start = f"{_join(folder, name)}/"
        own = [ClassFile(file.ref[outer:], label, file) for file in listing.files if file.ref.startswith(start)]
        if len(own) < 2:  # noqa: PLR2004 - one to train on and one to test with
            few = "holds no images" if not own else "holds 1 file"
            raise UserError(f"{_shown(listing, start.rstrip('/'))} {few}. A class needs at least two images.")
        files += own
    return files


def _parents(ref: str) -> Iterable[str]:
    """``a/b/c`` -> ``a``, ``a/b``."""
    return (ref[:at] for at, letter in enumerate(ref) if letter == "/" and at)


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _shown(listing: Listing, folder: str) -> str:
    return f"{listing.where.rstrip('/')}/{folder}" if folder else listing.where
