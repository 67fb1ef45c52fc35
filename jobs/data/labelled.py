"""What a dataset is made of: images that know their class, in three splits, and those that were left out."""

from dataclasses import dataclass
from pathlib import Path

from jobs.data.reason import Reason


@dataclass(frozen=True)
class LabelledImage:
    """A file and the class its folder says."""

    path: Path
    ref: str  #: its name within the dataset, ``train/cats/1.jpg``, wherever the dataset lies
    label: int  #: 0 or 1
    sha256: str = ""  #: of the file's bytes, in hexadecimal digits; empty where they cannot be had
    split: str = ""  #: ``train``, ``validation`` or ``test``


@dataclass(frozen=True)
class Quarantined:
    """An image left out, and why."""

    image: LabelledImage
    reason: Reason


@dataclass(frozen=True)
class Dataset:
    """The images of two classes, by what they are for."""

    labels: tuple[str, str]  #: the names of class 0 and class 1
    train: list[LabelledImage]
    validation: list[LabelledImage]
    test: list[LabelledImage]
    quarantined: list[Quarantined]  #: left out before anything was decoded
    #: SHA-256 over names and contents of all its files, those left out included. The same files give the same, in
    #: whatever order they are read, and wherever they lie. Of a file too large to be an image only the name counts.
    digest: str

    def __len__(self) -> int:
        return len(self.train) + len(self.validation) + len(self.test)
