"""Lines that fit a terminal: words and commands stay whole."""

import io
import sys
from pathlib import Path

import pytest

from jobs.batch.submit import _shown
from jobs.batch.trying_again import how_to_try_again
from jobs.wording import fitted, model_in_words, program, with_command, wrapped
from tests.console import on_terminal

COMMAND = f"{program()} batch status june --watch"


def test_prose_breaks_between_words_and_a_command_in_quotes_stays_whole() -> None:
    """On the next line, where it does not fit. An apostrophe is no quote."""
    text = f"That isn't complete and doesn't go on. Run '{COMMAND}' to wait in /tmp/a-rather-long/name-of-a/folder"
    assert wrapped(text, 50).split("\n") == [
        "That isn't complete and doesn't go on. Run",
        f"'{COMMAND}' to wait",
        "in /tmp/a-rather-long/name-of-a/folder",
    ]


def test_a_command_on_a_line_of_its_own_is_never_broken() -> None:
    """It can be copied, however narrow the terminal is."""
    text = with_command("To wait for it:", "batch status june --watch")
    assert wrapped(text, 12) == f"To wait for\nit:\n  {COMMAND}"


def test_what_continues_a_line_is_indented_as_its_text_is() -> None:
    """A list of reasons, and a table of facts."""
    text = "  2 not an image: notes.txt, list.docx\n  skipped     2 not an image: notes.txt, list.docx"
    assert wrapped(text, 30).split("\n") == [
        "  2 not an image: notes.txt,",
        "  list.docx",
        "  skipped     2 not an image:",
        "              notes.txt,",
        "              list.docx",
    ]


def test_a_pipe_gets_the_lines_as_they_are() -> None:
    """Scripts read lines."""
    assert fitted("word " * 100, io.StringIO()) == "word " * 100


def test_errors_and_what_is_said_break_between_words_on_a_terminal(tmp_path: Path) -> None:
    """Of a command, in 80 columns."""
    folder = tmp_path / "photos"
    folder.mkdir()
    status, shown = on_terminal(sys.executable, "-m", "jobs.cli", "model", "list", str(folder))
    assert status == 1
    joined = " ".join(shown.split())
    assert str(folder) in joined
    assert all(len(line) <= 80 or " " not in line.strip() for line in shown.splitlines()), shown


@pytest.mark.parametrize(
    ("codes", "sentence"),
    [
        (("damaged", "empty"), "Replace the files, under the same names, then try them again:"),
        (
            ("damaged", "unavailable"),
            "Replace the files that are at fault, under the same names, then try all of them again:",
        ),
        (("unavailable",), "To try them again:"),
        (("access_denied", "bad_source_ref"), "Once the cause is mended, try them again:"),
    ],
)
def test_the_advice_after_a_job_fits_its_error_codes(codes: tuple[str, ...], sentence: str) -> None:
    """A redrive of the same file fails again."""
    assert how_to_try_again("june", codes) == f"{sentence}\n  {program()} batch redrive june --wait"


def test_a_model_is_named_by_its_bundle() -> None:
    """As people know it."""
    assert model_in_words("s3://shelter/models/pets/v2/") == "pets, version v2"


def test_a_source_is_named_in_full_or_not_at_all() -> None:
    """Beside the progress."""
    assert _shown(["photos/", "list.csv"]) == "photos/, list.csv"
    assert _shown(["/tmp/stranger/home/photographs", "/tmp/stranger/home/photographs-of-july", "c"]) == (
        "/tmp/stranger/home/photographs and 2 more sources"
    )
