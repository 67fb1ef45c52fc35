"""``twofold label``: from a folder of photographs to a labelled list, with a page and a browser in between."""

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from jobs.cli import main
from jobs.labelled_list import LabelledLine, labelled_list_csv, read_labelled_list
from jobs.labelling.images import MAX_IMAGES
from jobs.wording import program
from tests.browser import Browser
from tests.conftest import Bench, Run, Trainer

Label = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path, few_digits: Path) -> Path:
    """A folder with ``photos/``: 24 unlabelled digits, a text, and a picture that is cut off."""
    for name in ("three", "eight"):
        for path in sorted((few_digits / name).iterdir())[:12]:
            (tmp_path / "photos").mkdir(exist_ok=True)
            shutil.copy(path, tmp_path / "photos" / f"{name}-{path.name}")
    (tmp_path / "photos/notes.txt").write_text("not an image")
    broken = next((few_digits / "three").iterdir()).read_bytes()[:60]
    (tmp_path / "photos/broken.png").write_bytes(broken)
    return tmp_path


@pytest.fixture
def label(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Label:
    """Runs the command in that folder. Returns its exit status, its output and its messages."""
    monkeypatch.chdir(folder)

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            status = main(["label", *arguments])
        except SystemExit as error:
            status = int(error.code or 0)
        return (status, *capfd.readouterr())

    return run


def test_unlabelled_photographs_become_a_labelled_list(label: Label, folder: Path, browser: Browser) -> None:
    """The page needs no server. Its list, moved to where the command says, names the photographs."""
    status, out, err = label("photos", "--classes", "three,eight", "-n", "20")
    assert status == 0
    assert out == (
        f"labels.html has {re.search('has (.*? images)', out)[1]}. Open it, label, and press s to save:\n"  # type: ignore[index]
        f"  {(folder / 'labels.html').as_uri()}\n"
        f"Move the labels.csv that your browser saves to {folder}/labels.csv, and train on it:\n"
        f"  {program()} train run --data labels.csv --output models\n"
    )
    assert "Skipped: 1 not an image: notes.txt" in err
    page = browser.open((folder / "labels.html").as_uri())
    assert page.text(".heading p").startswith("20 of 25 images, drawn at random. Save downloads labels.csv: move it to")
    shown = int(page.text("#place").rpartition(" ")[2])
    for _ in range(shown):
        page.press("ArrowRight" if page.text("#name").startswith("three") else "ArrowLeft")
    page.press("s")
    (folder / "labels.csv").write_bytes(browser.downloaded("labels.csv"))
    lines = read_labelled_list((folder / "labels.csv").read_bytes(), where="labels.csv")
    assert len(lines) == shown >= 19
    assert all((folder / line.source_ref).is_file() for line in lines)
    assert all(line.source_ref.startswith(f"photos/{line.label}-") for line in lines)
    assert page.problems == []


def test_an_image_that_cannot_be_decoded_is_named_and_left_out(label: Label) -> None:
    """The others are on the page."""
    status, out, err = label("photos", "--classes", "three,eight", "--json")
    facts = json.loads(out)
    assert status == 0
    assert "1 image cannot be shown:\n  broken.png: damaged, " in err
    assert facts["left_out"][0]["source_ref"] == "photos/broken.png"
    assert facts["left_out"][0]["error_code"] == "damaged"
    del facts["left_out"]
    assert facts == {"page": "labels.html", "file": "labels.csv", "images": 24, "labelled": 0}


def test_a_list_that_exists_is_resumed(label: Label, folder: Path, browser: Browser) -> None:
    """Its labels are shown as done; its lines are kept, those of other images as well. The page is made again."""
    first = sorted((folder / "photos").iterdir())[1]
    had = [
        LabelledLine("elsewhere/1.jpg", "three", note="from another folder"),
        LabelledLine(f"photos/{first.name}", "eight"),
        LabelledLine(str(folder / "photos" / "three-0.png"), None),
    ]
    (folder / "labels.csv").write_bytes(labelled_list_csv(had))
    status, out, _ = label("photos", "--classes", "three,eight", "-o", "labels.csv")
    assert (status, label("photos", "--classes", "three,eight")[0]) == (0, 0)
    done = 2 if (folder / "photos/three-0.png").exists() else 1
    assert f"labels.html has 24 images, {done} of them with a label already." in out
    page = browser.open((folder / "labels.html").as_uri())
    assert page.text("#counts .open b") == str(24 - done)
    page.press("ArrowLeft", "s")
    lines = read_labelled_list(browser.downloaded("labels.csv"), where="")
    assert lines[:3] == had
    assert len(lines) == 4


def test_files_of_others_are_not_replaced(label: Label, folder: Path) -> None:
    """A page of this command is; the list never is."""
    (folder / "labels.html").write_text("<h1>mine</h1>")
    status, _, err = label("photos", "--classes", "three,eight")
    assert status == 1
    assert "labels.html exists already. Add --force to replace it" in err
    assert label("photos", "--classes", "three,eight", "--force")[0] == 0
    assert label("photos", "--classes", "three,eight", "-n", "3")[0] == 0
    assert not (folder / "labels.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("photos", "--classes", "cat"), 2, "takes two names with a comma between them, as in cat,dog, not 'cat'"),
        (("photos", "--classes", "cat,cat"), 2, "takes two names"),
        (("photos", "--classes", "a,b,c"), 2, "takes two names"),
        (("photos", "--classes", ",b"), 2, "at least 1 character"),
        (("photos", "--classes", "a,b", "-n", str(MAX_IMAGES + 1)), 2, f"must be at most {MAX_IMAGES}, not"),
        (("photos", "--classes", "a,b", "-o", "labels.txt"), 1, "must end in .csv, as in -o labels.csv"),
        (("photos", "--classes", "a,b", "-o", "gone/labels.csv"), 1, "There is no folder gone for labels.csv."),
        (("gone", "--classes", "a,b"), 1, "gone is not a folder, a list or an s3:// URI."),
        (("photos", "--classes", "a,b", "-o", "old.csv"), 1, "old.csv has labels other than a and b: bird. Correct"),
        (("photos/broken.png", "--classes", "a,b"), 1, "Not one image of photos/broken.png can be shown."),
    ],
)
def test_a_mistake_is_explained(
    arguments: tuple[str, ...], status: int, words: str, label: Label, folder: Path
) -> None:
    """Before anything is written."""
    (folder / "old.csv").write_bytes(labelled_list_csv([LabelledLine("1.jpg", "bird")]))
    found = label(*arguments)
    assert found[0] == status
    assert words in " ".join(found[2].split())
    assert sorted(path.name for path in folder.iterdir()) == ["old.csv", "photos"]


def test_a_page_of_a_private_bucket_needs_no_addresses(
    label: Label, folder: Path, ministack_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thumbnails are in it. The list names the objects."""
    bench = ministack_bench
    for name, value in bench.environment.items():
        monkeypatch.setenv(name, value)
    for path in sorted((folder / "photos").glob("three*"))[:3]:
        bench.put(f"in/{path.name}", path.read_bytes())
    status, out, _ = label(f"s3://{bench.bucket}/in/", "--classes", "three,eight", "--json")
    assert (status, json.loads(out)["images"]) == (0, 3)
    text = (folder / "labels.html").read_text()
    assert f'"s3://{bench.bucket}/in/three-' in text
    assert bench.environment["AWS_ENDPOINT_URL"] not in text


@contextmanager
def _serving(trainer: Trainer, folder: Path, *options: str) -> Iterator[tuple[Run, str]]:
    """The command in a process of its own, and the address that it prints."""
    classes = ("--classes", "three,eight")
    run = trainer.start("label", f"{folder}/photos", *classes, "-o", f"{folder}/labels.csv", "--serve", *options)
    try:
        while not (run.folder / "stdout").exists() or "Press Ctrl-C" not in run.stdout:
            assert run.trainer.ask({"poll": run.pid}) is None, run.stderr
            time.sleep(0.02)
        yield run, run.stdout.split()[1]
    finally:
        with suppress(ProcessLookupError):
            os.kill(run.pid, signal.SIGKILL)


def test_a_served_page_ends_with_the_command_and_loses_nothing(
    trainer: Trainer, folder: Path, browser: Browser
) -> None:
    """After Ctrl-C, one line says what is in the list; a label that came later can still be downloaded."""
    with _serving(trainer, folder, "-n", "10") as (run, url):
        assert re.fullmatch(
            r"Open http://127\.0\.0\.1:\d+/\?token=\S{43}\n"
            r"in a browser on this machine: \d+ images\. The address works once\.\n"
            r"\S+labels\.csv is written as you label\. Press Ctrl-C when you are done\.\n",
            run.stdout,
        )
        page = browser.open(url)
        page.press("ArrowLeft", "ArrowRight")
        page.wait_for("document.querySelector('#saving').textContent === 'Saved'")
        os.kill(run.pid, signal.SIGINT)
        assert run.wait() == 0
    *_, last = run.stderr.splitlines()
    left = page.text("#counts .open b")
    has = f"{folder}/labels.csv has 2 images of this page, and {left} are left"
    assert last == f"Stopped. {has}. Run the same command again to go on."
    assert len(read_labelled_list((folder / "labels.csv").read_bytes(), where="")) == 2
    page.press("ArrowUp")
    page.wait_for("!document.querySelector('#notice').hidden")
    assert page.text("#notice") == "Not saved. The command does not answer. Press s to download your labels."
    assert page.text("#saving") == "Save"
    page.press("s")
    assert len(read_labelled_list(browser.downloaded("labels.csv"), where="")) == 3
    page.close()
    assert page.dialogs == ["beforeunload"]


@pytest.mark.slow
def test_a_served_page_that_is_killed_loses_at_most_the_last_label(
    trainer: Trainer, folder: Path, browser: Browser
) -> None:
    """Five times, at once after a key; the next start goes on."""
    given = 0
    for _ in range(5):
        with _serving(trainer, folder) as (run, url):
            page = browser.open(url)
            done = 24 - int(page.text("#counts .open b"))
            assert given - 1 <= done <= given
            page.press("ArrowLeft")
            page.wait_for("document.querySelector('#saving').textContent === 'Saved'")
            page.press("ArrowRight")
            os.kill(run.pid, signal.SIGKILL)
            run.wait()
            given = done + 2
            page.close()
