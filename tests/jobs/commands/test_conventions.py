"""The command line as a whole: every group and command has help in one form, and loads no more than it needs."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from jobs.cli import main
from jobs.commands.app import app
from jobs.commands.conventions import Command, Group, InFolder
from jobs.wording import program
from tests.conftest import REPOSITORY


def _all(command: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every group and command by its words."""
    found = {path: command}
    for name, child in getattr(command, "commands", {}).items():
        found |= _all(child, (*path, name))
    return found


COMMANDS = _all(typer.main.get_command(app))


def _help(path: tuple[str, ...], capsys: pytest.CaptureFixture[str], option: str = "--help") -> str:
    with pytest.raises(SystemExit) as ended:
        main([*path, option])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_has_one_form(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Placeholders in capitals, no types, no backticks, an example, and lines that fit a terminal."""
    text = _help(path, capsys)
    usage = re.escape(" ".join(["twofold", *path]))
    assert re.match(rf"Usage: {usage} \[OPTIONS\]( \[?[A-Z]+\]?(\.\.\.)?| COMMAND \[ARGS\]\.\.\.)*\n", text)
    assert [mark for mark in ("<", "`", "{", "[[", "│") if mark in text] == []
    assert re.search(r"^Examples?:\n  .*twofold ", text, re.MULTILINE)
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert _help(path, capsys, "-h") == text


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_example_parses(path: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """As it is printed, line breaks included."""
    printed = re.split(r"^Examples?:\n", _help(path, capsys), flags=re.MULTILINE)[1]
    commands = [line for line in printed.replace("\\\n", " ").splitlines() if line.startswith("  ")]
    for line in commands:
        words = shlex.split(line.strip().removeprefix(program()))
        command: Any = COMMANDS[()]
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        words = [str(tmp_path) if word == "pets/" else word for word in words]  # some folders must exist
        command.make_context(command.name, words)


def test_a_flag_has_no_placeholder_and_an_option_has_one(capsys: pytest.CaptureFixture[str]) -> None:
    """A whole number, a number, a path, or text."""
    text = _help(("train", "run"), capsys)
    assert re.search(r"^  --json +Print", text, re.MULTILINE)
    for option in ("--image-size INTEGER", "--l2 NUMBER", "--cache PATH", "--data TEXT"):
        assert f"  {option} " in text
    for limits in ("a multiple of 32, from 32 to 512", "to train on, 1 to 32", "to train too, 0 to 100"):
        assert limits in " ".join(text.split())
    assert "[default: $XDG_CACHE_HOME/twofold or ~/.cache/twofold]" in " ".join(text.split())
    assert "[default: the cache]" in " ".join(text.split())
    assert "0.1 to 120]" in _help(("train", "submit"), capsys)


def test_every_command_follows_the_conventions() -> None:
    """Whoever adds a command need not know of them."""
    assert [path for path, command in COMMANDS.items() if not isinstance(command, Command | Group)] == []


def test_the_commands_that_use_a_queue_or_a_bucket_read_the_settings_of_the_folder() -> None:
    """Those of an account do not: they would deploy to the emulator of the folder."""
    reading = {path for path, command in COMMANDS.items() if isinstance(command, InFolder)}
    assert {path[0] for path in reading} == {"batch", "doctor", "label", "model", "train"}
    assert {path for path in reading if path[0] == "train"} == {("train", "run")}
    commands = {path for path in COMMANDS if len(path) == 2 and path[0] in {"batch", "model"}}
    assert commands <= reading


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """In the form of other tools."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert re.fullmatch(r"twofold \d+\.\d+\.\d+\n", capsys.readouterr().out)


TRAIN = ("train", "run", "--data", "x", "--output", "y")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("btch",), "No such command 'btch'. Did you mean 'batch'?"),
        (("batch", "submt"), "No such command 'submt'. Did you mean 'submit'?"),
        (("batch", "status", "--wach"), "No such option '--wach'. Did you mean '--watch'?"),
        ((*TRAIN, "--agument", "2"), "No such option '--agument'. Did you mean '--augment'?"),
        ((*TRAIN, "--image-size", "large"), "--image-size must be a whole number, not 'large'"),
        (("train", "submit", "--data", "x", "--limit", "200"), "--limit must be at most 120, not 200"),
        (("train", "submit", "--data", "x", "--on", "mars"), "--on must be batch, sagemaker or here, not 'mars'"),
        (("model", "show"), "WHERE is missing."),
        (("model", "copy", "x"), "TO is missing."),
        (("train", "run"), "--data is missing."),
    ],
    ids=["group", "command", "option", "near option", "number", "limit", "choice", "argument", "second", "required"],
)
def test_a_mistake_is_explained_in_plain_words(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line in one form, with a suggestion where it looks like a typo, and the help as it is typed; status 2."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    error = capsys.readouterr().err
    assert ended.value.code == 2
    first, second = error.splitlines()
    assert first == f"Error: {words}"
    assert re.fullmatch(rf"See '{program()}[ a-z]* --help'\.", second)


_LOADED = """
import sys
from jobs.cli import main
for words in sys.argv[1:]:
    try:
        main(words.split())
    except SystemExit as ended:
        assert ended.code == 0
print(*{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
"""


def _loaded_by(*commands: str) -> set[str]:
    command = [sys.executable, "-c", _LOADED, *commands]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_the_list_of_commands_loads_neither_an_sdk_nor_an_array_library() -> None:
    """Nor what only some commands need: it has to appear at once."""
    unwanted = {
        "boto3",
        "botocore",
        "obstore",
        "numpy",
        "tensorflow",
        "keras",
        "sklearn",
        "PIL",
        "pydantic",
        "rich",
        "jinja2",
    }
    assert unwanted & _loaded_by("--help", "--version") == set()


def test_the_help_of_a_command_loads_neither_an_sdk_nor_an_array_library() -> None:
    """Each command imports what it needs when it is run."""
    unwanted = {"boto3", "botocore", "obstore", "numpy", "tensorflow", "keras", "sklearn", "scipy", "PIL", "jinja2"}
    assert unwanted & _loaded_by(*(f"{' '.join(path)} --help" for path in COMMANDS)) == set()


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("twofold ba", ["batch"]),
        ("twofold cloud de", ["deploy", "destroy"]),
        ("twofold batch submit --dr", ["--dry-run"]),
    ],
)
def test_the_shell_completes_groups_commands_and_options(typed: str, completed: list[str]) -> None:
    """As the function that --install-completion installs asks for them."""
    asked = {"_TWOFOLD_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    command = [sys.executable, "-m", "jobs.cli"]
    done = subprocess.run(command, env=os.environ | asked, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == completed


def test_the_program_names_itself_as_it_is_typed() -> None:
    """With uv in this checkout; where it is installed, there is no project to run it in."""
    assert program() in {"uv run twofold", "twofold"}
    installed = "import jobs.wording as w; w.__file__ = '/nowhere/site-packages/jobs/wording.py'; print(w.program())"
    done = subprocess.run([sys.executable, "-c", installed], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "twofold\n"
