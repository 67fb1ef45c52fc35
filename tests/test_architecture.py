"""Who may import whom, who may read the environment, and what lies where."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from worker.settings import WorkerSettings

FILES = sorted(path for package in ("worker", "jobs") for path in (REPOSITORY / package).rglob("*.py"))
OURS = {"worker", "jobs", "infra", "tests"}
TRAINING = {"tensorflow", "keras", "sklearn", "h5py"}

#: The libraries that are kept at the edge, and the files that are the edge.
EDGES = {
    "boto3": {"worker/aws/clients.py", "jobs/local/emulator.py"},
    "botocore": {
        "worker/aws/storage.py",
        "worker/aws/failures.py",
        "worker/aws/queue.py",
        "worker/aws/notifications.py",
        "worker/aws/clients.py",
        "jobs/batch/dead_letters.py",
        "jobs/cloud/stack.py",
        "jobs/cloud/deploy.py",
        "jobs/cloud/training_jobs.py",
        "jobs/cloud/aws.py",
        "jobs/local/playground.py",
    },
    "obstore": {"worker/aws/storage.py", "worker/aws/failures.py", "worker/aws/clients.py"},
    "ai_edge_litert": {"worker/scoring/litert.py"},
    "PIL": {
        "worker/scoring/decoder.py",
        "jobs/data/digits.py",
        "jobs/report/gallery.py",
        "jobs/report/batch_page.py",
        "jobs/data/augment.py",
    },
}
#: Wire once: the entry points, and what must know of another library's variable.
ENVIRONMENT = {
    "worker/settings.py",
    "worker/aws/clients.py",
    "jobs/batch/client.py",
    "jobs/commands/train_run.py",
    "jobs/commands/local.py",
    "jobs/local/emulator.py",
    "jobs/local/playground.py",
    "jobs/local/demo.py",
    "jobs/local/sample.py",
    "jobs/training/backbone.py",
    "jobs/training/export.py",
    "jobs/container.py",
}
TOP = {"pyproject.toml", "jobs", "worker", "infra", "tests", "README.md", "LICENSE"}
#: Variables of the tests and benchmarks, which are no settings of the worker.
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


TREES = {_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
IMPORTS = [found for name, tree in TREES.items() for found in _walk(tree, name)]


def _tracked() -> list[str]:
    git = shutil.which("git")
    if git is None or not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout: what is tracked cannot be told")
    listed = subprocess.run([git, "ls-files", "-z"], cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    return [name for name in listed.split("\0") if name]


def test_there_is_something_to_look_at() -> None:
    """The rules below hold of files and imports that were found."""
    assert {"worker/contract.py", "jobs/train.py"} <= set(TREES)
    assert Import("worker/aws/storage.py", "botocore.exceptions", typing_only=False) in IMPORTS
    assert Import("worker/aws/storage.py", "mypy_boto3_s3", typing_only=True) in IMPORTS


def test_the_worker_imports_nothing_of_ours_but_the_worker() -> None:
    """``jobs`` may import ``worker``, never the other way; and neither imports the tests."""
    allowed = {"worker": {"worker"}, "jobs": {"worker", "jobs"}}
    assert [i for i in IMPORTS if i.package in OURS - allowed[i.file.partition("/")[0]]] == []


def test_the_contract_and_the_errors_import_nothing_of_ours() -> None:
    """They can be read, and copied, alone."""
    assert [i for i in IMPORTS if i.file in {"worker/contract.py", "worker/errors.py"} and i.package in OURS] == []


def test_training_libraries_appear_only_in_jobs() -> None:
    """TensorFlow takes seconds to import and a gigabyte to hold: a worker has neither."""
    assert [i for i in IMPORTS if i.package in TRAINING and not i.file.startswith("jobs/")] == []


@pytest.mark.parametrize("library", EDGES)
def test_a_library_at_the_edge_stays_there(library: str) -> None:
    """What it raises becomes a decision in these files; elsewhere only a type checker may see it."""
    users = {i.file for i in IMPORTS if i.package == library and not i.typing_only}
    assert users - EDGES[library] == set()


def test_stubs_are_imported_for_the_type_checker_alone() -> None:
    """``mypy_boto3_*`` is installed for development, not with the worker."""
    assert [i for i in IMPORTS if i.package.startswith("mypy_boto3") and not i.typing_only] == []


@pytest.mark.parametrize("module", ["worker.consumer", "worker.__main__"])
def test_a_worker_that_runs_has_loaded_no_training_library(module: str) -> None:
    """The same rule, as the interpreter sees it: nothing comes in by a detour."""
    unwanted = {*TRAINING, "jobs", "pandas", "scipy", "typer", "rich"}
    code = f"import {module}, sys; print(*({unwanted!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    assert done.stdout.split() == []


def _reads_environment(node: ast.AST) -> bool:
    readers = {"environ", "environb", "getenv", "getenvb"}
    if isinstance(node, ast.Attribute):
        return node.attr in readers
    if isinstance(node, ast.ImportFrom):
        return node.module == "os" and not readers.isdisjoint(alias.name for alias in node.names)
    return isinstance(node, ast.ClassDef) and "BaseSettings" in map(ast.unparse, node.bases)


def test_the_environment_is_read_in_few_places() -> None:
    """Everything else is told what it needs, so that a test can tell it something else."""
    readers = {name for name, tree in TREES.items() if any(map(_reads_environment, ast.walk(tree)))}
    assert "worker/settings.py" in readers
    assert readers - ENVIRONMENT == set()


def test_the_top_of_the_repository_holds_what_the_design_says() -> None:
    """Two packages, infra, tests, and what every project has; dotfiles beside them."""
    entries = {name.partition("/")[0] for name in _tracked()}
    assert {entry for entry in entries if not entry.startswith(".")} == TOP


#: Not to be found in this file itself, which is tracked too.
_MACHINE = re.compile(r"(?<![\w.~:-])/(?:root|work|home/\w+|Users/\w+)/")
_INDEX = re.compile(r"https?://[^\s/\"'<>)]*(?:pypi|pythonhosted|conda|artifactory|nexus)[^\s/\"'<>)]*")


def _texts() -> Iterator[tuple[str, str]]:
    for name in _tracked():
        path = REPOSITORY / name
        if path.is_file():
            yield name, path.read_text(encoding="utf-8", errors="replace")


def test_no_file_names_a_path_of_one_machine() -> None:
    """What is needed from outside comes through an option or a variable."""
    assert [(name, found[0]) for name, text in _texts() for found in [_MACHINE.search(text)] if found] == []


def test_no_file_names_the_host_of_a_package_index() -> None:
    """Which index a machine uses is that machine's business."""
    assert [(name, found[0]) for name, text in _texts() for found in [_INDEX.search(text)] if found] == []


def _readme() -> str:
    return (REPOSITORY / "README.md").read_text(encoding="utf-8")


def _variables() -> set[str]:
    return {f"TWOFOLD_{field.upper()}" for field in WorkerSettings.model_fields}


def test_every_variable_in_the_readme_exists() -> None:
    """Each is a setting of the worker, or one of the tests' own."""
    assert set(re.findall(r"TWOFOLD_[A-Z_]+", _readme())) - _variables() - OWN_VARIABLES == set()


def test_every_setting_is_in_the_readme() -> None:
    """A setting nobody can find might as well not be there."""
    assert _variables() - set(re.findall(r"TWOFOLD_[A-Z_]+", _readme())) == set()


def test_every_variable_in_the_code_exists() -> None:
    """Messages, templates and tests name no setting that is none."""
    named = {(name, word) for name, text in _texts() for word in re.findall(r"\bTWOFOLD_[A-Z_]*[A-Z]\b", text)}
    assert {(name, word) for name, word in named if word not in _variables() | OWN_VARIABLES} == set()
