"""The labelled list that a person's answers go to: written after each of them, and no line of it is ever lost."""

import csv
import fcntl
import io
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from jobs import output_file
from jobs.labelled_list import COLUMNS, LabelledLine, labelled_list_csv, read_labelled_list
from jobs.printable import printable
from jobs.user_error import UserError


@dataclass(frozen=True)
class Answer:
    """What a person has said about an image, or that they take it back: then ``line`` is None."""

    source_ref: str
    line: LabelledLine | None


class LabelFile:
    """A list on this machine, which may not exist yet. Safe to share between threads."""

    def __init__(self, path: Path) -> None:
        """Reads the list. Raises UserError if it is not one, or if it could not be written again as it is."""
        self.path = path
        self.lines: list[LabelledLine] = []
        self._seen: bytes | None = None
        self._lock = threading.Lock()
        self._read()

    def apply(self, answers: Iterable[Answer]) -> None:
        """Changes lines, and writes the list. What another program has written to it in the meantime stays.

        Raises UserError if it is not a list any more, and OSError if it cannot be written.
        """
        with self._lock, _locked(self.path.parent):
            self._read()
            lines = list(self.lines)
            for answer in answers:
                _apply(answer, lines)
            data = labelled_list_csv(lines)
            with output_file.writing(self.path, force=True) as file:
                file.write(data)
            self.lines, self._seen = lines, data

    def close(self) -> None:
        """Waits until what is being written is written. Nothing is written afterwards."""
        self._lock.acquire()

    def _read(self) -> None:
        """Reads the list, unless it is as this process has left it. One that is gone is written again."""
        with suppress(FileNotFoundError):
            data = self.path.read_bytes()
            if data != self._seen:
                self.lines = _lines(data, self.path)
                self._seen = data


def _lines(data: bytes, path: Path) -> list[LabelledLine]:
    where = printable(str(path))
    if not data.strip():  # created with touch
        return []
    lines = read_labelled_list(data, where=where)
    header = next(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    foreign = [name for name in header if name.strip() not in COLUMNS]
    if foreign:
        raise UserError(
            f"{where} has columns that a labelled list does not have, and which would be lost: "
            f"{', '.join(map(printable, foreign))}. Choose another file with -o."
        )
    return lines


def _apply(answer: Answer, lines: list[LabelledLine]) -> None:
    """Changes the line about an image, the last one if there are several, or adds one."""
    place = next((n for n in reversed(range(len(lines))) if lines[n].source_ref == answer.source_ref), None)
    if answer.line is None:
        if place is not None:
            del lines[place]
    elif place is None:
        lines.append(answer.line)
    else:
        lines[place] = answer.line


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps other processes that write a list to this folder waiting."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
