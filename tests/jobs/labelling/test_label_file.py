"""The list that answers go to: every line of it stays, whoever wrote it, and whatever is killed."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs.labelled_list import LabelledLine, labelled_list_csv, read_labelled_list
from jobs.labelling.label_file import Answer, LabelFile
from jobs.user_error import UserError
from tests.conftest import REPOSITORY

NOW = datetime(2026, 11, 24, 10, 15, tzinfo=UTC)


def _answer(ref: str, label: str | None) -> Answer:
    return Answer(ref, LabelledLine(ref, label, NOW))


def _lines(path: Path) -> list[tuple[str, str | None]]:
    return [(line.source_ref, line.label) for line in read_labelled_list(path.read_bytes(), where="labels.csv")]


def test_a_list_is_written_with_its_first_answer(tmp_path: Path) -> None:
    """Unsure is a blank label. What is taken back is gone; what is said again stays in its place."""
    labels = LabelFile(tmp_path / "labels.csv")
    assert not labels.path.exists()
    labels.apply([_answer("1", "cat"), _answer("2", None)])
    labels.apply([_answer("3", "dog"), _answer("1", "dog")])
    assert _lines(labels.path) == [("1", "dog"), ("2", None), ("3", "dog")]
    labels.apply([Answer("2", None), Answer("never", None)])
    assert _lines(labels.path) == [("1", "dog"), ("3", "dog")]
    assert [path.name for path in tmp_path.iterdir()] == ["labels.csv"]


def test_every_line_that_a_list_had_is_kept(tmp_path: Path) -> None:
    """In its place, with its reviewer and note; of two lines about one image, the last is changed."""
    path = tmp_path / "labels.csv"
    had = [
        LabelledLine("1", "cat", NOW, "ada", "=note"),
        LabelledLine("2", "dog"),
        LabelledLine("1", "dog", NOW),
    ]
    path.write_bytes(b"\xef\xbb\xbf" + labelled_list_csv(had))
    labels = LabelFile(path)
    labels.apply([_answer("1", None), _answer("4", "cat")])
    again = read_labelled_list(path.read_bytes(), where="")
    assert again == [*had[:2], LabelledLine("1", None, NOW), LabelledLine("4", "cat", NOW)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "source_ref,label,camera\n1,cat,x\n",
            "has columns that a labelled list does not have.*: camera. Choose another",
        ),
        ("source_ref,label\n1,cat,\n", "line 2 has 3 cells"),
        ("name\n1\n", "has no column source_ref"),
    ],
)
def test_a_list_that_could_not_be_written_again_is_refused(text: str, words: str, tmp_path: Path) -> None:
    """And stays as it is."""
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        LabelFile(path)
    assert path.read_text() == text


def test_what_another_program_writes_in_the_meantime_stays(tmp_path: Path) -> None:
    """A spreadsheet, or a second page. A list that was deleted is written again; one that is broken is not touched."""
    path = tmp_path / "labels.csv"
    one, other = LabelFile(path), LabelFile(path)
    one.apply([_answer("1", "cat")])
    other.apply([_answer("2", "dog")])
    one.apply([_answer("3", "cat")])
    assert _lines(path) == [("1", "cat"), ("2", "dog"), ("3", "cat")]
    path.unlink()
    one.apply([_answer("4", "cat")])
    assert len(_lines(path)) == 4
    path.write_text("broken")
    with pytest.raises(UserError):
        one.apply([_answer("5", "cat")])
    assert path.read_text() == "broken"


def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    """Each as fast as it can."""
    path = tmp_path / "labels.csv"

    def write(name: str) -> None:
        labels = LabelFile(path)
        for number in range(20):
            labels.apply([_answer(f"{name}{number}", "cat")])

    threads = [threading.Thread(target=write, args=[name]) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(_lines(path)) == 60


_WRITER = """
import sys
from pathlib import Path
from jobs.labelled_list import LabelledLine
from jobs.labelling.label_file import Answer, LabelFile
labels = LabelFile(Path(sys.argv[1]))
for number in range(len(labels.lines), 100_000):
    labels.apply([Answer(str(number), LabelledLine(str(number), "cat"))])
    print(number, flush=True)
"""


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_a_kill_at_any_instant_loses_nothing_that_was_written(kills: int, tmp_path: Path) -> None:
    """The list is complete each time, and the next start goes on where it was. Nothing is left next to it."""
    path, chance = tmp_path / "labels.csv", random.Random(kills)
    for _ in range(kills):
        command = [sys.executable, "-c", _WRITER, str(path)]
        writer = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        assert writer.stdout
        said = [writer.stdout.readline()]
        time.sleep(chance.uniform(0, 0.1))
        os.kill(writer.pid, signal.SIGKILL)
        said += writer.stdout.readlines()
        writer.wait()
        writer.stdout.close()
        written = _lines(path)
        assert written == [(str(number), "cat") for number in range(len(written))]
        assert len(written) > int([line for line in said if line.endswith("\n")][-1])
    LabelFile(path).apply([_answer("last", "dog")])
    assert [left.name for left in tmp_path.iterdir()] == ["labels.csv"]
