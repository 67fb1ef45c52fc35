"""Who may import whom, which libraries stay at the edge, who may read the environment, and what is where."""

import ast
import functools
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from worker.settings import WorkerSettings

#: The rooms of each package from the ground floor up. A file imports from its own room or from lower floors.
FLOORS = (
    {"worker.contract", "worker.errors", "worker.logs"},
    {"worker.messages", "worker.predictions", "worker.settings", "worker.threads", "worker.uris"},
    {"worker.aws", "worker.health", "worker.manifest"},
    {"worker.scoring"},
    {"worker.batch"},
    {"worker.dispatch"},
    {"worker.bootstrap", "worker.cloudwatch", "worker.delivery"},
    {"worker.consumer", "worker.serverless"},
    {"worker.__main__"},
    {"jobs.decoding", "jobs.json_schema", "jobs.signals", "jobs.user_error", "jobs.wording"},
    {"jobs.progress", "jobs.question", "jobs.unsure_band"},
    {"jobs.config", "jobs.extras", "jobs.folder_settings"},
    {"jobs.cloud", "jobs.labelled_list", "jobs.metrics", "jobs.printable", "jobs.store"},
    {"jobs.data", "jobs.html", "jobs.models", "jobs.output_file"},
    {"jobs.batch", "jobs.checkup", "jobs.local", "jobs.training"},
    {"jobs.labelling"},
    {"jobs.report"},
    {"jobs.train"},
    {"jobs.commands"},
    {"jobs.cli"},
    {"jobs.container"},
)
#: Where each of these libraries may be imported: files and folders.
EDGES = {
    ("boto3",): ("worker/aws/", "jobs/local/emulator.py"),
    ("obstore",): ("worker/aws/",),
    ("botocore",): (
        "worker/aws/",
        "jobs/cloud/aws.py",
        "jobs/cloud/deploy.py",
        "jobs/cloud/stack.py",
        "jobs/cloud/training_jobs.py",
    ),
    ("urllib3",): ("worker/aws/failures.py",),
    ("ai_edge_litert",): ("worker/scoring/litert.py",),
    ("keras", "tensorflow"): ("jobs/training/", "jobs/train.py"),
    ("h5py", "scipy", "sklearn"): ("jobs/",),
    ("jinja2", "rich", "typer"): ("jobs/",),
    # Decoding is the decoder's alone (a test below); the others encode or resize pixels.
    ("PIL",): (
        "worker/scoring/decoder.py",
        "jobs/data/augment.py",
        "jobs/data/digits.py",
        "jobs/labelling/thumbnails.py",
        "jobs/report/",
    ),
}
#: The entry points, and files that handle another library's variable.
ENVIRONMENT = {
    "worker/settings.py",
    "worker/aws/clients.py",
    "worker/scoring/template.py",
    "jobs/batch/client.py",
    "jobs/commands/local.py",
    "jobs/commands/train_run.py",
    "jobs/folder_settings.py",
    "jobs/container.py",
    "jobs/local/demo.py",
    "jobs/local/emulator.py",
    "jobs/local/playground.py",
    "jobs/training/backbone.py",
    "jobs/training/export.py",
    "jobs/store.py",
}
TOP = {"pyproject.toml", "jobs", "worker", "infra", "tests", "README.md", "LICENSE"}
#: Variables of the tests and benchmarks; they are not settings of the worker.
OWN_VARIABLES = {"TWOFOLD_SHARED", "TWOFOLD_DATA"}


@dataclass(frozen=True)
class Import:
    """One import: where, of what, and whether only a type checker sees it."""

    file: str
    module: str
    typing_only: bool

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]


def _name(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def _module(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def _is_typing_block(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def _modules(node: ast.AST, file: str) -> list[str]:
    """What a statement imports; also ``importlib.import_module("x")`` and ``__import__("x")``."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        above = file.removesuffix(".py").split("/")[: -node.level] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        return [base, *(f"{base}.{alias.name}" for alias in node.names)]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
        return [str(arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant)]
    return []


def _walk(node: ast.AST, file: str, *, typing_only: bool = False) -> Iterator[Import]:
    for module in _modules(node, file):
        yield Import(file, module, typing_only)
    hidden = set(map(id, node.body)) if isinstance(node, ast.If) and _is_typing_block(node) else set()
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, file, typing_only=typing_only or id(child) in hidden)


TREES = {
    _name(path): ast.parse(path.read_text(encoding="utf-8"))
    for package in ("worker", "jobs")
    for path in sorted((REPOSITORY / package).rglob("*.py"))
}
IMPORTS = [found for name, tree in TREES.items() for found in _walk(tree, name)]
MODULES = {_module(file) for file in TREES}
#: Imports of one file of the two packages by another.
OWN = [i for i in IMPORTS if i.module in MODULES and i.module not in {"worker", "jobs"} and i.module != _module(i.file)]


def test_there_is_something_to_check() -> None:
    """The rules below apply to files and imports that were found."""
    assert {"worker/contract.py", "jobs/train.py"} <= set(TREES)
    assert Import("worker/aws/storage.py", "botocore.exceptions", typing_only=False) in IMPORTS
    assert Import("worker/aws/storage.py", "mypy_boto3_s3", typing_only=True) in IMPORTS
    assert Import("worker/__main__.py", "worker.bootstrap", typing_only=False) in OWN


def test_the_worker_imports_only_itself_and_nothing_imports_the_tests() -> None:
    """``jobs`` may import ``worker``, never the other way around."""
    allowed = {"worker": {"worker"}, "jobs": {"worker", "jobs"}}
    packages = {"worker", "jobs", "infra", "tests"}
    assert [i for i in IMPORTS if i.package in packages - allowed[i.file.partition("/")[0]]] == []


def test_the_contract_and_the_errors_import_nothing_of_the_project() -> None:
    """They can be read, and copied, on their own."""
    assert [i for i in OWN if i.file in {"worker/contract.py", "worker/errors.py"}] == []


def test_every_room_has_a_floor() -> None:
    """A new folder or file is placed here before anything imports it."""
    rooms = {_room(module) for module in MODULES - {"worker", "jobs"}}
    assert Counter(room for floor in FLOORS for room in floor) == Counter(rooms)


def test_imports_run_downwards() -> None:
    """From a room to a lower floor, so that each floor can be understood without those above it."""
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    between = [i for i in OWN if _room(i.module) != _room(_module(i.file))]
    assert [i for i in between if floor[_room(i.module)] >= floor[_room(_module(i.file))]] == []


def test_no_files_import_each_other_in_a_circle() -> None:
    """Within a room, too."""
    uses = {_module(file): {i.module for i in OWN if i.file == file} for file in TREES}
    while leaves := {module for module, used in uses.items() if not used & uses.keys()}:
        uses = {module: used for module, used in uses.items() if module not in leaves}
    assert uses == {}


def test_no_file_name_occurs_twice() -> None:
    """A name says which file is meant; only Python's own names occur in every package."""
    names = Counter(file.rpartition("/")[2] for file in TREES)
    assert [name for name, count in names.items() if count > 1 and not name.startswith("__")] == []


def test_no_public_type_has_its_name_twice() -> None:
    """Classes and type aliases: a name says which one is meant."""
    assert [name for name, count in Counter(_public_types()).items() if count > 1] == []


def _public_types() -> Iterator[str]:
    for tree in TREES.values():
        for node in tree.body:
            names = [node.name] if isinstance(node, ast.ClassDef) else []
            if isinstance(node, ast.Assign):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            # Constants are in capitals, functions and values in lower case.
            yield from (name for name in names if name[0].isupper() and not name.isupper())


@pytest.mark.parametrize(("libraries", "places"), [pytest.param(*edge, id="-".join(edge[0])) for edge in EDGES.items()])
def test_a_library_at_the_edge_stays_there(libraries: tuple[str, ...], places: tuple[str, ...]) -> None:
    """What it raises becomes a decision there; elsewhere only a type checker may see it."""
    users = {i.file for i in IMPORTS if i.package in libraries and not i.typing_only}
    assert [file for file in sorted(users) if not file.startswith(places)] == []
    assert [place for place in places if not any(file.startswith(place) for file in users)] == []


def test_only_the_decoder_opens_images() -> None:
    """Untrusted bytes pass its limits, and training and serving see the same pixels."""
    opens = {
        file
        for file, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "Image.open"
    }
    assert opens == {"worker/scoring/decoder.py"}


def test_stubs_are_imported_only_for_the_type_checker() -> None:
    """``mypy_boto3_*`` is installed for development, not with the worker."""
    assert [i for i in IMPORTS if i.package.startswith("mypy_boto3") and not i.typing_only] == []


@functools.cache
def _loaded_by(module: str) -> frozenset[str]:
    code = f"import {module}, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    return frozenset(name.partition(".")[0] for name in done.stdout.split())


def test_a_running_worker_has_loaded_no_training_library_and_no_command_line() -> None:
    """The same rules as the interpreter sees them: nothing comes in through another library."""
    unwanted = {"tensorflow", "keras", "sklearn", "h5py", "jobs", "pandas", "scipy", "typer", "rich", "jinja2"}
    assert unwanted & _loaded_by("worker.__main__") == set()


def test_checking_a_prefix_needs_neither_litert_nor_botocore() -> None:
    """``worker.uris`` is imported by everything that names an object."""
    assert {"ai_edge_litert", "botocore", "boto3", "obstore", "PIL", "numpy"} & _loaded_by("worker.uris") == set()


def _reads_environment(node: ast.AST) -> bool:
    readers = {"environ", "environb", "getenv", "getenvb"}
    if isinstance(node, ast.Attribute):
        return node.attr in readers
    if isinstance(node, ast.ImportFrom):
        return node.module == "os" and not readers.isdisjoint(alias.name for alias in node.names)
    return isinstance(node, ast.ClassDef) and "BaseSettings" in map(ast.unparse, node.bases)


def test_the_environment_is_read_in_few_places() -> None:
    """Everything else is passed what it needs, so that a test can pass it something else."""
    readers = {name for name, tree in TREES.items() if any(map(_reads_environment, ast.walk(tree)))}
    assert readers == ENVIRONMENT


@functools.cache
def _tracked() -> tuple[str, ...]:
    git = shutil.which("git")
    if git is None or not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout: which files are tracked is unknown")
    listed = subprocess.run([git, "ls-files", "-z"], cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    return tuple(name for name in listed.split("\0") if name)


def test_the_top_of_the_repository_holds_what_the_design_says() -> None:
    """Two packages, infra, tests, and what every project has; next to them, dotfiles."""
    entries = {name.partition("/")[0] for name in _tracked()}
    assert {entry for entry in entries if not entry.startswith(".")} == TOP


#: Written so that they do not match this file, which is tracked too.
_MACHINE = re.compile(r"(?<![\w.~:-])/(?:root|work|home/\w+|Users/\w+)/")
_INDEX = re.compile(r"https?://[^\s/\"'<>)]*(?:pypi|pythonhosted|conda|artifactory|nexus)[^\s/\"'<>)]*")


def _texts(*suffixes: str) -> Iterator[tuple[str, str]]:
    for name in _tracked():
        path = REPOSITORY / name
        if path.is_file() and name.endswith(suffixes or ("",)):
            yield name, path.read_text(encoding="utf-8", errors="replace")


def test_no_file_names_a_path_of_one_machine() -> None:
    """What is needed from outside comes through an option or a variable."""
    assert [(name, found[0]) for name, text in _texts() for found in [_MACHINE.search(text)] if found] == []


def test_no_file_names_the_host_of_a_package_index() -> None:
    """Each machine chooses its own index."""
    assert [(name, found[0]) for name, text in _texts() for found in [_INDEX.search(text)] if found] == []


def _settings() -> set[str]:
    return {f"TWOFOLD_{field.upper()}" for field in WorkerSettings.model_fields}


def test_every_setting_is_documented() -> None:
    """An undocumented setting might as well not exist."""
    page = (REPOSITORY / "worker/README.md").read_text(encoding="utf-8")
    assert _settings() - set(re.findall(r"TWOFOLD_[A-Z_]+", page)) == set()


def test_every_variable_that_is_named_exists() -> None:
    """Pages, messages, templates and tests name only real settings."""
    named = {(name, word) for name, text in _texts() for word in re.findall(r"\bTWOFOLD_[A-Z_]*[A-Z]\b", text)}
    assert {(name, word) for name, word in named if word not in _settings() | OWN_VARIABLES} == set()
