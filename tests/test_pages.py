"""The pages: their commands parse, their documents are valid, and what they name exists."""

import ast
import json
import os
import re
import shlex
import shutil
import sys
import tomllib
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
import typer

from jobs.commands.app import app
from jobs.config import TrainConfig
from jobs.data.dataset import DatasetCode
from jobs.data.members import Limits
from tests.bench.__main__ import app as bench_app
from tests.conftest import REPOSITORY
from tests.hostile.__main__ import app as hostile_app
from tests.infra.templates import as_list, load, resources
from tests.pages import BLOCKS, CHANGELOG, PAGES, PROSE, headings, quoted, section, tables
from worker import messages
from worker.contract import MAX_REQUEST_BYTES, MAX_SHARDS, SHARD_IMAGES, ClassifyRequest, ManifestRef
from worker.errors import ErrorCode
from worker.manifest.references import references
from worker.manifest.text import BOMB_BYTES, BOMB_RATIO, MAX_LINE
from worker.predictions import COLUMNS, DECISION
from worker.settings import WorkerSettings
from worker.uris import is_bucket

#: What a newcomer reads in five minutes.
MAX_README_BYTES: Final = 8192
#: Actions that your own worker may need, and the one of infra/worker.yaml does not.
OWN_WORKER: Final = {"s3:GetObjectVersion", "sqs:GetQueueUrl"}
#: Options of programs other than Twofold.
FOREIGN: Final = {"--help", "--pdb"}
#: Defaults that are described and not given.
DESCRIBED: Final = {"data", "output", "version", "unsure", "redirect_hosts", "cache", "checkpoint"}

PROJECT: Final = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
MARKERS: Final = {marker.partition(":")[0] for marker in PROJECT["tool"]["pytest"]["markers"]}
#: Pages about the present; a changelog names what is gone.
NOW: Final = {page: text for page, text in PROSE.items() if page != CHANGELOG}


# Commands.


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_parses(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the command line itself: names, options, types and required arguments."""
    monkeypatch.chdir(tmp_path)
    for block in BLOCKS:
        if (block.page, block.language) == (page, "sh"):
            for line in block.text.replace("\\\n", " ").splitlines():
                _check_line(line)


def _check_line(line: str) -> None:
    command: list[str] = []
    try:
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word in {"&", "&&"}:
                _check(command)
                command = []
            elif command or not re.match(r"[A-Z_]+=", word):  # else a variable for this command
                command.append(word)
    except Exception as error:
        error.add_note(line)
        raise


def _check(command: list[str]) -> None:
    match command:
        case ["uv", "run", "--with", "pre-commit", "pre-commit", "install", *_]:
            assert (REPOSITORY / ".pre-commit-config.yaml").is_file()
        case ["uv", "run", *program]:
            _check_program(program)
        case ["fresh/bin/twofold", *arguments]:
            _parse(app, arguments)
        case ["aws", "s3", "sync", _, target]:
            assert re.fullmatch(r"s3://[a-z0-9.-]{3,63}/.+/", target)  # a bucket has no capitals
        case ["uv" | "pip", "sync" | "build" | "venv" | "install" | "pip", *_]:
            pass  # the names of extras are checked below
        case ["uvx", "--from", _, "cyclonedx-py", "requirements", requirements, *_]:
            assert (REPOSITORY / requirements).is_file()
        case [".ci/run"] | [".github/screenshots"]:
            assert os.access(REPOSITORY / command[0], os.X_OK)
        case [] | ["export" | "cp" | "head" | "echo", *_]:
            pass
        case _:
            pytest.fail(f"{command} is not a command that a page may show")


@pytest.mark.parametrize("page", PAGES)
def test_a_job_for_sagemaker_is_accepted_as_it_is_printed(page: str) -> None:
    """Its addresses are of a bucket that may exist: none has capitals."""
    for block in BLOCKS:
        if (block.page, block.language) == (page, "sh"):
            for line in block.text.replace("\\\n", " ").splitlines():
                if "--on sagemaker" in line:
                    assert all(is_bucket(name) for name in re.findall("s3://([^/]+)", line)), line


def _check_program(program: list[str]) -> None:
    match program:
        case ["twofold", *arguments]:
            _parse(app, arguments)
        case ["python", "-m", "tests.bench.gpu", *options]:  # importing it would take the seconds of Keras
            text = (REPOSITORY / "tests/bench/gpu.py").read_text()
            assert all(f'"{option}"' in text for option in options if option.startswith("--"))
        case ["python", "-m", "tests.bench", *arguments]:
            _parse(bench_app, arguments)
        case ["python", "-m", "worker", *arguments]:
            assert arguments in ([], ["--drain"])
        case ["python", "-m", "tests.hostile", *arguments]:
            _parse(hostile_app, arguments)
        case ["python", "-m", module, *_]:
            assert find_spec(module)
        case ["pytest", *arguments]:
            selected = [words for option, words in pairwise(arguments) if option == "-m"]
            assert set(re.findall(r"\w+", " ".join(selected))) <= MARKERS | {"and", "or", "not"}
            assert all((REPOSITORY / path).exists() for path in arguments if "/" in path)
        case [name, *_]:
            assert shutil.which(name, path=Path(sys.executable).parent), f"{name} is not installed for development"


def _parse(cli: typer.Typer, arguments: list[str]) -> None:
    """Parses a command as it would be run, and runs nothing. Raises what the command line raises."""
    command: Any = typer.main.get_command(cli)
    arguments = [argument for argument in arguments if argument != "--help"]
    while arguments and hasattr(command, "commands"):
        command = command.commands[arguments.pop(0)]
    if hasattr(command, "commands"):
        return
    for option, value in pairwise(arguments):
        if option == "--data" and "://" not in value:
            Path(value).mkdir(parents=True, exist_ok=True)  # some must exist
    context = command.make_context(command.name, list(arguments))
    if context.args:  # train submit passes them on
        _parse(app, ["train", "run", "--data", "pets", "--output", "models", *context.args])


def _commands(command: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    below = getattr(command, "commands", {})
    found = {} if below else {path: command}
    for name, child in below.items():
        found |= _commands(child, (*path, name))
    return found


COMMANDS: Final = {
    **{("twofold", *path): command for path, command in _commands(typer.main.get_command(app)).items()},
    **{("python", "-m", "tests.bench", *path): c for path, c in _commands(typer.main.get_command(bench_app)).items()},
    ("python", "-m", "tests.hostile"): typer.main.get_command(hostile_app),
}


def _options(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}


_ROOT_OPTIONS: Final = _options(typer.main.get_command(app))


@pytest.mark.parametrize("page", NOW)
def test_a_command_in_a_sentence_exists(page: str) -> None:
    """With the options that it is given."""
    groups = {path[:length] for path in COMMANDS for length in range(1, len(path))}
    for code in quoted(NOW[page]):
        words = code.removeprefix("uv run ").split()
        if words[:1] == ["twofold"]:
            path = next(tuple(words[:length]) for length in (3, 2, 1) if tuple(words[:length]) in {*COMMANDS, *groups})
            options = {word for word in words if word.startswith("--")}
            assert path in COMMANDS or len(path) == len([word for word in words if not word.startswith("-")]), code
            assert options <= FOREIGN | (_options(COMMANDS[path]) if path in COMMANDS else _ROOT_OPTIONS), code


@pytest.mark.parametrize("page", NOW)
def test_an_option_in_a_sentence_exists(page: str) -> None:
    """Of some command."""
    known = (
        FOREIGN
        | _ROOT_OPTIONS
        | {option for command in COMMANDS.values() for option in _options(command)}
        | {"--drain"}
    )
    named = {code.split()[0] for code in quoted(NOW[page]) if code.startswith("--")}
    assert named <= known


def test_every_command_is_on_a_page() -> None:
    """In a sentence, a table or a block."""
    text = " ".join(PAGES.values())
    assert [path for path in COMMANDS if not re.search(rf"\b{re.escape(' '.join(path))}\b", text)] == []


def test_a_module_that_is_started_exists() -> None:
    """``python -m``."""
    named = {name for text in NOW.values() for name in re.findall(r"python -m ([\w.]+)", text)}
    assert {"worker", "worker.health", "jobs.container"} <= named
    assert [name for name in named if find_spec(name) is None] == []


def test_every_extra_exists() -> None:
    """``pip install 'twofold[…]'``."""
    named = {
        name
        for text in PAGES.values()
        for names in re.findall(r"(?:twofold|\.whl)\[([\w,]+)\]", text)
        for name in names.split(",")
    }
    assert {"cli", "train", "local", "parquet"} <= named <= set(PROJECT["project"]["optional-dependencies"])


# Documents.


def test_every_block_has_a_language_that_is_checked() -> None:
    """Text is for drawings and output."""
    assert {block.language for block in BLOCKS} <= {"sh", "python", "json", "csv", "text"}


def test_every_json_block_is_a_request_an_event_or_the_workers_policy() -> None:
    """As the worker reads them; the policy is that of infra/worker.yaml, and what else a worker may need."""
    documents = [block.text for block in BLOCKS if block.language == "json"]
    policies = [document for document in documents if "Statement" in json.loads(document)]
    for document in documents:
        assert document in policies or messages.read(document)
    (shown,) = policies
    (deployed,) = resources("worker.yaml", "AWS::IAM::ManagedPolicy").values()
    assert _actions(json.loads(shown)) == _actions(deployed["PolicyDocument"]) | OWN_WORKER


def _actions(node: Any) -> set[str]:
    if isinstance(node, list):
        return {action for item in node for action in _actions(item)}
    if isinstance(node, dict):
        below = {action for item in node.values() if isinstance(item, list | dict) for action in _actions(item)}
        return below | set(as_list(node.get("Action", [])))
    return set()


def test_every_csv_block_is_a_manifest() -> None:
    """Each line names an image."""
    for block in BLOCKS:
        if block.language == "csv":
            opened = [block.text.encode()]
            found = references(ManifestRef(uri="s3://shelter/a.csv"), opener=lambda *_: opened, lister=lambda _: [])  # noqa: B023
            assert all(ref.source_ref.startswith("s3://") for ref in found)


# What pages name.


def test_the_readme_is_short() -> None:
    """A newcomer finishes it."""
    assert len(PAGES["README.md"].encode()) <= MAX_README_BYTES


def test_the_wheel_that_the_readme_installs_is_the_one_that_is_built() -> None:
    """Its name has the version."""
    wheel = f"twofold-{PROJECT['project']['version']}-py3-none-any.whl"
    assert re.findall(r"dist/([^\[']+)", PAGES["README.md"]) == [wheel]


def test_the_readme_starts_with_the_two_commands() -> None:
    """The demo and the tests, each in one line."""
    first = [
        block.text for block in BLOCKS if (block.page, block.section, block.language) == ("README.md", "Try it", "sh")
    ]
    assert first == [f"pip install uv && uv run {command}\n" for command in ("twofold demo", "pytest")]


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    """To a file, and to a heading in it."""
    for target in re.findall(r"\]\(([^)]+)\)", PROSE[page]):
        if not target.startswith("https://"):
            path, _, anchor = target.partition("#")
            file = (REPOSITORY / page).parent / path if path else REPOSITORY / page
            assert file.resolve().is_file(), target
            assert not anchor or anchor in headings(file.resolve().relative_to(REPOSITORY).as_posix()), target


def test_the_readme_links_to_every_page() -> None:
    """Nothing is hidden."""
    assert [page for page in PAGES if f"({page})" not in PAGES["README.md"] and page != "README.md"] == []


@pytest.mark.parametrize("page", NOW)
def test_every_file_that_a_page_names_exists(page: str) -> None:
    """Paths marked as code, from the top of the repository."""
    named = [code for code in quoted(NOW[page]) if re.match(r"(worker|jobs|infra|tests|\.ci)/", code)]
    assert [path for path in named if not any(REPOSITORY.glob(path.rstrip("/")))] == []


@pytest.mark.parametrize(
    ("page", "title"),
    [
        ("worker/README.md", "Map of the code"),
        ("jobs/README.md", "Map of the code"),
        ("tests/README.md", "Map"),
    ],
)
def test_a_map_has_a_line_for_every_folder_and_each_explains_itself(page: str, title: str) -> None:
    """A newcomer finds the room, and its docstring says the rest."""
    package = page.partition("/")[0]
    folders = {path.parent.relative_to(REPOSITORY) for path in (REPOSITORY / package).glob("*/__init__.py")}
    shown = [row[0] for row in tables(section(page, title))[0]]
    assert {f"`{folder.as_posix()}/`" for folder in folders} <= set(shown)
    assert len(shown) == len(set(shown))
    for folder in folders:
        assert ast.get_docstring(ast.parse((REPOSITORY / folder / "__init__.py").read_text(encoding="utf-8")))


# What pages list.


def _first_column(page: str, title: str, number: int = 0) -> list[str]:
    return [name for row in tables(section(page, title))[number] for name in quoted(row[0])]


def test_every_field_of_a_request_is_described() -> None:
    """In the order of the contract."""
    assert set(_first_column("worker/README.md", "The request")) == set(ClassifyRequest.model_fields)


def test_every_column_of_the_answer_is_described() -> None:
    """In the order of the file; the last one is only in some."""
    assert _first_column("worker/README.md", "The answer") == [*COLUMNS, DECISION]


def test_every_error_code_is_described() -> None:
    """Of an image, of a request, and of a file in a data set."""
    codes = {*_first_column("worker/README.md", "Error codes"), *_first_column("worker/README.md", "Error codes", 1)}
    assert codes == set(ErrorCode)
    left_out = set(_first_column("jobs/README.md", "Files left out"))
    assert set(DatasetCode) <= left_out <= {*DatasetCode, *ErrorCode}


def test_every_option_of_training_is_described_with_its_default() -> None:
    """The second table of the options has all of them."""
    described: dict[str, str] = {}
    for names, _, defaults in tables(section("jobs/README.md", "Options"))[1]:
        options = [name.removeprefix("--").replace("-", "_") for name in quoted(names)]
        values = defaults.split(", ") if len(options) > 1 else [defaults]
        described |= dict(zip(options, values, strict=True))
    fields = TrainConfig.model_fields
    assert set(described) == set(fields)
    for name, text in described.items():
        assert name in DESCRIBED or _same(text, fields[name].default), name


def test_every_default_of_the_worker_is_described() -> None:
    """Where it is a value."""
    described = {row[0].strip("`"): row[2] for row in tables(section("worker/README.md", "Settings"))[0]}
    fields = {f"TWOFOLD_{name.upper()}": field for name, field in WorkerSettings.model_fields.items()}
    assert set(described) == set(fields)
    for name, field in fields.items():
        assert not isinstance(field.default, str | int) or _same(described[name], field.default), name


def test_the_limits_of_the_security_section_are_those_of_the_code() -> None:
    """Of messages, lists, jobs and archives; those of images are named with their error codes, too."""
    shown = dict(tables(section("worker/README.md", "Security"))[0])
    archive = Limits()
    for name, limits in {
        "a message": [f"{MAX_REQUEST_BYTES // 1024} KiB"],
        "a list": [f"{MAX_LINE:,} characters", f"{BOMB_BYTES // 1024**2} MiB", f"{BOMB_RATIO} times"],
        "a job": [f"{MAX_SHARDS * SHARD_IMAGES // 1_000_000} million images"],
        "an archive for training": [f"{archive.members:,} members", f"{archive.ratio} times"],
    }.items():
        assert [limit for limit in limits if limit not in shown[name]] == []
    codes = section("worker/README.md", "Error codes")
    for limit in ("32 MiB", "30 million pixels", "65,535"):
        assert (limit in shown["an image"], limit in codes) == (True, True)


def _same(text: str, value: object) -> bool:
    text = text.strip("`")
    return float(text) == value if isinstance(value, int | float) else text == str(value)


@pytest.mark.parametrize(("template", "number"), [("worker.yaml", 0), ("training.yaml", 1)])
def test_every_parameter_of_a_template_is_described_with_its_default(template: str, number: int) -> None:
    """Placeholders and empty values are described instead."""
    described: dict[str, str] = {}
    for names, _, default in tables(section("infra/README.md", "Parameters"))[number]:
        described |= dict.fromkeys(quoted(names), default)
    parameters = load(template)["Parameters"]
    assert set(described) == set(parameters)
    for name, parameter in parameters.items():
        value = str(parameter.get("Default", ""))
        words = value in {"", "unset"} or value.endswith("-00000000") or described[name].startswith("set by")
        assert words or described[name] == f"`{value}`", name


def test_every_alarm_is_described() -> None:
    """With what to do."""
    alarms = resources("worker.yaml", "AWS::CloudWatch::Alarm")
    assert [name for name in alarms if f"`{name}`" not in section("infra/README.md", "Alarms, metrics and logs")] == []


def test_every_file_of_a_bundle_is_described(bundle: Path) -> None:
    """And no other."""
    assert set(_first_column("jobs/README.md", "The bundle")) == {path.name for path in bundle.iterdir()}
